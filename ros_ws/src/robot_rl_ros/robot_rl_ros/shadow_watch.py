"""Shadow mode of the policy node: its actions are compared with `selected/command` and never commanded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from robot_rl.deploy.shadow import ShadowComparison
from robot_rl.errors import SpecError
from robot_rl_ros.conversions import command_to_msg, msg_to_command
from robot_rl_ros.qos import COMMAND, LATCHED

MAX_AGE_S = 0.2
"""Oldest command that counts as in force."""


class ShadowWatch:
    """Publishes the difference of each tick on `~/difference` and their summary on `~/shadow`; writes each episode's.

    Args:
        node: The policy node.
        names: Joints in the order of an action.
        log: JSONL file for one summary an episode; empty for none.
    """

    def __init__(self, node: LifecycleNode, names: list[str], log: str) -> None:
        self._node, self._names, self._log = node, names, Path(log) if log else None
        self._differences = node.create_publisher(JointTrajectory, "~/difference", COMMAND)
        self._summary = node.create_publisher(String, "~/shadow", LATCHED)
        self._subscription = node.create_subscription(JointTrajectory, "selected/command", self._take, COMMAND)
        self._new()

    def _new(self) -> None:
        self._comparison = ShadowComparison(len(self._names), max_age_ns=round(MAX_AGE_S * 1e9))

    def _take(self, msg: JointTrajectory) -> None:
        try:
            stamp_ns, value = msg_to_command(msg, self._names)
            self._comparison.commanded(value, stamp_ns)
        except SpecError as error:
            self._node.get_logger().error(f"`selected/command` ignored: {error}", throttle_duration_sec=1.0)

    def tick(self, action: np.ndarray | None, stamp_ns: int) -> None:
        """Compare the action of a tick with what is commanded."""
        difference = self._comparison.tick(action, stamp_ns)
        if difference is not None:
            self._differences.publish(command_to_msg(stamp_ns, self._names, difference, source="shadow"))

    def end(self, bundle_id: str, latency: dict[str, Any]) -> None:
        """Publish and write what an episode showed, and begin anew."""
        found = {"bundle": bundle_id, **self._comparison.to_dict()}
        found |= {f"inference_{key}": latency[key] for key in ("p50_ms", "p99_ms", "max_ms")}
        self._summary.publish(String(data=json.dumps(found)))
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(json.dumps(found) + "\n")
        self._new()

    def close(self) -> None:
        """Give topics back."""
        self._node.destroy_subscription(self._subscription)
        for publisher in (self._differences, self._summary):
            self._node.destroy_publisher(publisher)
