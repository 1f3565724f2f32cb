"""The simulated arm behind the topics of a real one."""

import time

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from robot_rl_ros.conversions import command_to_msg, pose_to_pose9
from robot_rl_ros.qos import COMMAND, JOINTS, SENSOR
from robot_rl_ros.stamps import now_ns, to_ns
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from sim.realtime import RealtimeArm

NAMES = [*(f"joint{i}" for i in range(1, 8)), "gripper"]


class Arm:
    def __init__(self, graph) -> None:
        self.graph = graph
        self.joints = graph.collect(JointState, "joint_states", JOINTS)
        self.tool = graph.collect(PoseStamped, "current_pose", SENSOR)
        self.object = graph.collect(PoseStamped, "object_pose", SENSOR)
        self.command = graph.publisher(JointTrajectory, "command", COMMAND)
        self.process = graph.start("sim_robot_node", config="sim_robot.yaml")
        self.joints.wait(timeout_s=10)
        graph.wait_matched(self.command)

    def pose(self) -> np.ndarray:
        self.joints.clear()
        return np.array(self.joints.wait().position)

    def send(self, values) -> None:
        self.command.publish(command_to_msg(now_ns(self.graph.node), NAMES, values))

    def drive(self, target, seconds: float) -> np.ndarray:
        """Send the same command at 50 Hz and return where the arm is then."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.send(target)
            time.sleep(0.02)
        return self.pose()

    def reset(self, seed: int):
        value = ParameterValue(type=2, integer_value=seed)
        request = SetParameters.Request(parameters=[Parameter(name="seed", value=value)])
        assert self.graph.call(SetParameters, "sim_robot/set_parameters", request).results[0].successful
        return self.graph.call(Trigger, "sim_robot/reset")


@pytest.fixture(scope="module")
def arm(shared_graph) -> Arm:
    return Arm(shared_graph)


def test_publishes_every_stream_with_growing_stamps(arm):
    arm.joints.clear()
    arm.tool.clear()
    msg = arm.joints.wait(200)
    stamps = np.array([to_ns(m.header.stamp) for m in arm.joints.messages])
    assert list(msg.name) == NAMES
    assert len(msg.velocity) == 8
    assert (np.diff(stamps) > 0).all()
    assert abs(stamps[-1] - now_ns(arm.graph.node)) < 1e9
    pose = arm.tool.wait()
    assert pose.header.frame_id == "base_link"
    assert pose.pose.position.z == pytest.approx(0.27, abs=0.05)
    assert arm.object.wait().pose.position.z == pytest.approx(0.02, abs=0.002)


def test_reset_by_seed_is_the_scene_of_that_seed(arm):
    assert arm.reset(7).message == "seed 7"
    expected = RealtimeArm()
    expected.reset(7)
    assert arm.pose() == pytest.approx(expected.observe().position, abs=2e-3)
    arm.object.clear()
    cube = pose_to_pose9(arm.object.wait(5).pose)
    assert cube == pytest.approx(expected.observe().objects["cube_pose"], abs=2e-3)
    assert arm.graph.call(Trigger, "sim_robot/reset").message == "seed 8"


def test_follows_commands_and_holds_when_they_stop(arm):
    arm.reset(0)
    start = arm.pose()
    target = start.copy()
    target[0] += 0.2
    target[7] = 0.03
    assert arm.drive(target, 1.0) == pytest.approx(target, abs=0.01)
    target[0] -= 1.0
    arm.send(target)  # one command and then silence: 0.1 s of motion at 2.175 rad/s at most
    time.sleep(0.5)
    held = arm.pose()
    assert 0.05 < start[0] + 0.2 - held[0] < 0.1 * 2.175 + 0.1
    time.sleep(0.2)
    assert arm.pose() == pytest.approx(held, abs=1e-3)


def test_reset_and_home_are_refused_while_commands_arrive(arm):
    time.sleep(0.2)
    arm.reset(0)
    arm.send(arm.pose())
    response = arm.graph.call(Trigger, "sim_robot/reset")
    assert not response.success
    assert response.message == "commands still arrive; set the control source to none first, then reset"
    arm.send(arm.pose())
    assert "use the safety node's home" in arm.graph.call(Trigger, "sim_robot/home").message


def test_disabled_it_holds(arm):
    time.sleep(0.2)
    arm.reset(0)
    start = arm.pose()
    assert arm.graph.call(SetBool, "sim_robot/enable", SetBool.Request(data=False)).success
    assert arm.drive(start + 0.1, 0.3) == pytest.approx(start, abs=1e-3)
    assert arm.graph.call(SetBool, "sim_robot/enable", SetBool.Request(data=True)).success
    assert arm.drive(start - 0.02, 0.5) == pytest.approx(start - 0.02, abs=0.01)


def test_a_command_that_is_no_number_is_a_fault_until_cleared(arm):
    time.sleep(0.2)
    arm.reset(0)
    start = arm.pose()
    arm.send(np.full(8, np.nan))
    time.sleep(0.05)  # depth 1: the next command must not replace it
    assert arm.drive(start + 0.1, 0.3) == pytest.approx(start, abs=1e-3)
    assert arm.graph.call(Trigger, "sim_robot/clear_fault").success
    assert arm.drive(start - 0.02, 0.5) == pytest.approx(start - 0.02, abs=0.01)


def test_goes_home_and_ends_cleanly_on_sigint(arm):
    time.sleep(0.2)
    arm.reset(3)
    assert arm.graph.call(Trigger, "sim_robot/home").success
    time.sleep(0.5)
    home = np.array([*RealtimeArm().robot.home, 0.08])
    assert arm.pose() == pytest.approx(home, abs=0.012)
    assert arm.process.interrupt() == 0


def test_a_wrong_parameter_refuses_to_start(ros_graph):
    process = ros_graph.start("sim_robot_node", params={"joint_states_hz": 5000.0})
    other = ros_graph.start("sim_robot_node", params={"task": "juggle"})
    assert process.wait() == 2
    assert "joint_states_hz" in process.log
    assert other.wait() == 2
    assert "must be one of ['lift'], got 'juggle'" in other.log
