"""What other nodes say of an episode beyond its streams: which bundle drove, which trial, a safety stop, a takeover."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rclpy.node import Node
from std_msgs.msg import String

from robot_rl_ros.drivers import Drivers
from robot_rl_ros.qos import LATCHED


class EpisodeNotes:
    """Listens to `policy/driving`, `control_source` and `safety/state` for the recorder.

    Args:
        node: The recorder.
    """

    def __init__(self, node: Node) -> None:
        self._extra: dict[str, Any] = {}
        self._driving: dict[str, str] = {}
        self._stopped_now = self._stopped = False
        self._drivers = Drivers()
        node.create_subscription(String, "policy/driving", self._take_driving, LATCHED)
        node.create_subscription(String, "safety/state", self._take_safety, LATCHED)
        node.create_subscription(String, "control_source", lambda msg: self._drivers.take(msg.data), LATCHED)

    def begin(self, topics: Mapping[str, Any]) -> dict[str, Any]:
        """Begin an episode and return what is noted of it at once."""
        self._extra, self._stopped = {"topics": dict(topics)}, self._stopped_now
        self._drivers.begin()
        return dict(self._extra)

    def end(self) -> dict[str, Any]:
        """Return what is known at the end, as fields of its metadata."""
        extra = dict(self._extra)
        if self._stopped:
            extra["safety_stop"] = True
        if self._driving.get("bundle") and self._drivers.taken_over:
            extra["taken_over"] = True
        if trial := self._driving.get("trial", ""):
            extra["trial"] = trial
        return {"policy_version": self._driving.get("bundle", ""), "extra": extra}

    def _take_driving(self, msg: String) -> None:
        said = json.loads(msg.data)
        self._driving = {key: str(said.get(key, "")) for key in ("bundle", "trial")}

    def _take_safety(self, msg: String) -> None:
        self._stopped_now = json.loads(msg.data).get("state") == "stopped"
        self._stopped = self._stopped or self._stopped_now
