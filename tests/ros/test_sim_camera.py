"""Simulated cameras beside the simulated arm."""

import numpy as np
import pytest
from robot_rl_ros.conversions import image_to_array
from robot_rl_ros.qos import JOINTS, SENSOR
from robot_rl_ros.stamps import to_ns
from sensor_msgs.msg import CameraInfo, Image, JointState


@pytest.mark.slow
def test_two_cameras_show_the_arm_with_the_stamps_of_its_joints(ros_graph):
    joints = ros_graph.collect(JointState, "joint_states", JOINTS)
    images = {name: ros_graph.collect(Image, f"{name}/color/image_raw", SENSOR) for name in ("front", "wrist")}
    infos = {name: ros_graph.collect(CameraInfo, f"{name}/color/camera_info", SENSOR) for name in images}
    ros_graph.start("sim_robot_node", config="sim_robot.yaml")
    cameras = [
        ros_graph.start("sim_camera_node", config="camera_sim.yaml", params={"camera": name, "fps": 10.0})
        for name in images
    ]
    for name, inbox in images.items():
        msg = inbox.wait(5, timeout_s=12)
        picture = image_to_array(msg)
        assert picture.shape == (120, 160, 3)
        assert picture.std() > 10
        assert msg.header.frame_id == f"{name}_color_optical_frame"
        info = infos[name].wait(match=lambda info, stamp=msg.header.stamp: info.header.stamp == stamp)
        assert (info.width, info.height, info.k[2], info.k[5]) == (160, 120, 80.0, 60.0)
        # Joint states may be discovered later than pictures: only pictures since the first joint state can be compared.
        since = to_ns(joints.wait(timeout_s=12).header.stamp)
        inbox.wait(3, match=lambda msg, since=since: to_ns(msg.header.stamp) >= since)
        stamps = np.array([to_ns(m.header.stamp) for m in inbox.messages])
        assert (np.diff(stamps) > 0).all()
        joints.wait(match=lambda state, stamp=stamps[-1]: to_ns(state.header.stamp) >= stamp)
        published = {to_ns(state.header.stamp) for state in joints.messages}
        shown = [stamp for stamp in stamps.tolist() if stamp >= since]
        assert sum(stamp not in published for stamp in shown) <= 1, "best effort may lose one joint state, no more"
    assert not np.array_equal(
        image_to_array(images["front"].messages[-1]), image_to_array(images["wrist"].messages[-1])
    )
    assert [camera.interrupt() for camera in cameras] == [0, 0]
    assert not any("Traceback" in camera.log for camera in cameras)


def test_a_camera_that_does_not_exist_is_refused(ros_graph):
    process = ros_graph.start("sim_camera_node", params={"camera": "side"})
    assert process.wait() == 2
    assert "there is no camera `side`; robot and scene have ['front', 'view', 'wrist']" in process.log
