"""What the safety node sends to a controller, taken off the wire: beside `command`, and saying the same."""

import itertools

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from robot_rl_ros.conversions import msg_to_command
from robot_rl_ros.stamps import to_ns
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from sim.robots import ARM7
from tests.ros.safety_cell import EVERY, HOME, NAMES, STEP_S, Cell

CALM = {"slow_start_s": 0.0, "command_timeout_s": 0.3, "joints_timeout_s": 0.3}
TARGET = HOME + np.array([0.4, 0.1, -0.2, 0.0, 0.1, 0.0, 0.3, -0.03])


def moved(graph, **params) -> Cell:
    """Return a cell whose arm was driven from home to the target and stands there."""
    cell = Cell(graph, **CALM, **params)
    cell.begin()
    cell.drive(TARGET, 1.2)
    assert cell.state()["state"] == "running"
    assert cell.executed()[-1] == pytest.approx(TARGET, abs=1e-3)
    return cell


def test_a_joint_trajectory_controller_gets_each_command_as_one_point_a_period_ahead(ros_graph):
    topic = "joint_trajectory_controller/joint_trajectory"
    trajectories = ros_graph.collect(JointTrajectory, topic, EVERY)
    gripper = ros_graph.collect(Float64MultiArray, "gripper_controller/commands", EVERY)
    cell = moved(
        ros_graph,
        output_type="joint_trajectory",
        output_topic=topic,
        output_gripper_topic="gripper_controller/commands",
    )
    sent = {tuple(values[:7]) for values in cell.executed()}
    assert len(trajectories) > 50
    for msg in trajectories.messages:
        assert list(msg.joint_names) == NAMES[:7]
        assert to_ns(msg.header.stamp) == 0  # begin on arrival, whatever the controller's clock says
        (point,) = msg.points
        assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, round(STEP_S * 1e9))
        assert [len(further) for further in (point.velocities, point.accelerations, point.effort)] == [0, 0, 0]
    paths = [tuple(msg.points[0].positions) for msg in trajectories.messages]
    assert sum(path in sent for path in paths) >= 0.9 * len(paths)  # those at the ends may not have been heard as both
    assert paths[-1] == pytest.approx(TARGET[:7], abs=1e-3)
    widths = [list(msg.data) for msg in gripper.messages]
    assert {len(width) for width in widths} == {1}
    assert widths[-1] == pytest.approx([TARGET[7]], abs=1e-3)


def test_a_servo_gets_the_tools_velocity_that_the_commands_mean(ros_graph):
    twists = ros_graph.collect(TwistStamped, "servo_node/delta_twist_cmds", EVERY)
    cell = moved(ros_graph, output_type="twist", output_topic="servo_node/delta_twist_cmds", base_frame="base")
    commands = {to_ns(msg.header.stamp): msg_to_command(msg, NAMES)[1][:7] for msg in cell.command.messages}
    # The Jacobian is that of the step's beginning; at 2 rad/s the step itself turns it by 0.02.
    kinematics, stamps, judged = ARM7.kinematics(), sorted(commands), 0
    speeds = {to_ns(msg.header.stamp): msg.twist for msg in twists.messages}
    assert {msg.header.frame_id for msg in twists.messages} == {"base"}
    for before, now in itertools.pairwise(stamps):
        if now not in speeds or now - before > 1.5e9 * STEP_S:  # a command in between was not heard
            continue
        start, end = (kinematics.forward(commands[stamp]) for stamp in (before, now))
        turned = (end[:3, :3] @ start[:3, :3].T - start[:3, :3] @ end[:3, :3].T) / 2  # sine of the rotation vector
        linear, angular = speeds[now].linear, speeds[now].angular
        assert [linear.x, linear.y, linear.z] == pytest.approx((end - start)[:3, 3] / STEP_S, abs=0.05)
        turning = np.array([turned[2, 1], turned[0, 2], turned[1, 0]]) / STEP_S
        assert [angular.x, angular.y, angular.z] == pytest.approx(turning, abs=0.05)
        judged += 1
    assert judged > 30
    assert max(abs(speeds[stamp].linear.x) for stamp in speeds) > 0.05  # it did move
    last = twists.messages[-1].twist
    assert [last.linear.x, last.linear.y, last.linear.z] == pytest.approx([0.0] * 3, abs=0.02)
