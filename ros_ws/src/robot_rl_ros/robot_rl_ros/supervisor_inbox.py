"""What the supervisor hears: the newest command of each driver, the arm's state, and what the safety node says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from trajectory_msgs.msg import JointTrajectory

from robot_rl.deploy.takeover import Command, TakeoverInputs
from robot_rl.errors import SpecError
from robot_rl_ros.conversions import joint_state_to_arrays, msg_to_command
from robot_rl_ros.qos import COMMAND, JOINTS, LATCHED

_POLICY, _HUMAN, _EXECUTED = "policy/command", "teleop/command", "command"
_DRIVERS = {"policy": _POLICY, "human": _HUMAN}
_RECORDER_SILENT_S = 5.0  # it speaks once a second


class SupervisorInbox:
    """Subscribes, and gives what came as the takeover's inputs.

    Args:
        node: Owner.
        names: Arm joints, then `gripper` if there is one.
        needs_recorder: Whether every episode must be recorded.
    """

    def __init__(self, node: Node, names: Sequence[str], *, needs_recorder: bool = False) -> None:
        self._node, self._names, self._needs_recorder = node, tuple(names), needs_recorder
        self._lock = threading.Lock()
        self._commands: dict[str, Command] = {}
        self._joints: tuple[JointState, int] | None = None
        self._intervening: tuple[bool, int | None] = (False, None)
        self._safety_state: dict[str, Any] = {}
        self._recorder: tuple[dict[str, Any], int] | None = None
        self.safety = ""
        self.stopped = False
        for topic in (_POLICY, _HUMAN, _EXECUTED):
            node.create_subscription(JointTrajectory, topic, self._taker(topic), COMMAND)
        node.create_subscription(Bool, "teleop/intervening", self._on_intervening, COMMAND)
        node.create_subscription(JointState, "joint_states", self._on_joints, JOINTS)
        node.create_subscription(String, "safety/state", self._on_safety, LATCHED)
        if needs_recorder:
            node.create_subscription(String, "recorder/status", self._on_recorder, LATCHED)

    def inputs(self, *, forced: bool, policy_allowed: bool, blocked: str) -> TakeoverInputs:
        """Return what is known now."""
        with self._lock:
            commands, joints = dict(self._commands), self._joints
            intervening, intervening_ns = self._intervening
        return TakeoverInputs(
            policy=commands.get(_POLICY),
            human=commands.get(_HUMAN),
            executed=commands.get(_EXECUTED),
            measured=None if joints is None else self._measured(*joints),
            intervening=intervening,
            intervening_ns=intervening_ns,
            forced=forced,
            policy_allowed=policy_allowed,
            blocked=blocked,
        )

    def not_ready(self) -> str:
        """Return why no episode can start now, or an empty string.

        Whoever may drive must find the streams that the safety node demands of him: it would stop him at his first
        command, and stay stopped. Drivers are those whose command topic has a publisher.
        """
        if self.safety:
            return self.safety
        if not self._safety_state:
            return "nothing was heard of the safety node yet"
        there = [driver for driver, topic in _DRIVERS.items() if self._node.count_publishers(topic)]
        missing = self._safety_state.get("missing", {})
        if waits := sorted({stream for driver in there for stream in missing.get(driver, ())}):
            return f"the safety node waits for {waits}"
        return self._recorder_trouble() if self._needs_recorder else ""

    def _recorder_trouble(self) -> str:
        if self._recorder is None:
            return "nothing was heard of the recorder yet"
        status, heard_ns = self._recorder
        silent_s = (time.monotonic_ns() - heard_ns) / 1e9
        if silent_s > _RECORDER_SILENT_S:
            return f"the recorder has been silent for {silent_s:.1f} s"
        if status["state"] == "recording":
            return f"the recorder is still recording episode {status['id']}"
        return f"the recorder cannot record: {status['waits_for']}" if status.get("waits_for") else ""

    @property
    def executed_ns(self) -> int | None:
        """When the newest executed command was received (monotonic), if one was since it was forgotten."""
        with self._lock:
            executed = self._commands.get(_EXECUTED)
        return None if executed is None else executed.received_ns

    def forget_executed(self) -> None:
        """Forget what was executed: the arm was moved by other means since."""
        with self._lock:
            self._commands.pop(_EXECUTED, None)

    def _taker(self, topic: str) -> Callable[[JointTrajectory], None]:
        def take(msg: JointTrajectory) -> None:
            received_ns = time.monotonic_ns()
            try:
                stamp_ns, value = msg_to_command(msg, self._names)
            except SpecError as error:
                self._node.get_logger().error(f"`{topic}` ignored: {error}", throttle_duration_sec=1.0)
                return
            with self._lock:
                self._commands[topic] = Command(value, stamp_ns, received_ns)

        return take

    def _on_joints(self, msg: JointState) -> None:
        with self._lock:
            self._joints = (msg, time.monotonic_ns())  # converted once a tick: there are 500 a second

    def _on_intervening(self, msg: Bool) -> None:
        with self._lock:
            self._intervening = (msg.data, time.monotonic_ns())

    def _on_safety(self, msg: String) -> None:
        state = json.loads(msg.data)
        says = {"stopped": f"motion is stopped: {state.get('reason', '')}", "homing": "the arm goes home"}
        self.safety = says.get(state.get("state", ""), "")
        self.stopped = state.get("state") == "stopped"
        self._safety_state = state

    def _on_recorder(self, msg: String) -> None:
        self._recorder = (json.loads(msg.data), time.monotonic_ns())

    def _measured(self, msg: JointState, received_ns: int) -> Command | None:
        try:
            stamp_ns, position, _ = joint_state_to_arrays(msg, self._names)
        except (SpecError, IndexError) as error:
            self._node.get_logger().error(f"`joint_states` ignored: {error}", throttle_duration_sec=1.0)
            return None
        return Command(position, stamp_ns, received_ns)
