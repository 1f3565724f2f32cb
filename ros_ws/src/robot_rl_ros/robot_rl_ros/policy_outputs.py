"""What the policy node says: commands and chunks, or, in shadow mode, only how they differ from what is commanded."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from robot_rl.deploy.driver import Decision
from robot_rl_ros.conversions import chunk_to_msg, command_to_msg
from robot_rl_ros.qos import COMMAND, LATCHED
from robot_rl_ros.shadow_watch import ShadowWatch


class PolicyOutputs:
    """Publishes decisions. A shadow has no publisher of commands, so that it cannot command by mistake.

    Args:
        node: The policy node.
        names: Joints in the order of an action.
        shadow: Compare and do not command.
        shadow_log: JSONL file of a shadow's summaries; empty for none.
    """

    def __init__(self, node: LifecycleNode, names: list[str], *, shadow: bool, shadow_log: str) -> None:
        self._node, self._names = node, names
        self._watch = ShadowWatch(node, names, shadow_log) if shadow else None
        self._commands: Any = None if shadow else node.create_publisher(JointTrajectory, "policy/command", COMMAND)
        self._chunks: Any = None if shadow else node.create_publisher(JointTrajectory, "policy/chunk", COMMAND)
        self._driving = node.create_publisher(String, "~/shadows" if shadow else "policy/driving", LATCHED)

    def begin_episode(self, bundle_id: str, trial: str) -> None:
        """Say which bundle acts in the episode that begins, for those who record it."""
        self._driving.publish(String(data=json.dumps({"bundle": bundle_id, "trial": trial})))

    def send(self, stamp_ns: int, decision: Decision, *, offset_ns: int) -> None:
        """Publish a tick's decision.

        Args:
            stamp_ns: The tick, ROS time.
            decision: What was decided.
            offset_ns: ROS time minus monotonic time.
        """
        if self._watch is not None:
            self._watch.tick(decision.action, stamp_ns)
            return
        if decision.action is not None and self._commands is not None:
            self._commands.publish(command_to_msg(stamp_ns, self._names, decision.action, source="policy"))
        if decision.chunk is not None and self._chunks is not None:
            chunk, start_ns = decision.chunk, decision.chunk.start_ns + offset_ns
            self._chunks.publish(chunk_to_msg(start_ns, chunk.step_ns, self._names, chunk.action))

    def nobody_drives(self) -> None:
        """Say that no bundle acts, so that an episode which nothing may drive is nobody's."""
        self.begin_episode("", "")

    def end_episode(self, bundle_id: str, latency: Callable[[], dict[str, Any]]) -> None:
        """Let a shadow say what the episode showed."""
        if self._watch is not None:
            self._watch.end(bundle_id, latency())

    def close(self) -> None:
        """Give topics back."""
        if self._watch is not None:
            self._watch.close()
        for publisher in (self._commands, self._chunks, self._driving):
            if publisher is not None:
                self._node.destroy_publisher(publisher)
