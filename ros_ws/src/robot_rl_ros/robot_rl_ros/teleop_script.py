"""What a scripted source needs from the graph: observations, and when an episode runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState

from robot_rl.errors import SpecError
from robot_rl.teleop.scripted import ScriptedSource
from robot_rl.teleop.source import Event
from robot_rl.values import Obs
from robot_rl_ros.conversions import joint_state_to_arrays, pose_to_pose9
from robot_rl_ros.params import declare
from robot_rl_ros.qos import SENSOR

_RETRY_S = 1.0


class Script:
    """Feeds a scripted source, and lets it play one episode after another.

    Observations are `joint_position`, `joint_velocity`, `gripper_width`, `tcp_pose` and the object's pose. They reach
    the source together, each time the object's pose comes.
    """

    def __init__(self, node: Node, source: ScriptedSource, names: Sequence[str]) -> None:
        self._node, self._source, self._names = node, source, list(names)
        self._object = str(node.get_parameter("object").value)
        self._episodes = declare(
            node, "episodes", 0, "how many episodes to start by itself; 0: none, -1: endless", low=-1
        )
        self._lock = threading.Lock()
        self._obs: Obs = {}
        self._running = -1
        self._state = ""
        self._asked_s = 0.0
        node.create_subscription(PoseStamped, "object_pose", self._on_object, SENSOR)
        node.create_subscription(PoseStamped, "current_pose", self._on_tool, SENSOR)

    def on_joints(self, msg: JointState) -> None:
        """Take a joint state."""
        _, position, velocity = joint_state_to_arrays(msg, self._names)
        n = len(self._names) - int(self._names[-1] == "gripper")
        with self._lock:
            self._obs["joint_position"] = position[:n].astype(np.float32)
            self._obs["joint_velocity"] = velocity[:n].astype(np.float32)
            self._obs["gripper_width"] = position[n:].astype(np.float32)

    def on_status(self, state: str, index: int) -> None:
        """Begin with a new episode, let go when it ends."""
        self._state = state
        if state == "running" and index != self._running:
            self._running = index
            self._source.begin()
        elif state != "running":
            self._running = -1
            self._source.finish()

    def start_when_idle(self, say: Callable[[Event], None]) -> None:
        """Ask for the next episode while any are left and none runs."""
        now = time.monotonic()
        if self._episodes != 0 and self._state == "idle" and now - self._asked_s > _RETRY_S:
            self._asked_s = now
            say(Event.START)

    def started(self) -> None:
        """Count an episode that was started."""
        if self._episodes > 0:
            self._episodes -= 1

    def _on_tool(self, msg: PoseStamped) -> None:
        self._take("tcp_pose", msg)

    def _on_object(self, msg: PoseStamped) -> None:
        self._take(self._object, msg)
        with self._lock:
            obs = dict(self._obs)
        if "joint_position" in obs and self._object in obs:
            self._source.observe(time.monotonic_ns(), obs)

    def _take(self, name: str, msg: PoseStamped) -> None:
        try:
            pose = pose_to_pose9(msg.pose)
        except SpecError as error:
            self._node.get_logger().error(f"`{name}` ignored: {error}", throttle_duration_sec=1.0)
            return
        with self._lock:
            self._obs[name] = pose
