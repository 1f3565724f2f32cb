"""Does a trained bundle lift the cube over ROS topics? The graph `deploy` on the simulated arm, episode after episode.

    python -m benchmarks.ros_deploy --bundle outputs/lift/bundle [--episodes 20]

Success is the cube 10 cm above the table, as seen on `object_pose`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from robot_rl_ros.arm_graphs import GRAPHS
from robot_rl_ros.environment import environment
from robot_rl_ros.qos import LATCHED, SENSOR
from robot_rl_ros.runner import spin_in_thread
from robot_rl_ros.up import Running
from std_msgs.msg import String
from std_srvs.srv import Trigger

from benchmarks._fault_cell import wait
from benchmarks._results import write_results
from robot_rl.evaluation.statistics import clopper_pearson

DOMAIN = 100
LIFTED_M = 0.12
LIMIT_S = 10.0


class Watch:
    """What the graph says, and its services."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.height_m = 0.0
        self.status: dict[str, dict[str, Any]] = {}
        node.create_subscription(PoseStamped, "object_pose", self._on_object, SENSOR)
        for topic in ("episode/status", "safety/state"):

            def take(msg: String, topic: str = topic) -> None:
                self.status[topic] = json.loads(msg.data)

            node.create_subscription(String, topic, take, LATCHED)

    def _on_object(self, msg: PoseStamped) -> None:
        self.height_m = msg.pose.position.z

    def idle(self) -> bool:
        """Whether an episode may start."""
        states = [self.status.get(topic, {}).get("state") for topic in ("episode/status", "safety/state")]
        return states == ["idle", "idle"] and 0.0 < self.height_m < LIFTED_M

    def call(self, service: str) -> bool:
        """Call a Trigger service and return whether it did what was asked."""
        client: Any = self._node.create_client(Trigger, service)
        wait(client.service_is_ready, service)
        future = client.call_async(Trigger.Request())
        wait(future.done, f"answer of {service}")
        self._node.destroy_client(client)
        return bool(future.result().success)

    def episode(self) -> float | None:
        """Play one episode and return the seconds to the lift, `None` when there was none."""
        wait(self.idle, "a graph at rest")
        wait(lambda: self.call("supervisor/start"), "a granted start", poll_s=0.2)
        began = time.monotonic()
        while self.height_m < LIFTED_M and time.monotonic() - began < LIMIT_S:
            time.sleep(0.01)
        seconds = time.monotonic() - began
        lifted = self.height_m >= LIFTED_M
        self.call("supervisor/success" if lifted else "supervisor/failure")
        time.sleep(0.5)
        if self.status["safety/state"]["state"] == "stopped":
            self.call("safety/clear")
        return seconds if lifted else None


def main() -> None:
    """Play the episodes and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=300_000)
    arguments = parser.parse_args()
    os.environ.update({**environment(), "ROS_DOMAIN_ID": str(DOMAIN)})
    given = {"bundle": str(arguments.bundle), "cameras": "", "seed": str(arguments.first_seed), "policy_seed": "0"}
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("watch", namespace="/arm")
    watch = Watch(node)
    with Running(GRAPHS["deploy"].processes(given)), spin_in_thread(node):
        times = [watch.episode() for _ in range(arguments.episodes)]
    node.destroy_node()
    rclpy.shutdown()
    lifted = [seconds for seconds in times if seconds is not None]
    success = clopper_pearson(len(lifted), len(times))
    seeds = f"{arguments.first_seed}..{arguments.first_seed + len(times) - 1}"
    rows: list[dict[str, Any]] = [
        {"claim": "a trained bundle lifts the cube over ROS topics: success", "value": success.value, "unit": "",
         "interval": [success.low, success.high], "seeds": seeds},
    ]  # fmt: skip
    if lifted:
        middle, ends = sorted(lifted)[len(lifted) // 2], [round(min(lifted), 2), round(max(lifted), 2)]
        claim = "a trained bundle lifts the cube over ROS topics: time to the lift, median"
        rows.append({"claim": claim, "value": round(middle, 2), "unit": "s", "interval": ends, "seeds": seeds})
    print(rows)
    write_results("ros_deploy", rows)


if __name__ == "__main__":
    main()
