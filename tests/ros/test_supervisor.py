"""The supervisor as a process: arm, policy, operator and safety node are played by the test."""

import itertools
import json
import threading
import time

import numpy as np
import pytest
from robot_rl_ros.conversions import command_to_msg, msg_to_command
from robot_rl_ros.qos import COMMAND, JOINTS, LATCHED
from robot_rl_ros.stamps import now_ns, to_msg
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float32, String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

NAMES = ["joint1", "joint2", "gripper"]
POSE = np.array([0.1, 0.2, 0.08])
POLICY, HUMAN = np.array([0.5, -0.2, 0.0]), np.array([-0.3, 0.4, 0.04])
# Time-outs are longer than on a robot, so that a busy machine does not take a source for silent.
SETTINGS = {
    "joint_names": NAMES, "handover_s": 0.2, "release_s": 0.2, "wait_s": 0.6, "command_timeout_s": 0.4,
    "intervening_timeout_s": 0.6,
}  # fmt: skip


class Cell:
    """Sends what is switched on at 100 Hz, and keeps what the supervisor says."""

    def __init__(self, graph, **params) -> None:
        self.graph = graph
        self.policy_on = self.human_on = self.device_on = self.engaged = False
        self.policy_resets, self.robot_resets, self.robot_answers = 0, 0, [(True, "seed 5")]
        self._policy = graph.publisher(JointTrajectory, "policy/command", COMMAND)
        self._human = graph.publisher(JointTrajectory, "teleop/command", COMMAND)
        self._intervening = graph.publisher(Bool, "teleop/intervening", COMMAND)
        self._joints = graph.publisher(JointState, "joint_states", JOINTS)
        self.safety = graph.publisher(String, "safety/state", LATCHED)
        self.selected = graph.collect(JointTrajectory, "selected/command", COMMAND)
        self.source = graph.collect(String, "control_source", LATCHED)
        self.status = graph.collect(String, "episode/status", LATCHED)
        self.reward = graph.collect(Float32, "episode/reward", COMMAND)
        graph.node.create_service(Trigger, "policy/reset", self._reset_policy)
        graph.node.create_service(Trigger, "robot/reset", self._reset_robot)
        self.process = graph.start("supervisor_node", params={**SETTINGS, **params})
        for publisher in (self._policy, self._human, self._intervening, self._joints, self.safety):
            graph.wait_matched(publisher)
        self.status.wait()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()  # the services go with the node: destroying one under a spinning executor is a race

    def call(self, name: str) -> Trigger.Response:
        return self.graph.call(Trigger, f"supervisor/{name}")

    def wait_source(self, name: str) -> None:
        self._wait(lambda: self.source.messages[-1].data == name, f"control source {name}")

    def wait_state(self, name: str) -> dict:
        return json.loads(self.status.wait(match=lambda msg: json.loads(msg.data)["state"] == name).data)

    def wait_at(self, target: np.ndarray) -> None:
        self._wait(lambda: len(self.selected) > 0 and np.array_equal(self.sent()[-1], target), f"command {target}")

    def sent(self) -> np.ndarray:
        return np.array([msg_to_command(msg, NAMES)[1] for msg in self.selected.messages])

    def senders(self) -> list[str]:
        return [msg.header.frame_id for msg in self.selected.messages]

    def _wait(self, condition, what: str) -> None:
        deadline = time.monotonic() + 5.0
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"no {what}; logs:\n{self.graph.logs()}")
            time.sleep(0.002)

    def _feed(self) -> None:
        while not self._stop.wait(0.01):
            stamp_ns = now_ns(self.graph.node)
            state = JointState(name=NAMES, position=POSE.tolist())
            state.header.stamp = to_msg(stamp_ns)
            self._joints.publish(state)
            if self.policy_on:
                self._policy.publish(command_to_msg(stamp_ns, NAMES, POLICY, source="policy"))
            if self.human_on:
                self._human.publish(command_to_msg(stamp_ns, NAMES, HUMAN, source="human"))
            if self.device_on:
                self._intervening.publish(Bool(data=self.engaged))

    def _reset_policy(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.policy_resets += 1
        response.success = True
        return response

    def _reset_robot(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self.robot_answers[min(self.robot_resets, len(self.robot_answers) - 1)]
        self.robot_resets += 1
        return response


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
    c.safety.publish(String(data=json.dumps({"state": "stopped", "reason": "e-stop pressed"})))
    c.wait_source("none")
    assert c.wait_state("resetting")["outcome"] == "failure"
    c.call("reset_done")
    refused = c.call("start")
    assert (refused.success, refused.message) == (False, "no episode can start: motion is stopped: e-stop pressed")
    c.safety.publish(String(data=json.dumps({"state": "idle", "reason": ""})))
    time.sleep(0.1)
    assert c.call("start").success


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
