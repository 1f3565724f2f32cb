"""Which device drives, from the teleop node's parameters."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState

from robot_rl.errors import ConfigError, SpecError
from robot_rl.interfaces import Policy
from robot_rl.teleop import CartesianMapper, JointMapper, MapperLimits, Speeds, TeleopSource, TeleopState
from robot_rl.teleop.gamepad import GamepadSource
from robot_rl.teleop.keyboard import HELP, KeyboardSource
from robot_rl.teleop.leader import LeaderSource
from robot_rl.teleop.scripted import RaisedBy, ScriptedSource
from robot_rl.teleop.spacemouse import SpaceMouseSource
from robot_rl_ros.conversions import name_index
from robot_rl_ros.params import declare
from robot_rl_ros.qos import JOINTS
from sim.robots import load_robot

SOURCES = ("keyboard", "gamepad", "spacemouse", "leader", "scripted")
Step = Callable[[TeleopState, np.ndarray, int], np.ndarray | None]


def make_source(node: Node, name: str, n_joints: int) -> TeleopSource:
    """Declare the parameters of a device and return it, not yet opened.

    Raises:
        ConfigError: A parameter is missing or does not fit.
    """
    if name == "leader":
        return _leader(node, n_joints)
    if name == "scripted":
        return _scripted(node, n_joints)
    return _hand_device(node, name)


def make_mapper(node: Node, source: TeleopSource, names: Sequence[str]) -> Step:
    """Declare the mapper's parameters and return the step that turns the device's state into a command.

    Raises:
        ConfigError: The robot has other joints, or a limit does not fit.
    """
    robot = load_robot(declare(node, "robot", "arm7", "`arm7` or an MJCF file: kinematics and joint limits"))
    joints = [name for name in names if name != "gripper"]
    if len(joints) != len(robot.joints):
        raise ConfigError(f"`joint_names` has {len(joints)} arm joints, robot `{robot.name}` has {len(robot.joints)}")
    width = 0.0 if robot.gripper is None or "gripper" not in names else robot.gripper.max_width_m

    def limit(name: str, default: float, description: str, high: float) -> float:
        return float(declare(node, name, default, description, low=0.0, high=high))

    limits = MapperLimits(
        speed=limit("speed", 1.0, "share of the device's speed", 1.0),
        joint_speed_rad_s=limit("joint_speed_rad_s", 1.5, "fastest joint [rad/s]", 10.0),
        lag_rad=limit("lag_rad", 0.3, "how far a target may run ahead of the arm [rad]", 3.0),
        gripper_width_m=width,
        gripper_speed_m_s=limit("gripper_speed_m_s", 0.2, "fastest change of the gripper's opening [m/s]", 2.0),
    )
    kinematics = robot.kinematics()
    if isinstance(source, LeaderSource | ScriptedSource):
        relative = isinstance(source, LeaderSource)
        return JointMapper(kinematics.low, kinematics.high, limits, relative=relative).step
    return CartesianMapper(kinematics, limits).step


def _hand_device(node: Node, name: str) -> TeleopSource:
    def speed(parameter: str, default: float, unit: str) -> float:
        return float(declare(node, parameter, default, f"speed at full deflection [{unit}]", low=0.0, high=5.0))

    speeds = Speeds(
        linear_m_s=speed("linear_m_s", 0.15, "m/s"),
        angular_rad_s=speed("angular_rad_s", 0.8, "rad/s"),
        gripper_m_s=speed("gripper_m_s", 0.1, "m/s"),
    )
    if name == "keyboard":
        node.get_logger().info("keys\n" + HELP)
        return KeyboardSource(speeds)
    if name == "gamepad":
        return GamepadSource(speeds, index=declare(node, "gamepad_index", 0, "which gamepad", low=0, high=15))
    return SpaceMouseSource(speeds)


def _leader(node: Node, n_joints: int) -> LeaderSource:
    clutches = ("none", "keyboard", "gamepad", "spacemouse")
    topic = declare(node, "leader.topic", "leader/joint_states", "JointState of the leader arm")
    names = declare(node, "leader.joint_names", list[str], "the leader's joints, in the order of ours")
    scale = declare(node, "leader.scale", [1.0], "our radians per radian of the leader, one number or one per joint")
    offset = declare(node, "leader.offset_rad", [0.0], "our angle at the leader's zero, one number or one per joint")
    gripper = declare(node, "leader.gripper", "", "the leader's gripper joint, empty for none")
    readings = declare(node, "leader.gripper_range", [0.0, 1.0], "its reading when closed and when open")
    width = declare(node, "leader.gripper_width_m", 0.08, "our opening when it is open [m]", low=0.0, high=1.0)
    clutch = declare(node, "leader.clutch", "keyboard", "device whose clutch is used", choices=clutches)
    if len(names) != n_joints or len(readings) != 2:
        raise ConfigError(
            f"`leader.joint_names` must name {n_joints} joints and `leader.gripper_range` two readings, "
            f"got {names} and {readings}"
        )
    source = LeaderSource(
        n_joints,
        scale=np.array(scale),
        offset_rad=np.array(offset),
        gripper_range=(readings[0], readings[1]) if gripper else None,
        gripper_width_m=width,
        clutch=None if clutch == "none" else _hand_device(node, clutch),
    )

    def take(msg: JointState) -> None:
        try:
            angles = np.array(msg.position)[name_index(msg.name, names, what=topic)]
            reading = msg.position[name_index(msg.name, [gripper], what=topic)[0]] if gripper else None
            source.push(time.monotonic_ns(), angles, reading)
        except (SpecError, IndexError) as error:
            node.get_logger().error(f"`{topic}` ignored: {error}", throttle_duration_sec=1.0)

    node.create_subscription(JointState, topic, take, JOINTS)
    return source


def _scripted(node: Node, n_joints: int) -> ScriptedSource:
    target = declare(node, "target", str, "Python path of the script, a policy, such as sim.expert.LiftExpert")
    seed = declare(node, "seed", 0, "seed of the script", low=0)
    hz = declare(node, "control_hz", 20.0, "rate at which the script is asked [Hz]", low=1.0, high=500.0)
    rise = declare(node, "success_rise_m", 0.11, "success: the object rose by this [m]; 0: never", low=0.0, high=2.0)
    name = declare(node, "object", "cube_pose", "what the script calls the pose on object_pose")
    policy = _policy(target, seed=seed, control_hz=hz)
    succeeded = RaisedBy(name, rise) if rise > 0 else None
    return ScriptedSource(policy, n_joints=n_joints, control_hz=hz, succeeded=succeeded)


def _policy(target: str, **settings: Any) -> Policy:
    """Return an instance of the class that a dotted path names."""
    module, _, name = target.rpartition(".")
    try:
        policy = getattr(importlib.import_module(module), name)(**settings)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"parameter `target`: {target!r} cannot be made with {settings}: {error}") from error
    if not isinstance(policy, Policy):
        raise ConfigError(f"parameter `target`: {target!r} is no policy (n_obs, n_execute, reset, act)")
    return policy
