"""`robot-rl up <graph> key:=value ...`: a ROS 2 graph in plain processes.

The nodes live in the ROS package, which this one never imports; it is started as a program of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from robot_rl.errors import MissingExtraError

PACKAGE = "robot_rl_ros"


def exec_graph(arguments: Sequence[str]) -> int:
    """Become `python -m robot_rl_ros.up`, so that signals reach it directly.

    Raises:
        MissingExtraError: The ROS packages are not installed.
    """
    if find_spec("rclpy") is None:
        raise MissingExtraError("rclpy", "ros")
    if find_spec(PACKAGE) is None:
        raise MissingExtraError(PACKAGE, "ros", command="pip install --no-deps -e ros_ws/src/robot_rl_ros")
    os.execv(sys.executable, [sys.executable, "-m", f"{PACKAGE}.up", *arguments])
