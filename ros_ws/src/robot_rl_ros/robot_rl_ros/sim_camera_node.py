"""A camera of the simulated cell in a process of its own: it renders what the arm publishes, so physics never waits."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo as CameraInfoMsg
from sensor_msgs.msg import Image, JointState

from robot_rl.deploy.ticker import Ticker
from robot_rl.hardware.cameras import CameraInfo
from robot_rl_ros.camera_node import camera_info_to_msg
from robot_rl_ros.conversions import ImagePublisher, joint_state_to_arrays, pose_to_pose9
from robot_rl_ros.diagnostics import OK, WARN, Diagnostics, Health
from robot_rl_ros.params import declare
from robot_rl_ros.qos import JOINTS, SENSOR
from robot_rl_ros.runner import run
from robot_rl_ros.stamps import to_msg
from sim.robots import load_robot
from sim.view import SceneView


class SimCameraNode(Node):
    """Publishes colour and camera_info of one camera, stamped with the joint state that is shown."""

    def __init__(self) -> None:
        super().__init__("camera")
        name = declare(self, "camera", str, "camera of the scene (`front`, `view`) or of the robot (`wrist`)")
        width = declare(self, "width", 160, "columns [px]", low=8, high=4096)
        height = declare(self, "height", 120, "rows [px]", low=8, high=4096)
        fps = declare(self, "fps", 30.0, "frames a second [Hz]", low=0.1, high=240.0)
        robot = load_robot(declare(self, "model", "arm7", "`arm7` or the path of an MJCF file"))
        self._object = declare(self, "object", "cube_pose", "what object_pose shows")
        self._names = (*robot.joints, *(("gripper",) if robot.gripper is not None else ()))
        self._view = SceneView(name, robot, height=height, width=width)
        frame_id = declare(self, "frame_id", f"{name}_color_optical_frame", "optical frame of the pictures")
        image = self.create_publisher(Image, f"{name}/color/image_raw", SENSOR)
        self._image = ImagePublisher(image, (height, width, 3), encoding="rgb8", frame_id=frame_id)
        self._info = self.create_publisher(CameraInfoMsg, f"{name}/color/camera_info", SENSOR)
        info = CameraInfo(width=width, height=height, fps=fps, frame_id=frame_id, K=self._view.intrinsics, D=(0.0,) * 5)
        self._info_msg = camera_info_to_msg(info)
        self._lock = threading.Lock()
        self._joints: JointState | None = None
        self._pose: np.ndarray | None = None
        self._shown_ns = 0
        self._frames = 0
        self.create_subscription(JointState, "joint_states", self._on_joints, JOINTS)
        self.create_subscription(PoseStamped, "object_pose", self._on_object, SENSOR)
        self._diagnostics = Diagnostics(self, self._health)
        self._check = self.create_timer(0.1, self._raise_failure)
        self._ticker = Ticker(self._tick, rate_hz=fps, name=f"camera-{name}")
        self._ticker.start()

    def close(self) -> None:
        """Stop rendering."""
        self._ticker.close()

    def _on_joints(self, msg: JointState) -> None:
        with self._lock:
            self._joints = msg

    def _on_object(self, msg: PoseStamped) -> None:
        pose = pose_to_pose9(msg.pose)
        with self._lock:
            self._pose = pose

    def _tick(self) -> None:
        with self._lock:
            joints, pose = self._joints, self._pose
        if joints is None or pose is None:
            return
        stamp_ns, position, _ = joint_state_to_arrays(joints, self._names)
        if stamp_ns <= self._shown_ns:
            return  # nothing new was published: a frozen arm must not look like a living camera
        picture = self._view.picture(position, {self._object: pose})
        self._image.publish(picture, stamp_ns)
        self._info_msg.header.stamp = to_msg(stamp_ns)
        self._info.publish(self._info_msg)
        self._shown_ns = stamp_ns
        self._frames += 1

    def _health(self) -> Health:
        values = {"frames": self._frames, "skipped": self._ticker.skipped}
        if self._frames == 0:
            return Health(WARN, "waiting for joint_states and object_pose", values)
        return Health(OK, "rendering", values)

    def _raise_failure(self) -> None:
        if self._ticker.error is not None:
            raise self._ticker.error


def main(args: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(SimCameraNode, args)


if __name__ == "__main__":
    sys.exit(main())
