"""Stamps: int64 nanoseconds of ROS time inside robot_rl, builtin_interfaces/Time in messages."""

from builtin_interfaces.msg import Time
from rclpy.node import Node

_SECOND_NS = 1_000_000_000


def to_ns(stamp: Time) -> int:
    """Return a message's stamp in nanoseconds."""
    return int(stamp.sec) * _SECOND_NS + int(stamp.nanosec)


def to_msg(ns: int) -> Time:
    """Return nanoseconds as a message's stamp."""
    return Time(sec=ns // _SECOND_NS, nanosec=ns % _SECOND_NS)


def now_ns(node: Node) -> int:
    """Return the present ROS time in nanoseconds."""
    return int(node.get_clock().now().nanoseconds)
