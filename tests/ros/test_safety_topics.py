"""Every safety case through the topics of one running safety node."""

import time

import numpy as np
import pytest
from robot_rl_ros.conversions import command_to_msg
from robot_rl_ros.stamps import now_ns, to_ns
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from sim.robots import ARM7
from tests.ros.safety_cell import HOME, NAMES, STEP_S, Cell


@pytest.fixture(scope="module")
def shared_cell(shared_graph) -> Cell:
    # Time-outs three times the default: the test's own process may be kept waiting on a busy machine.
    return Cell(shared_graph, slow_start_s=0.0, command_timeout_s=0.3, joints_timeout_s=0.3)


@pytest.fixture
def cell(shared_cell):
    shared_cell.end()
    shared_cell.begin()
    yield shared_cell
    shared_cell.end()


def test_joint_limit(cell):
    target = HOME.copy()
    target[6] = 0.9
    cell.drive(target, 0.3)
    target[6] = 10.0
    cell.drive(target, 2.0)
    executed = cell.executed()
    assert executed[:, 6].max() <= 2.8973 + 1e-9
    assert executed[-1, 6] == pytest.approx(2.8973, abs=1e-6)
    assert cell.state()["state"] == "running"


def test_velocity_and_acceleration_limits(cell):
    """A step of 1 rad of joint 1: 2.175 rad/s and 15 rad/s^2 hold between any two commands that were sent."""
    cell.command.clear()
    target = HOME.copy()
    target[0] = 1.0
    cell.drive(target, 1.0)
    executed = cell.executed()[:, 0]
    velocity = np.diff(executed) / STEP_S
    assert np.abs(velocity).max() == pytest.approx(2.175, abs=1e-6)
    assert np.abs(np.diff(velocity)).max() / STEP_S <= 15.0 + 1e-6
    assert executed[-1] == pytest.approx(1.0, abs=1e-3)


@pytest.fixture(scope="module")
def descent():
    """Joint positions that bring the tool straight down, from home to 8 cm below the table."""
    kinematics = ARM7.kinematics()
    pose, joints, path = kinematics.forward(HOME[:7]), HOME[:7], []
    for _ in range(60):
        pose[2, 3] -= 0.35 / 60
        joints = kinematics.inverse(pose, start=joints).joint_position
        path.append(np.append(joints, 0.08))
    assert kinematics.forward(joints)[2, 3] < -0.05
    return path


def test_workspace_box(descent, cell):
    """The tool never gets below z = 0, a limit given as 0.0."""
    kinematics = ARM7.kinematics()
    for joints in descent:
        cell.drive(joints, 0.03)
    heights = [kinematics.forward(q[:7])[2, 3] for q in cell.executed()]
    assert 0.0 <= min(heights) < 0.02
    assert cell.state()["state"] == "running"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stop(cell, bad):
    target = HOME.copy()
    target[2] = bad
    cell.send(target)
    state = cell.wait_state("stopped")
    assert "action must be 8 finite numbers" in state["reason"]
    cell.drive(HOME, 0.2)
    assert cell.state()["state"] == "stopped"
    assert np.isfinite(cell.executed()).all()


def test_a_nan_in_the_joint_states_stops(cell):
    cell.pose, cell.follow = HOME * np.nan, False
    cell.beat()
    assert "`joint_states` holds NaN or infinity" in cell.wait_state("stopped")["reason"]


def test_joint_states_that_stop_stop_the_arm(cell):
    cell.drive(HOME, 0.6, joints=False)
    state = cell.wait_state("stopped")
    assert "`joint_states` is 0.3" in state["reason"]
    assert "silent for" in state["reason"]


def test_joint_states_with_an_old_stamp_stop_the_arm(cell):
    cell.drive(HOME, 0.3, age_s=0.7)
    assert "`joint_states` is 0.7" in cell.wait_state("stopped")["reason"]


def test_joint_states_from_the_future_stop_the_arm(cell):
    cell.drive(HOME, 0.3, age_s=-5.0)
    reason = cell.wait_state("stopped")["reason"]
    assert "`joint_states` is stamped" in reason
    assert "s in the future; the clocks disagree" in reason


def test_commands_that_stop_stop_the_arm(cell):
    for _ in range(60):
        cell.beat()
        time.sleep(STEP_S)
    state = cell.wait_state("stopped")
    assert "`selected/command` is 0.3" in state["reason"]
    assert "at most 0.3 s allowed" in state["reason"]


def test_a_stale_command_stops(cell):
    cell.beat()
    cell.send(HOME, age_s=1.0)
    assert "`selected/command` is 1.0" in cell.wait_state("stopped")["reason"]


def test_e_stop_button_is_latched_and_clear_needs_it_released(cell):
    cell.button.publish(Bool(data=True))
    assert cell.wait_state("stopped")["reason"] == "e-stop pressed"
    refused = cell.graph.call(Trigger, "safety/clear")
    assert not refused.success
    assert refused.message == "the e-stop is still pressed; release it first"
    cell.button.publish(Bool(data=False))
    time.sleep(0.1)
    cell.drive(HOME, 0.2)
    assert cell.state()["state"] == "stopped"
    assert cell.graph.call(Trigger, "safety/clear").success
    cell.states.clear()
    cell.drive(HOME, 0.2)
    cell.wait_state("running")


def test_e_stop_service(cell):
    assert cell.graph.call(Trigger, "safety/e_stop").success
    assert cell.wait_state("stopped")["reason"] == "e-stop called"
    cell.drive(HOME, 0.6)
    last = cell.command.received_ns[-1]
    cell.drive(HOME, 0.2)
    assert cell.command.received_ns[-1] == last  # it held for 0.5 s, then left the arm to hold by itself


def test_a_command_of_another_source_is_refused(cell):
    target = HOME.copy()
    target[0] = 0.5
    for _ in range(60):
        cell.beat()
        cell.send(target, source="human")
        time.sleep(STEP_S)
    state = cell.wait_state("stopped")
    assert "`selected/command` is 0.3" in state["reason"]
    assert "refused meanwhile: {'human':" in state["reason"]
    assert np.abs(cell.executed()[:, 0]).max() < 1e-9


def test_a_command_of_an_unknown_source_stops(cell):
    cell.send(HOME, source="somebody")
    assert "comes from 'somebody'; known sources are ['policy', 'human']" in cell.wait_state("stopped")["reason"]


def test_an_unknown_control_source_stops(cell):
    cell.source.publish(String(data="remote"))
    assert "control source 'remote' is unknown" in cell.wait_state("stopped")["reason"]


def test_handover_between_sources_goes_on_from_where_the_arm_is(cell):
    target = HOME.copy()
    target[0] = 0.3
    cell.drive(target, 0.3)
    cell.source.publish(String(data="human"))
    cell.drive(target, 0.5, source="human")
    executed = cell.executed()[:, 0]
    assert cell.state()["state"] == "running"
    assert np.abs(np.diff(executed)).max() <= 2.175 * STEP_S + 1e-9
    assert executed[-1] == pytest.approx(0.3, abs=1e-3)


def test_nobody_in_control_sends_nothing(cell):
    cell.source.publish(String(data="none"))
    cell.wait_state("idle")
    cell.command.clear()
    cell.drive(HOME, 0.2)
    assert len(cell.command) == 0


def test_ten_times_the_allowed_jump_on_the_first_command(cell):
    cell.source.publish(String(data="none"))
    cell.wait_state("idle")
    cell.command.clear()
    cell.source.publish(String(data="policy"))
    time.sleep(0.1)
    target = HOME.copy()
    target[0] += 1.0
    cell.beat()
    cell.send(target)
    reason = cell.wait_state("stopped")["reason"]
    assert "the first command jumps: element 0 is 1 from the present pose, at most 0.1 allowed" in reason
    assert np.abs(cell.executed() - HOME).max(initial=0.0) < 1e-9


def test_an_arm_that_does_not_follow_stops(cell):
    cell.follow = False
    target = HOME.copy()
    target[0] = 1.0
    cell.drive(target, 1.0)
    assert "the arm does not follow: element 0" in cell.wait_state("stopped")["reason"]


def test_commands_with_the_wrong_joints_stop(cell):
    cell.selected.publish(command_to_msg(now_ns(cell.graph.node), NAMES[:7], HOME[:7], source="policy"))
    assert "a command must hold 8 values" in cell.wait_state("stopped")["reason"]


def test_the_final_command_says_whose_it_was(cell):
    msg = cell.command.messages[-1]
    assert msg.header.frame_id == "policy"
    assert abs(to_ns(msg.header.stamp) - now_ns(cell.graph.node)) < 1e9
