"""The supervisor as a process: arm, policy, operator and safety node are played by the test."""

import itertools
import json
import time

import numpy as np
import pytest
from robot_rl_ros.conversions import command_to_msg
from robot_rl_ros.qos import COMMAND, LATCHED
from robot_rl_ros.stamps import now_ns
from std_msgs.msg import String
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from tests.ros.supervisor_cell import HUMAN, NAMES, POLICY, POSE, SAFE, SETTINGS, Cell


@pytest.fixture
def cell(ros_graph):
    cells = []

    def make(**params) -> Cell:
        cells.append(Cell(ros_graph, **params))
        return cells[-1]

    yield make
    for each in cells:
        each.close()


def test_an_episode_of_the_policy_from_start_to_idle(cell):
    c = cell(task="lift the cube")
    assert c.source.wait().data == "none"
    c.policy_on = True
    assert c.call("start").message == "episode 0: running"
    running = c.wait_state("running")
    assert {**running, "started_ns": 0} == {
        "state": "running", "index": 0, "task": "lift the cube", "outcome": None, "started_ns": 0, "seed": None,
        "intervene": False,
    }  # fmt: skip
    assert abs(running["started_ns"] - now_ns(c.graph.node)) < 10**10
    c.wait_at(POLICY)
    sent, senders = c.sent(), c.senders()
    np.testing.assert_array_equal(sent[0], POSE)  # starts where the arm is
    assert set(senders) == {"policy"}
    assert c.policy_resets == 1
    refused = c.call("start")
    assert (refused.success, refused.message) == (False, "`start` is possible only while idle, the episode is running")
    assert c.call("success").success
    assert c.wait_state("resetting")["outcome"] == "success"
    c.wait_source("none")
    c.reward.wait(2)
    assert [msg.data for msg in c.reward.messages] == [0.0, 1.0]
    n = len(c.selected)
    assert not c.call("failure").success
    c.status.clear()
    assert c.call("reset_done").success
    assert c.wait_state("idle")["outcome"] == "success"
    assert len(c.selected) == n  # nobody was driven after the end
    assert c.process.interrupt() == 0


def test_a_human_takes_over_and_gives_back_without_a_jump(cell):
    c = cell()
    c.policy_on = c.device_on = True
    c.call("start")
    c.wait_at(POLICY)
    c.selected.clear()
    c.engaged = c.human_on = True
    c.wait_at(HUMAN)
    c.engaged = c.human_on = False
    c.wait_source("policy")
    c.wait_at(POLICY)
    assert c.policy_resets == 2
    senders = c.senders()
    switches = [(a, b) for a, b in itertools.pairwise(senders) if a != b]
    assert [s for s in switches if s != ("policy", "human")] == [("human", "policy")]
    # Smoothstep over 0.2 s: at most 1.5 / 0.2 of the distance a second. A late tick makes a longer step.
    stamps = np.array(c.selected.received_ns) / 1e9
    assert np.abs(np.diff(c.sent(), axis=0)).max() <= 1.5 / 0.2 * 0.8 * max(np.diff(stamps).max(), 0.02)


def test_an_operator_whose_device_dies_leaves_the_arm_to_nobody_until_somebody_says_so(cell):
    c = cell()
    c.policy_on = c.device_on = c.engaged = c.human_on = True
    c.call("start")
    c.wait_at(HUMAN)
    c.device_on = c.human_on = False
    c.wait_source("none")
    time.sleep(0.5)
    c.wait_source("none")  # not only between the stale command and the lost device
    c.selected.clear()
    time.sleep(0.3)
    assert len(c.selected) == 0
    c.graph.call(SetBool, "supervisor/intervene", SetBool.Request(data=False))
    c.wait_source("policy")


def test_intervene_keeps_the_policy_away(cell):
    c = cell()
    c.policy_on = True
    c.call("start")
    c.wait_at(POLICY)
    assert c.graph.call(SetBool, "supervisor/intervene", SetBool.Request(data=True)).success
    c.status.wait(match=lambda msg: json.loads(msg.data)["intervene"])
    c.wait_source("none")  # nobody sends for the human
    assert c.senders()[-1] == "human"  # the arm was held for wait_s
    c.graph.call(SetBool, "supervisor/intervene", SetBool.Request(data=False))
    c.wait_at(POLICY)


def test_a_silent_policy_and_a_safety_stop_take_the_arm_away(cell):
    c = cell()
    c.policy_on = True
    c.call("start")
    c.wait_at(POLICY)
    c.policy_on = False
    c.wait_source("none")
    c.policy_on = True
    c.wait_source("policy")
    c.say_safety(state="stopped", reason="e-stop pressed")
    c.wait_source("none")
    assert c.wait_state("resetting")["outcome"] == "failure"
    c.call("reset_done")
    refused = c.call("start")
    assert (refused.success, refused.message) == (False, "no episode can start: motion is stopped: e-stop pressed")
    c.say_safety(**SAFE)
    assert c.call("start").success


def test_no_episode_starts_before_the_safety_node_has_what_the_drivers_need(cell):
    c = cell(safety=None)

    def refusal() -> str:
        answer = c.call("start")
        assert not answer.success
        return answer.message.removeprefix("no episode can start: ")

    assert refusal() == "nothing was heard of the safety node yet"
    c.say_safety(state="idle", missing={"policy": ["front/color/camera_info"], "human": ["joint_states"]})
    assert refusal() == "the safety node waits for ['front/color/camera_info', 'joint_states']"
    assert json.loads(c.status.messages[-1].data)["state"] == "idle"
    c.say_safety(**SAFE)
    assert c.call("start").success


def test_what_only_an_absent_driver_needs_does_not_matter(cell):
    c = cell(safety={"state": "idle", "missing": {"policy": [], "human": ["wrist/color/camera_info"]}})
    assert "waits for ['wrist/color/camera_info']" in c.call("start").message
    c.graph.node.destroy_publisher(c._human)
    c._wait(lambda: c.call("start").success, "start without the operator")


def test_no_episode_starts_that_the_recorder_would_not_take(cell):
    c = cell(needs_recorder=True)
    recorder = c.graph.publisher(String, "recorder/status", LATCHED)

    def says(**status) -> str:
        recorder.publish(String(data=json.dumps({"id": "e7", "state": "idle", **status})))
        time.sleep(0.1)
        return c.call("start").message.removeprefix("no episode can start: ")

    c.graph.wait_matched(recorder)
    assert c.call("start").message == "no episode can start: nothing was heard of the recorder yet"
    assert says(waits_for="nothing was received") == "the recorder cannot record: nothing was received"
    assert says(state="recording", waits_for="") == "the recorder is still recording episode e7"
    assert says(state="saving", waits_for="") == "episode 0: running"


def test_a_reset_can_be_asked_for_while_no_episode_runs(cell):
    c = cell(auto_reset=True, reset_service="robot/reset", reset_delay_s=0.1)
    assert c.call("reset").message == "episode -1: resetting"
    c._wait(lambda: c.robot_resets == 1 and json.loads(c.status.messages[-1].data)["state"] == "idle", "idle again")
    c.call("start")
    assert c.wait_state("running")["seed"] == 5
    assert c.call("reset").message == "`reset` is possible only while idle, the episode is running"


def test_the_robot_is_reset_only_once_commands_have_stopped(cell):
    c = cell(auto_reset=True, reset_service="robot/reset", reset_delay_s=0.3)
    executed = c.graph.publisher(JointTrajectory, "command", COMMAND)
    c.graph.wait_matched(executed)
    c.policy_on = True
    c.call("start")
    c.wait_at(POLICY)
    c.call("failure")
    for _ in range(40):  # the safety node goes on for a while
        executed.publish(command_to_msg(now_ns(c.graph.node), NAMES, POLICY, source="policy"))
        time.sleep(0.02)
    last = time.monotonic()
    assert c.robot_resets == 0
    c._wait(lambda: c.robot_resets == 1, "reset")
    assert time.monotonic() - last > 0.2
    c._wait(lambda: json.loads(c.status.messages[-1].data)["state"] == "idle", "idle")


def test_episodes_time_out_and_the_robot_resets_itself(cell):
    c = cell(
        max_episode_s=0.3, auto_reset=True, reset_first=True, reset_service="robot/reset", reset_delay_s=0.1,
        reset_retry_s=0.1,
    )  # fmt: skip
    c.robot_answers = [(True, "seed 5"), (False, "commands still arrive"), (True, "seed 6")]
    c.wait_state("idle")
    c._wait(lambda: json.loads(c.status.messages[-1].data)["state"] == "idle" and c.robot_resets == 1, "first reset")
    c.policy_on = True
    c.call("start")
    assert c.wait_state("running")["seed"] == 5
    assert c.status.wait(match=lambda msg: json.loads(msg.data)["outcome"] == "timeout")
    c._wait(lambda: c.robot_resets == 3, "second try of the reset")
    c._wait(lambda: json.loads(c.status.messages[-1].data)["state"] == "idle", "idle")
    c.call("start")
    c._wait(lambda: json.loads(c.status.messages[-1].data)["seed"] == 6, "seed 6")
    assert json.loads(c.status.messages[-1].data)["index"] == 1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"joint_names": ["gripper", "joint1"]}, "`joint_names` must be different names with `gripper` last"),
        ({"max_episode_s": 0.0}, "`max_episode_s`"),
        ({"handover_s": -1.0}, "`handover_s`"),
    ],
)
def test_wrong_parameters_are_refused(ros_graph, params, message):
    process = ros_graph.start("supervisor_node", params={**SETTINGS, **params})
    assert process.wait() == 2
    assert message in process.log
