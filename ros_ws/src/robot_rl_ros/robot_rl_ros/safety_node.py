"""The only publisher of `command`: selected commands pass `SafetyGuard` on a thread with absolute deadlines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from robot_rl.deploy.guard import SafetyGuard, Verdict
from robot_rl.deploy.ticker import Ticker
from robot_rl.errors import SpecError
from robot_rl_ros.conversions import command_to_msg, joint_state_to_arrays, msg_to_command
from robot_rl_ros.diagnostics import ERROR, OK, WARN, Diagnostics, Health
from robot_rl_ros.params import declare
from robot_rl_ros.qos import COMMAND, JOINTS, LATCHED, SENSOR
from robot_rl_ros.runner import run
from robot_rl_ros.safety_params import declare_safety
from robot_rl_ros.stamps import now_ns, to_ns


class SafetyNode(Node):
    """Limits, watchdogs, latched e-stop, homing; refuses to start without every limit."""

    def __init__(self) -> None:
        super().__init__("safety")
        rate_hz = declare(self, "rate_hz", 100.0, "control rate [Hz]", low=1.0, high=1000.0)
        settings = declare_safety(self, rate_hz)
        self._names, self._send = settings.names, settings.output
        self._guard = SafetyGuard(settings.filter, settings.guard)
        self._verdict = Verdict(None, "idle")
        self._before: np.ndarray | None = None
        self._limited_ticks = 0
        self._command = self.create_publisher(JointTrajectory, "command", COMMAND)
        self._msg = command_to_msg(0, self._names, np.zeros(len(self._names)))
        self._state = self.create_publisher(String, "safety/state", LATCHED)
        self._diagnostics = Diagnostics(self, self._health)
        self._subscribe(settings.guard.cameras)
        self._create_services()
        self._missing = self._guard.missing(time.monotonic_ns())
        self._publish_state(self._verdict)
        self._ticker = Ticker(self._tick, rate_hz=rate_hz, name="safety", realtime=True)
        self._ticker.start()
        self._check = self.create_timer(0.1, self._raise_failure)

    def close(self) -> None:
        """Stop the control thread; the arm holds on its command time-out."""
        self._ticker.close()

    def _subscribe(self, cameras: Iterable[str]) -> None:
        self.create_subscription(JointState, "joint_states", self._on_joints, JOINTS)
        self.create_subscription(JointTrajectory, "selected/command", self._on_command, COMMAND)
        self.create_subscription(String, "control_source", lambda msg: self._guard.on_source(msg.data), LATCHED)
        self.create_subscription(Bool, "e_stop", lambda msg: self._guard.on_e_stop(msg.data), LATCHED)
        for topic in cameras:
            self.create_subscription(CameraInfo, topic, self._camera_callback(topic), SENSOR)

    def _create_services(self) -> None:
        self.create_service(Trigger, "~/e_stop", self._serve(self._e_stop))
        self.create_service(Trigger, "~/clear", self._serve(self._guard.clear))
        self.create_service(Trigger, "~/home", self._serve(self._guard.home))

    def _serve(self, act: Callable[[], str]) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
        """Return a service callback; `act` returns an empty string or why it was refused."""

        def serve(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            response.message = act()
            response.success = not response.message
            return response

        return serve

    def _e_stop(self) -> str:
        self._guard.stop("e-stop called")
        return ""

    def _on_joints(self, msg: JointState) -> None:
        received = time.monotonic_ns()
        try:
            stamp_ns, position, _ = joint_state_to_arrays(msg, self._names)
        except (SpecError, IndexError) as error:
            self._guard.stop(f"`joint_states`: {error}")
            return
        self._guard.on_joints(position, now_ns=received, age_ns=now_ns(self) - stamp_ns)

    def _on_command(self, msg: JointTrajectory) -> None:
        received = time.monotonic_ns()
        try:
            stamp_ns, values = msg_to_command(msg, self._names)
        except SpecError as error:
            self._guard.stop(f"`selected/command`: {error}")
            return
        source = msg.header.frame_id
        self._guard.on_command(values, source=source, now_ns=received, age_ns=now_ns(self) - stamp_ns)

    def _camera_callback(self, topic: str) -> Callable[[CameraInfo], None]:
        def saw(msg: CameraInfo) -> None:
            age_ns = now_ns(self) - to_ns(msg.header.stamp)
            self._guard.on_stream(topic, now_ns=time.monotonic_ns(), age_ns=age_ns)

        return saw

    def _tick(self) -> None:
        monotonic_ns = time.monotonic_ns()
        verdict, missing = self._guard.tick(monotonic_ns), self._guard.missing(monotonic_ns)
        if verdict.action is not None:
            stamp = now_ns(self)
            command_to_msg(stamp, self._names, verdict.action, self._msg, source=self._guard.source)
            self._command.publish(self._msg)
            self._send(stamp, verdict.action, self._before)
        self._before = verdict.action
        self._limited_ticks += bool(verdict.limited)
        changed = (verdict.state, verdict.reason) != (self._verdict.state, self._verdict.reason)
        streams_changed, self._missing = missing != self._missing, missing
        self._verdict = verdict
        if changed or streams_changed:
            self._publish_state(verdict)
        if changed:
            self._diagnostics.publish()

    def _publish_state(self, verdict: Verdict) -> None:
        state = {
            "ok": verdict.state != "stopped",
            "state": verdict.state,
            "reason": verdict.reason,
            "source": self._guard.source,
            "missing": self._missing,
            "stamp_ns": now_ns(self),
        }
        self._state.publish(String(data=json.dumps(state)))

    def _health(self) -> Health:
        verdict, ticker = self._verdict, self._ticker
        lateness = ticker.lateness.to_dict()
        values = {
            "state": verdict.state,
            "source": self._guard.source,
            "limited ticks": self._limited_ticks,
            "limited by": ", ".join(verdict.limited),
            "refused commands": self._guard.refused,
            "lateness p99 [ms]": lateness["p99_ms"],
            "skipped ticks": ticker.skipped,
            "priority": ticker.ordinary_because or "SCHED_FIFO",
        }
        if verdict.state == "stopped":
            return Health(ERROR, verdict.reason, values)
        return Health(WARN if verdict.limited else OK, verdict.state, values)

    def _raise_failure(self) -> None:
        if self._ticker.error is not None:
            raise self._ticker.error


def main(args: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(SafetyNode, args)


if __name__ == "__main__":
    sys.exit(main())
