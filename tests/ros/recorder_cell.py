"""A recorder's parameters, and a robot played by the test that remembers every stamp."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from robot_rl_ros.conversions import ImagePublisher, command_to_msg
from robot_rl_ros.qos import COMMAND, JOINTS, LATCHED, SENSOR
from robot_rl_ros.stamps import now_ns, to_msg
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float32, String
from trajectory_msgs.msg import JointTrajectory

from robot_rl.data.frame_codec import encode

SHAPE = (120, 160, 3)
NAMES = ["joint1", "gripper"]
STREAMS = {
    "q": {"topic": "joint_states", "type": "sensor_msgs/msg/JointState", "qos": "joints", "shape": [2],
          "names": NAMES, "rate_hz": 100.0},
    "front": {"topic": "front/color/image_raw", "type": "sensor_msgs/msg/Image", "shape": list(SHAPE),
              "dtype": "uint8", "rate_hz": 20.0},
    "side": {"topic": "side/color/image_raw/compressed", "type": "sensor_msgs/msg/CompressedImage",
             "shape": list(SHAPE), "dtype": "uint8", "codec": "jpeg", "role": "extra"},
    "action": {"topic": "selected/command", "type": "trajectory_msgs/msg/JointTrajectory", "qos": "command",
               "shape": [2], "names": NAMES},
    "action_executed": {"topic": "command", "type": "trajectory_msgs/msg/JointTrajectory", "qos": "command",
                        "names": NAMES},
    "reward": {"topic": "episode/reward", "type": "std_msgs/msg/Float32"},
    "by_human": {"topic": "control_source", "type": "std_msgs/msg/String", "qos": "latched", "true_when": "human"},
}  # fmt: skip


def parameters(store: Path, **streams: Any) -> dict[str, Any]:
    return {
        "store": str(store), "task": "lift", "source": "human", "max_episode_s": 10.0, "look_for_others_s": 0.5,
        "robot": {"name": "arm", "control_hz": 20.0}, "streams": {**STREAMS, **streams},
    }  # fmt: skip


def write(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / f"recorder-{time.monotonic_ns()}.yaml"
    plain = json.loads(json.dumps({"/**": {"ros__parameters": values}}))  # no aliases: rcl cannot read them
    path.write_text(yaml.safe_dump(plain))
    return path


def picture(i: int) -> np.ndarray:
    return np.full(SHAPE, i % 250, np.uint8)


class Robot:
    """Publishes like a robot, and remembers every stamp."""

    def __init__(self, graph: Any) -> None:
        self.graph, self.i = graph, 0
        self.joints = graph.publisher(JointState, "joint_states", JOINTS)
        self.front = graph.publisher(Image, "front/color/image_raw", SENSOR)
        self.side = graph.publisher(CompressedImage, "side/color/image_raw/compressed", SENSOR)
        self.selected = graph.publisher(JointTrajectory, "selected/command", COMMAND)
        self.command = graph.publisher(JointTrajectory, "command", COMMAND)
        self.reward = graph.publisher(Float32, "episode/reward", SENSOR)
        self.source = graph.publisher(String, "control_source", LATCHED)
        self.pictures = ImagePublisher(self.front, SHAPE, encoding="rgb8", frame_id="front")
        self.stamps: dict[str, list[int]] = {"q": [], "front": [], "side": [], "action": []}

    def wait(self) -> None:
        self.graph.wait_matched(self.joints)
        self.graph.wait_matched(self.front)
        self.graph.wait_matched(self.selected)

    def play(self, seconds: float, *, front: bool = True) -> None:
        """Joints at 100 Hz, pictures and commands at 20 Hz."""
        begin = time.monotonic()
        for n in range(round(seconds * 100)):
            time.sleep(max(0.0, begin + n / 100 - time.monotonic()))
            self.publish_joints()
            if n % 5 == 0:
                self.publish_slow(front)

    def publish_joints(self) -> None:
        stamp = self.mark("q")
        msg = JointState(name=["gripper", "joint1"], position=[0.5, float(len(self.stamps["q"]))])
        msg.header.stamp = to_msg(stamp)
        self.joints.publish(msg)

    def publish_slow(self, front: bool) -> None:
        if front:
            self.pictures.publish(picture(len(self.stamps["front"])), self.mark("front"))
        msg = CompressedImage(format="jpeg", data=encode(picture(len(self.stamps["side"])), "jpeg"))
        msg.header.stamp = to_msg(self.mark("side"))
        self.side.publish(msg)
        stamp = self.mark("action")
        value = float(len(self.stamps["action"]))
        self.selected.publish(command_to_msg(stamp, NAMES, np.array([value, 0.1])))
        self.command.publish(command_to_msg(stamp, NAMES, np.array([value / 2, 0.1])))

    def mark(self, stream: str) -> int:
        stamp = now_ns(self.graph.node)
        self.stamps[stream].append(stamp)
        return stamp


def play_until(robot: Robot, condition: Callable[[], Any], *, timeout_s: float = 40.0) -> None:
    """Go on publishing until the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, robot.graph.logs()
        robot.play(0.1)
