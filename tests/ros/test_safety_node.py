"""The safety node with other parameters: each test starts its own."""

import json
import time

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from robot_rl_ros.conversions import command_to_msg
from robot_rl_ros.qos import COMMAND, JOINTS, LATCHED
from robot_rl_ros.stamps import now_ns
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from tests.ros.conftest import START_S
from tests.ros.safety_cell import HOME, NAMES, STEP_S, Cell


def test_slow_start_limits_given_as_zero_and_outputs(ros_graph):
    """Acceleration of joint 2 is 0.0, joint 1 starts slowly, forward commands go out beside."""
    acceleration = [15.0, 0.0, 10.0, 12.5, 15.0, 20.0, 20.0, float("inf")]
    forward = ros_graph.collect(Float64MultiArray, "forward/commands", COMMAND)
    gripper = ros_graph.collect(Float64MultiArray, "gripper/commands", COMMAND)
    cell = Cell(ros_graph, slow_start_s=1.0, output_type="forward_command", output_topic="forward/commands",
                output_gripper_topic="gripper/commands", **{"limits.acceleration": acceleration})  # fmt: skip
    cell.source.publish(String(data="policy"))
    cell.drive(HOME, 0.05)
    target = HOME.copy()
    target[:2] += 1.0
    cell.drive(target, 0.4)
    executed = cell.executed()
    assert np.abs(executed[:, 1] - HOME[1]).max() < 1e-9
    speed = np.diff(executed[:, 0]).max() / STEP_S
    assert 0.2 * 2.175 < speed < 0.75 * 2.175
    assert forward.wait(30).data.tolist() in executed[:, :7].tolist()
    assert gripper.messages[-1].data.tolist() == [0.08]


def test_a_camera_that_stalls_stops_the_arm_and_twist_output(ros_graph):
    twist = ros_graph.collect(TwistStamped, "servo/delta_twist_cmds", COMMAND)
    cell = Cell(ros_graph, slow_start_s=0.0, watch_cameras=["front/color/camera_info"], output_type="twist",
                output_topic="servo/delta_twist_cmds")  # fmt: skip
    ros_graph.wait_matched(cell.camera)
    cell.source.publish(String(data="policy"))
    cell.drive(HOME, 0.1, camera=True)
    target = HOME.copy()
    target[0] = 1.0
    cell.drive(target, 0.3, camera=True)
    fastest = max(msg.twist.angular.z for msg in twist.messages)
    assert fastest == pytest.approx(2.175, rel=1e-6)  # joint 1 turns about the base's z
    cell.drive(target, 0.4, camera=False)
    reason = cell.wait_state("stopped")["reason"]
    assert "`front/color/camera_info` is 0.1" in reason
    assert "at most 0.15 s allowed" in reason


def test_homing_moves_the_simulated_arm_within_the_limits(ros_graph):
    ros_graph.start("sim_robot_node", config="sim_robot.yaml")
    ros_graph.start("safety_node", config="safety.yaml")
    joints = ros_graph.collect(JointState, "joint_states", JOINTS)
    states = ros_graph.collect(String, "safety/state", LATCHED)
    command = ros_graph.publisher(JointTrajectory, "command", COMMAND)
    ros_graph.wait_matched(command)
    joints.wait(timeout_s=START_S)
    states.wait(timeout_s=START_S)
    away = HOME.copy()
    away[0], away[7] = 0.3, 0.05
    for _ in range(50):  # as the only one that commands
        command.publish(command_to_msg(now_ns(ros_graph.node), NAMES, away))
        time.sleep(0.02)
    assert joints.messages[-1].position[0] == pytest.approx(0.3, abs=0.02)
    time.sleep(0.2)
    sent = ros_graph.collect(JointTrajectory, "command", COMMAND)
    response = ros_graph.call(Trigger, "safety/home")
    while response.message == "cannot start: `joint_states` has never been received":  # until it has found the arm
        time.sleep(0.05)
        response = ros_graph.call(Trigger, "safety/home")
    assert response.success, response.message
    assert json.loads(states.wait(match=lambda msg: json.loads(msg.data)["state"] == "homing").data)["ok"]
    states.clear()
    states.wait(match=lambda msg: json.loads(msg.data)["state"] == "idle", timeout_s=START_S)
    assert np.array(joints.messages[-1].position) == pytest.approx(HOME, abs=0.025)
    executed = np.array([msg.points[0].positions for msg in sent.messages])
    assert len(executed) > 20
    assert executed[-1] == pytest.approx(HOME, abs=1e-9)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, "parameter `joint_names` of node `safety` is missing"),
        ({"joint_names": NAMES}, "parameter `limits.low` of node `safety` is missing"),
        ({"joint_names": NAMES, "limits.low": [0.0]}, "must have 8 numbers, one for each of"),
    ],
)
def test_a_missing_limit_refuses_to_start(ros_graph, params, text):
    process = ros_graph.start("safety_node", params=params)
    assert process.wait() == 2
    assert text in process.log


def test_values_out_of_range_refuse_to_start(ros_graph):
    negative = ros_graph.start("safety_node", config="safety.yaml", params={"limits.velocity": [-1.0] * 8})
    crossed = ros_graph.start("safety_node", config="safety.yaml", params={"limits.high": [-9.0] * 8})
    assert negative.wait() == 2
    assert "parameter `limits.velocity` of node `safety` must be from 0.0 to inf, got -1.0" in negative.log
    assert crossed.wait() == 2
    assert "low -2.8973 lies above high -9" in crossed.log
