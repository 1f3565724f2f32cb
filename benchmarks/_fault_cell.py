"""A deployed graph that moves one joint steadily, is disturbed once, and is watched: when commands and arm stopped."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from robot_rl_ros.arm_graphs import GRAPHS
from robot_rl_ros.conversions import joint_state_to_arrays, msg_to_command
from robot_rl_ros.environment import environment
from robot_rl_ros.graphs import Process
from robot_rl_ros.qos import COMMAND, JOINTS, LATCHED
from robot_rl_ros.runner import spin_in_thread
from robot_rl_ros.stamps import to_msg
from robot_rl_ros.up import Running
from rosgraph_msgs.msg import Clock  # type: ignore[import-untyped]
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from robot_rl.data.store import EpisodeStore
from tests.ros.formula_bundle import JOINTS as NAMES
from tests.ros.formula_bundle import formula_bundle

DOMAIN = 101  # the tests take theirs from 20 to 99
TRIES = 3
STEP_RAD = 0.02  # of the policy, 20 times a second
STANDS_RAD_S = 0.02
MOVING_RAD_S = 0.1
PAUSE_S = 0.2
MOVED_RAD = 1e-3
Parameters = Mapping[str, Mapping[str, Any]]


@dataclass
class Log:
    """What was seen, in monotonic seconds: joint speeds, commanded first joint, and the newest latched texts."""

    speed: list[tuple[float, float]] = field(default_factory=list)
    command: list[tuple[float, float]] = field(default_factory=list)
    texts: dict[str, Any] = field(default_factory=dict)

    def state(self, topic: str) -> str:
        """Return the `state` of a latched JSON topic, empty while nothing came."""
        return str(self.texts.get(topic, {}).get("state", ""))


class FaultCell:
    """The graph `deploy` with a policy that turns the first joint.

    Args:
        node: Listens.
        running: The processes.
        log: Filled by the node's callbacks.
    """

    def __init__(self, node: Node, running: Running, log: Log) -> None:
        self.node, self.running, self.log = node, running, log
        self._clock_ahead_ns = 0
        self._clock = node.create_publisher(Clock, "/clock", 10)
        self._timer = node.create_timer(0.004, self._publish_clock)  # heard by nodes with use_sim_time alone

    def jump_clock(self, seconds: float) -> float:
        """Let /clock, which runs with the machine's until then, jump; return when."""
        self._clock_ahead_ns += round(seconds * 1e9)
        return time.monotonic()

    def _publish_clock(self) -> None:
        now = self.node.get_clock().now().nanoseconds + self._clock_ahead_ns
        self._clock.publish(Clock(clock=to_msg(now)))

    def start(self) -> bool:
        """Start an episode once everything is there; return whether it is recorded and the arm moves.

        The supervisor refuses while a node is not ready. On a busy machine one may fall behind just after that, and the
        safety node stops; then it is tried again.
        """
        for _ in range(TRIES):
            wait(self._ready, "a ready graph")
            wait(lambda: self.ask("supervisor/start").success, "a granted start", poll_s=0.2)
            wait(lambda: self._recording() or self.log.texts["recorder/status"]["refused"], "the recorder's answer")
            if self._recording() and self._moves():
                return True
            if self.log.state("safety/state") == "stopped":
                self.call("safety/clear")
            if self.log.state("episode/status") == "running":
                self.call("supervisor/discard")
        return False

    def _ready(self) -> bool:
        names = ("episode/status", "safety/state", "recorder/status")
        return all(self.log.state(name) == "idle" for name in names) and self._streams_flow()

    def _moves(self) -> bool:
        """Wait for motion, let it become steady, and return whether it did."""
        begun = time.monotonic()
        while self.log.speed[-1][1] < MOVING_RAD_S:
            if self.log.state("safety/state") == "stopped" or time.monotonic() - begun > 10.0:
                return False
            time.sleep(0.005)
        time.sleep(0.8)
        return self.log.state("safety/state") == "running" and self.speed() > MOVING_RAD_S

    def _recording(self) -> bool:
        return self.log.state("recorder/status") == "recording"

    def call(self, service: str) -> str:
        """Call a Trigger service and return its message."""
        return str(self.ask(service).message)

    def ask(self, service: str) -> Trigger.Response:
        """Call a Trigger service and return its answer."""
        client: Any = self.node.create_client(Trigger, service)
        try:
            wait(client.service_is_ready, service)
            future = client.call_async(Trigger.Request())
            wait(future.done, f"answer of {service}")
            return future.result()
        finally:
            self.node.destroy_client(client)

    def kill(self, name: str) -> float:
        """Kill -9 a node and return when."""
        return self.signal(name, signal.SIGKILL)

    def signal(self, name: str, number: signal.Signals) -> float:
        """Signal a node and return when."""
        os.kill(self.running.pid(name), number)
        return time.monotonic()

    def stopped_after_s(self, since_s: float) -> tuple[float, float]:
        """Return after how many seconds the command froze, and after how many the arm stood still.

        Frozen and still mean for `PAUSE_S` at least: what happens once a stalled node is back is another matter.
        """
        changes = [
            now for (_, before), (now, value) in zip(self.log.command[:-1], self.log.command[1:], strict=True)
            if abs(value - before) > 1e-6
        ]  # fmt: skip
        moving = [now for now, speed in self.log.speed if speed > STANDS_RAD_S]
        return _until_pause(changes, since_s), _until_pause(moving, since_s)

    def moved_again(self, since_s: float) -> bool:
        """Return whether the command changed at all after it had frozen."""
        frozen_s, _ = self.stopped_after_s(since_s)
        begun = [value for now, value in self.log.command if now >= since_s + frozen_s]
        return bool(begun) and max(abs(value - begun[0]) for value in begun) > MOVED_RAD

    def speed(self) -> float:
        """Return the first joint's speed over the last samples [rad/s]."""
        return float(np.mean([speed for _, speed in self.log.speed[-20:]]))

    def _streams_flow(self) -> bool:
        streams = self.log.texts["recorder/status"]["streams"]
        return all(streams[name]["hz"] for name in ("joint_position", "cube_pose", "front", "wrist"))


def processes(folder: Path, changes: Parameters) -> tuple[Process, ...]:
    """Return the graph's processes: nothing comes back by itself, so that what is seen is the fault alone."""
    bundle = formula_bundle(folder / "bundle", per_step=STEP_RAD)
    arguments = {"bundle": str(bundle.path), "store": str(folder / "store"), "policy_seed": "0"}
    made = []
    for process in GRAPHS["deploy"].processes(arguments):
        more = dict(changes.get(process.name, {}))
        module = str(more.pop("__module__", process.module))
        config = str(more.pop("__config__", process.config))
        parameters = {**process.parameters, **more}
        made.append(
            replace(process, parameters=parameters, module=module, config=config, respawn=False, required=False)
        )
    return tuple(made)


@contextmanager
def fault_cell(folder: Path, changes: Parameters | None = None, *, domain: int = DOMAIN) -> Iterator[FaultCell]:
    """Start the graph in a ROS domain of its own.

    Args:
        folder: Where bundle and store go.
        changes: Parameters by node; `__module__` and `__config__` replace the node itself.
        domain: The ROS domain.
    """
    os.environ.update({**environment(), "ROS_DOMAIN_ID": str(domain)})
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node, log = rclpy.create_node("watch", namespace="/arm"), Log()
    _listen(node, log)
    try:
        with (
            Running(processes(folder, {} if changes is None else changes)) as running,
            spin_in_thread(node),
        ):
            yield FaultCell(node, running, log)
    finally:
        node.destroy_node()
        rclpy.shutdown()


def _listen(node: Node, log: Log) -> None:
    def on_joints(msg: JointState) -> None:
        _, _, velocity = joint_state_to_arrays(msg, NAMES)
        log.speed.append((time.monotonic(), float(np.abs(velocity[:7]).max())))

    def on_command(msg: JointTrajectory) -> None:
        log.command.append((time.monotonic(), float(msg_to_command(msg, NAMES)[1][0])))

    node.create_subscription(JointState, "joint_states", on_joints, JOINTS)
    node.create_subscription(JointTrajectory, "command", on_command, COMMAND)
    for topic in ("episode/status", "safety/state", "recorder/status"):

        def on_text(msg: String, topic: str = topic) -> None:
            log.texts[topic] = json.loads(msg.data)

        node.create_subscription(String, topic, on_text, LATCHED)


def _until_pause(stamps_s: list[float], since_s: float) -> float:
    """Return for how long after `since_s` the stamps go on without a pause of `PAUSE_S`."""
    last = since_s
    for stamp in stamps_s:
        if stamp - last > PAUSE_S:
            break
        last = max(last, stamp)
    return last - since_s


def wait(condition: Callable[[], Any], what: str, *, timeout_s: float = 60.0, poll_s: float = 0.005) -> None:
    """Return once the condition, looked at every `poll_s`, is true.

    Raises:
        TimeoutError: It did not become true.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: waited {timeout_s} s")
        time.sleep(poll_s)


def faulty_streams(store: EpisodeStore) -> dict[str, str]:
    """Return the streams that the newest episode's verdict calls an error or silent, with the first reason."""
    quality = store.read(store.ids()[-1]).meta.extra.get("quality")
    if quality is None:  # the recorder was killed, and the episode salvaged without its verdict
        return {}
    reasons = {name: (v["level"], v["reasons"][0]) for name, v in quality["streams"].items() if v["reasons"]}
    return {name: why for name, (level, why) in reasons.items() if level == "error" or why.startswith("silent")}
