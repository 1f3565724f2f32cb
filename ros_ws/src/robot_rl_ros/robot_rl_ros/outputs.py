"""Final commands in the form that a controller takes: ros2_control's forward commands and trajectories, or a twist."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from robot_rl.errors import ConfigError
from robot_rl_ros.qos import COMMAND
from robot_rl_ros.stamps import to_msg

OUTPUT_TYPES = ("none", "forward_command", "joint_trajectory", "twist")
Output = Callable[[int, np.ndarray, np.ndarray | None], None]
"""Send at `stamp_ns` the command [A], given the one before it (`None` for the first)."""
Jacobian = Callable[[np.ndarray], np.ndarray]


def make_output(
    node: Node,
    kind: str,
    topic: str,
    *,
    joints: Sequence[str],
    step_ns: int,
    gripper_topic: str = "",
    base_frame: str = "base_link",
    jacobian: Jacobian | None = None,
) -> Output:
    """Return what publishes final commands for a controller.

    Args:
        node: Owner of the publisher.
        kind: One of `OUTPUT_TYPES`: `forward_command` is Float64MultiArray for forward_command_controller,
            `joint_trajectory` one point for joint_trajectory_controller, `twist` TwistStamped for MoveIt Servo.
        topic: Where to.
        joints: The arm's joints; a command may have the gripper after them.
        step_ns: Control period.
        gripper_topic: Where the gripper's width goes as Float64MultiArray; nowhere when empty.
        base_frame: Frame of a twist.
        jacobian: d(position, rotation vector) / d(angles) [6, J]; needed for a twist.

    Raises:
        ConfigError: An unknown kind, no topic, or a twist without kinematics.
    """
    if kind not in OUTPUT_TYPES:
        raise ConfigError(f"output type must be one of {OUTPUT_TYPES}, got {kind!r}")
    if kind == "none":
        return lambda stamp_ns, command, before: None
    if not topic:
        raise ConfigError(f"output type {kind!r} needs `output_topic`")
    n = len(joints)
    if kind == "forward_command":
        arm = _forward(node, topic)
    elif kind == "joint_trajectory":
        arm = _trajectory(node, topic, joints, step_ns)
    elif jacobian is None:
        raise ConfigError("output type 'twist' needs the arm's kinematics; give the parameter `robot`")
    else:
        arm = _twist(node, topic, base_frame, step_ns=step_ns, jacobian=jacobian)
    gripper = _forward(node, gripper_topic) if gripper_topic else None

    def send(stamp_ns: int, command: np.ndarray, before: np.ndarray | None) -> None:
        arm(stamp_ns, command[:n], None if before is None else before[:n])
        if gripper is not None and len(command) > n:
            gripper(stamp_ns, command[n:], None)

    return send


def _forward(node: Node, topic: str) -> Output:
    publisher = node.create_publisher(Float64MultiArray, topic, COMMAND)

    def send(stamp_ns: int, command: np.ndarray, before: np.ndarray | None) -> None:
        publisher.publish(Float64MultiArray(data=command.tolist()))

    return send


def _trajectory(node: Node, topic: str, joints: Sequence[str], step_ns: int) -> Output:
    publisher = node.create_publisher(JointTrajectory, topic, COMMAND)
    point = JointTrajectoryPoint(time_from_start=Duration(sec=step_ns // 10**9, nanosec=step_ns % 10**9))
    msg = JointTrajectory(joint_names=list(joints), points=[point])  # stamp zero: begin on arrival

    def send(stamp_ns: int, command: np.ndarray, before: np.ndarray | None) -> None:
        msg.points[0].positions = command.tolist()
        publisher.publish(msg)

    return send


def _twist(node: Node, topic: str, base_frame: str, *, step_ns: int, jacobian: Jacobian) -> Output:
    publisher = node.create_publisher(TwistStamped, topic, COMMAND)
    msg = TwistStamped()
    msg.header.frame_id = base_frame

    def send(stamp_ns: int, command: np.ndarray, before: np.ndarray | None) -> None:
        speed = np.zeros(6) if before is None else jacobian(before) @ (command - before) / (step_ns / 1e9)
        linear, angular = msg.twist.linear, msg.twist.angular
        linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = (float(v) for v in speed)
        msg.header.stamp = to_msg(stamp_ns)
        publisher.publish(msg)

    return send
