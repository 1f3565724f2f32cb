"""A person's device, or a script in his place: `teleop/command`, `teleop/intervening`, and his word on the episode."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from robot_rl.deploy.ticker import Ticker
from robot_rl.errors import SpecError
from robot_rl.teleop.scripted import ScriptedSource
from robot_rl.teleop.source import Event
from robot_rl_ros.conversions import command_to_msg, joint_state_to_arrays, msg_to_command
from robot_rl_ros.diagnostics import OK, WARN, Diagnostics, Health
from robot_rl_ros.params import declare
from robot_rl_ros.qos import COMMAND, JOINTS, LATCHED
from robot_rl_ros.runner import run
from robot_rl_ros.stamps import now_ns, to_ns
from robot_rl_ros.teleop_devices import SOURCES, make_mapper, make_source
from robot_rl_ros.teleop_script import Script

_SERVICES = {
    Event.START: "start",
    Event.SUCCESS: "success",
    Event.FAILURE: "failure",
    Event.DISCARD: "discard",
    Event.RESET: "reset_done",
}


class TeleopNode(Node):
    """Polls one device on a thread with absolute deadlines and turns what it says into joint targets."""

    def __init__(self) -> None:
        super().__init__("teleop")
        kind = declare(self, "source", "keyboard", "the device", choices=SOURCES)
        rate_hz = declare(
            self, "rate_hz", 50.0, "rate of teleop/command and teleop/intervening [Hz]", low=10.0, high=500.0
        )
        self._names = declare(self, "joint_names", list[str], "arm joints base to tool, then `gripper` if there is one")
        supervisor = declare(self, "supervisor", "supervisor", "node whose services take the operator's events")
        timeout = declare(self, "joints_timeout_s", 0.1, "longest age of joint_states [s]", low=0.01, high=1.0)
        self._timeout_ns = round(timeout * 1e9)
        self._source = make_source(self, kind, len(self._names) - int("gripper" in self._names))
        self._step = make_mapper(self, self._source, self._names)
        self._script = Script(self, self._source, self._names) if isinstance(self._source, ScriptedSource) else None
        self._lock = threading.Lock()
        self._measured: tuple[np.ndarray, int] | None = None
        self._gripper: float | None = None  # the last commanded opening: measured, a held thing would be let go
        self._enabled, self._engaged, self._intervene = True, False, False
        self._event_clients: dict[Event, Any] = {
            event: self.create_client(Trigger, f"{supervisor}/{name}") for event, name in _SERVICES.items()
        }
        self._event_clients[Event.TOGGLE] = self.create_client(SetBool, f"{supervisor}/intervene")
        self._command = self.create_publisher(JointTrajectory, "teleop/command", COMMAND)
        self._intervening = self.create_publisher(Bool, "teleop/intervening", COMMAND)
        self._msg = command_to_msg(0, self._names, np.zeros(len(self._names)))
        self.create_subscription(JointState, "joint_states", self._on_joints, JOINTS)
        self.create_subscription(JointTrajectory, "command", self._on_executed, COMMAND)
        self.create_subscription(String, "episode/status", self._on_status, LATCHED)
        self.create_service(SetBool, "~/enable", self._enable)
        self._diagnostics = Diagnostics(self, self._health)
        self._source.open()
        self._ticker = Ticker(self._tick, rate_hz=rate_hz, name="teleop")
        self._ticker.start()
        self._check = self.create_timer(0.1, self._raise_failure)

    def close(self) -> None:
        """Stop, say that the operator has let go, and give the device back."""
        self._ticker.close()
        self._intervening.publish(Bool(data=False))
        self._source.close()

    def _on_joints(self, msg: JointState) -> None:
        received, age = time.monotonic_ns(), now_ns(self) - to_ns(msg.header.stamp)
        try:
            _, position, _ = joint_state_to_arrays(msg, self._names)
            if self._script is not None:
                self._script.on_joints(msg)
        except (SpecError, IndexError) as error:
            self.get_logger().error(f"`joint_states` ignored: {error}", throttle_duration_sec=1.0)
            return
        with self._lock:
            self._measured = (position, received) if abs(age) <= self._timeout_ns else None

    def _on_executed(self, msg: JointTrajectory) -> None:
        try:
            _, value = msg_to_command(msg, self._names)
        except SpecError as error:
            self.get_logger().error(f"`command` ignored: {error}", throttle_duration_sec=1.0)
            return
        with self._lock:
            self._gripper = float(value[-1])

    def _on_status(self, msg: String) -> None:
        status = json.loads(msg.data)
        with self._lock:
            self._intervene = bool(status.get("intervene", False))
            if status["state"] == "resetting":
                self._gripper = None  # the reset may move it without a command
        if self._script is not None:
            self._script.on_status(status["state"], int(status["index"]))

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = bool(request.data)
        response.success, response.message = True, "enabled" if request.data else "disabled: the device is ignored"
        return response

    def _tick(self) -> None:
        """Poll the device. What it must not say ends this thread and the node: silence is what stops the arm."""
        now = time.monotonic_ns()
        state = self._source.poll(now)
        start = self._start(now)
        command = self._step(state, start, now) if start is not None and self._enabled else None
        self._engaged = state.engaged and self._enabled
        if command is not None:
            self._command.publish(command_to_msg(now_ns(self), self._names, command, self._msg, source="human"))
        self._intervening.publish(Bool(data=self._engaged))
        for event in state.events:
            self._say(event)
        if self._script is not None:
            self._script.start_when_idle(self._say)

    def _start(self, now: int) -> np.ndarray | None:
        """Return the measured pose, with the commanded width of the gripper; `None` while it is stale."""
        with self._lock:
            measured, gripper = self._measured, self._gripper
        if measured is None or now - measured[1] > self._timeout_ns:
            return None
        pose = measured[0].copy()
        if self._names[-1] == "gripper" and gripper is not None and np.isfinite(gripper):
            pose[-1] = gripper
        return pose

    def _say(self, event: Event) -> None:
        client = self._event_clients[event]
        if not client.service_is_ready():
            self.get_logger().warning(f"nobody takes `{event.value}`: {client.srv_name} is not there")
            return
        request = SetBool.Request(data=not self._intervene) if event is Event.TOGGLE else Trigger.Request()
        client.call_async(request).add_done_callback(lambda done: self._heard(event, done))

    def _heard(self, event: Event, future: Future) -> None:
        response = future.result()
        if response is None:
            return
        if response.success:
            self.get_logger().info(f"{event.value}: {response.message}")
            if event is Event.START and self._script is not None:
                self._script.started()
        else:
            self.get_logger().warning(f"{event.value} was refused: {response.message}")

    def _health(self) -> Health:
        values = {
            "engaged": self._engaged,
            "lateness p99 [ms]": self._ticker.lateness.to_dict()["p99_ms"],
            "skipped ticks": self._ticker.skipped,
        }
        if not self._enabled:
            return Health(WARN, "disabled", values)
        if self._start(time.monotonic_ns()) is None:
            return Health(WARN, "no fresh joint_states: nothing can be commanded", values)
        return Health(OK, "driving" if self._engaged else "ready", values)

    def _raise_failure(self) -> None:
        if self._ticker.error is not None:
            raise self._ticker.error


def main(args: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(TeleopNode, args)


if __name__ == "__main__":
    sys.exit(main())
