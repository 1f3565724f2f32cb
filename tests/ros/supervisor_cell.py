"""The supervisor's world, played by the test: arm, policy, operator and safety node."""

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
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

NAMES = ["joint1", "joint2", "gripper"]
POSE = np.array([0.1, 0.2, 0.08])
POLICY, HUMAN = np.array([0.5, -0.2, 0.0]), np.array([-0.3, 0.4, 0.04])
# Time-outs are longer than on a robot, so that a busy machine does not take a source for silent.
SETTINGS = {
    "joint_names": NAMES, "handover_s": 0.2, "release_s": 0.2, "wait_s": 0.6, "command_timeout_s": 0.4,
    "intervening_timeout_s": 0.6,
}  # fmt: skip

SAFE = {"state": "idle", "reason": "", "missing": {"policy": [], "human": []}}


class Cell:
    """Sends what is switched on at 100 Hz, and keeps what the supervisor says."""

    def __init__(self, graph, *, safety: dict | None = SAFE, **params) -> None:
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
        if safety is not None:
            self.say_safety(**safety)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()  # the services go with the node: destroying one under a spinning executor is a race

    def call(self, name: str) -> Trigger.Response:
        return self.graph.call(Trigger, f"supervisor/{name}")

    def say_safety(self, **state) -> None:
        self.safety.publish(String(data=json.dumps(state)))
        time.sleep(0.1)

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
