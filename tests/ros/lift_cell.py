"""The graph of the simulated lift, slowed down so that two shared cores carry it, and what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from geometry_msgs.msg import PoseStamped
from robot_rl_ros.arm_graphs import GRAPHS
from robot_rl_ros.graphs import Process
from robot_rl_ros.qos import LATCHED, SENSOR
from std_msgs.msg import String
from std_srvs.srv import Trigger

from tests.ros.conftest import CONFIG
from tests.ros.graph_kit import wait_for

PATIENCE_S = 90.0
STREAMS = ("joint_position", "joint_velocity", "gripper_width", "tcp_pose", "cube_pose", "front", "wrist")
# A machine of one's own meets the graph's time-outs (benchmarks/node_faults.py measures them); one that shares two
# cores with other work may not. What is tested with these does not depend on them: rates are lower, time-outs longer.
CALM: dict[str, dict[str, Any]] = {
    "sim_robot": {"joint_states_hz": 100.0, "poses_hz": 50.0, "command_timeout_s": 1.0},
    "safety": {"rate_hz": 50.0, "command_timeout_s": 1.0, "joints_timeout_s": 1.0, "camera_timeout_s": 3.0},
    "supervisor": {
        "rate_hz": 50.0, "command_timeout_s": 1.0, "intervening_timeout_s": 2.0, "reset_delay_s": 1.2, "wait_s": 1.0,
    },
    "teleop": {"joints_timeout_s": 1.0},
    "policy": {"max_hold_s": 1.0},
    "camera_front": {"fps": 5.0},
    "camera_wrist": {"fps": 5.0},
    "recorder": {
        **{f"streams.{name}.stale_s": 3.0 for name in STREAMS},
        **{f"streams.{name}.rate_hz": 100.0 for name in STREAMS[:3]},
        **{f"streams.{name}.rate_hz": 50.0 for name in STREAMS[3:5]},
        **{f"streams.{name}.rate_hz": 5.0 for name in STREAMS[5:]},
    },
}  # fmt: skip


def calm_graph(name: str, **arguments: str) -> tuple[Process, ...]:
    """Return the processes of a graph, calmed."""
    given = GRAPHS[name].processes(arguments)
    return tuple(replace(p, parameters={**p.parameters, **CALM.get(p.name, {})}) for p in given)


def calm_observations(folder: Path) -> Path:
    """Write the graph's mapping of observations with longer time-outs, and return where."""
    sources = yaml.safe_load((CONFIG / "graph_observations.yaml").read_text())
    path = folder / "observations.yaml"
    path.write_text(yaml.safe_dump({name: {**source, "max_age_s": 1.0} for name, source in sources.items()}))
    return path


class Cell:
    """What a running graph says; a safety stop, which a stalled machine may cause, is cleared and counted."""

    def __init__(self, ros: Any) -> None:
        self.ros, self.stops = ros, []
        topics = ("episode/status", "safety/state", "recorder/status")
        self._latched = {topic: ros.collect(String, topic, LATCHED) for topic in topics}
        self._object = ros.collect(PoseStamped, "object_pose", SENSOR)

    def says(self, topic: str) -> dict[str, Any]:
        """Return what a latched topic said last."""
        messages = self._latched[topic].messages
        return dict(json.loads(messages[-1].data)) if messages else {"state": ""}

    def height_m(self) -> float:
        """Return how high the object is."""
        messages = self._object.messages
        return float(messages[-1].pose.position.z) if messages else 0.0

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Return the condition's value once it is true; meanwhile the safety node's stops are cleared."""

        def holds() -> Any:
            if self.says("safety/state")["state"] == "stopped":
                self.stops.append(self.says("safety/state")["reason"])
                self.ros.call(Trigger, "safety/clear")
                wait_for(lambda: self.says("safety/state")["state"] != "stopped", "the safety node to be clear")
            return condition()

        try:
            return wait_for(holds, what, timeout_s=PATIENCE_S)
        except AssertionError as error:
            states = {topic: self.says(topic) for topic in self._latched}
            raise AssertionError(f"{error}; stops: {self.stops}; said last: {json.dumps(states, indent=1)}") from error

    def running(self) -> bool:
        """Whether an episode is under way."""
        return self.says("episode/status")["state"] == "running"

    def start(self) -> None:
        """Start an episode as soon as the graph allows it."""
        before = self.says("episode/status").get("index", -1)
        self.wait(lambda: self.ros.call(Trigger, "supervisor/start").success, "a graph that is ready")
        self.wait(lambda: self.says("episode/status").get("index", -1) > before, "the episode")
