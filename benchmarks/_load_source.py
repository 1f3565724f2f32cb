"""One publisher of the recording load, in a process of its own: it publishes until SIGTERM and saves its stamps.

python -m benchmarks._load_source camera front <frames.npy> <stamps.npy>
python -m benchmarks._load_source joints <stamps.npy>
python -m benchmarks._load_source commands <selected.npy> <executed.npy>
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from robot_rl_ros.conversions import ImagePublisher, command_to_msg
from robot_rl_ros.qos import COMMAND, JOINTS, SENSOR
from robot_rl_ros.stamps import now_ns, to_msg
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory

NAMES = [*(f"joint{i}" for i in range(1, 8)), "gripper"]
CAMERA_HZ, JOINTS_HZ, COMMAND_HZ = 30.0, 500.0, 100.0


def tick(hz: float, publish: Callable[[int], None]) -> None:
    """Call `publish(i)` at absolute deadlines until SIGTERM; a deadline that has passed is skipped, not caught up."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    period, begin, i = 1.0 / hz, time.monotonic(), 0
    while not stop.is_set():
        publish(i)
        i = max(i + 1, int((time.monotonic() - begin) / period) + 1)
        time.sleep(max(0.0, begin + i * period - time.monotonic()))


def camera(node: Node, name: str, frames_path: str, stamps_path: str) -> None:
    frames = np.load(frames_path, mmap_mode="r")
    publisher = node.create_publisher(Image, f"{name}/color/image_raw", SENSOR)
    images = ImagePublisher(publisher, frames.shape[1:], encoding="rgb8", frame_id=f"{name}_color_optical_frame")
    stamps: list[int] = []

    def publish(i: int) -> None:
        stamps.append(now_ns(node))
        images.publish(frames[i % len(frames)], stamps[-1])

    tick(CAMERA_HZ, publish)
    np.save(stamps_path, np.array(stamps, np.int64))


def joints(node: Node, stamps_path: str) -> None:
    publisher = node.create_publisher(JointState, "joint_states", JOINTS)
    msg, stamps = JointState(name=NAMES[:7]), []

    def publish(i: int) -> None:
        stamps.append(now_ns(node))
        msg.header.stamp = to_msg(stamps[-1])
        msg.position = [float(i)] * 7
        publisher.publish(msg)

    tick(JOINTS_HZ, publish)
    np.save(stamps_path, np.array(stamps, np.int64))


def commands(node: Node, selected_path: str, executed_path: str) -> None:
    publishers = [node.create_publisher(JointTrajectory, topic, COMMAND) for topic in ("selected/command", "command")]
    stamps: tuple[list[int], list[int]] = ([], [])

    def publish(i: int) -> None:
        for publisher, log in zip(publishers, stamps, strict=True):
            log.append(now_ns(node))
            publisher.publish(command_to_msg(log[-1], NAMES, np.full(8, float(i))))

    tick(COMMAND_HZ, publish)
    for path, log in zip((selected_path, executed_path), stamps, strict=True):
        np.save(path, np.array(log, np.int64))


def main() -> None:
    kind, *args = sys.argv[1:]
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(f"load_{kind}_{Path(args[-1]).stem}", namespace="/arm")
    sources: dict[str, Callable[..., None]] = {"camera": camera, "joints": joints, "commands": commands}
    sources[kind](node, *args)
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
