"""A control node in a process of its own: at 200 Hz it takes the newest joint state and publishes a command.

python -m benchmarks._control_node <results.json>     until SIGTERM
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions
from robot_rl_ros.conversions import command_to_msg, joint_state_to_arrays
from robot_rl_ros.qos import COMMAND, JOINTS
from robot_rl_ros.runner import spin_in_thread
from robot_rl_ros.stamps import now_ns
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from robot_rl.deploy.ticker import Ticker

RATE_HZ = 200.0
NAMES = [f"joint{i}" for i in range(1, 8)]
WARM_UP_S = 2.0


def main() -> None:
    """Tick until SIGTERM and write what the ticker counted."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("control", namespace="/arm")
    publisher = node.create_publisher(JointTrajectory, "control/command", COMMAND)
    newest: list[JointState] = []
    node.create_subscription(JointState, "joint_states", lambda msg: newest.__setitem__(slice(0, 1), [msg]), JOINTS)
    msg = command_to_msg(0, NAMES, np.zeros(len(NAMES)))

    def tick() -> None:
        values = joint_state_to_arrays(newest[0], NAMES)[1] if newest else np.zeros(len(NAMES))
        publisher.publish(command_to_msg(now_ns(node), NAMES, values, msg))

    with spin_in_thread(node):
        time.sleep(WARM_UP_S)
        ticker = Ticker(tick, rate_hz=RATE_HZ, name="control", realtime=True)
        ticker.start()
        stop.wait()
        ticker.close()
    result = {"ticks": ticker.ticks, "skipped": ticker.skipped, "lateness": ticker.lateness.to_dict(),
              "ordinary_because": ticker.ordinary_because}  # fmt: skip
    Path(sys.argv[1]).write_text(json.dumps(result))
    rclpy.shutdown()


if __name__ == "__main__":
    main()
