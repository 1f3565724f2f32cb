"""The safety node's parameters. A limit that is missing refuses to start; 0.0 is a limit; `.inf` says: none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rclpy.node import Node

from robot_rl.deploy.guard import GuardSettings
from robot_rl.deploy.safety import SafetyFilter, SafetyLimits, Workspace
from robot_rl.errors import ConfigError
from robot_rl_ros.outputs import OUTPUT_TYPES, Output, make_output
from robot_rl_ros.params import declare
from sim.robots import RobotModel, load_robot


@dataclass(frozen=True)
class Safety:
    """What the node is made of."""

    names: Sequence[str]
    filter: SafetyFilter
    guard: GuardSettings
    output: Output


def declare_safety(node: Node, rate_hz: float) -> Safety:
    """Declare every parameter and build the filter.

    Raises:
        ConfigError: One is missing, of the wrong length or out of range.
    """
    names = declare(node, "joint_names", list[str], "arm joints base to tool, then `gripper` if there is one")
    robot = load_robot(declare(node, "robot", "arm7", "`arm7` or an MJCF file: kinematics of workspace and twist"))
    step_ns = round(1e9 / rate_hz)
    limits = _limits(node, names, robot)
    return Safety(
        names=names,
        filter=SafetyFilter(limits, step_ns=step_ns),
        guard=_guard(node, names, limits=limits, step_ns=step_ns),
        output=_output(node, names, robot, step_ns),
    )


def _per_joint(
    node: Node, name: str, names: Sequence[str], description: str, *, low: float | None = None
) -> list[float]:
    values: list[float] = declare(node, name, list[float], f"{description}, one per joint; .inf: unlimited", low=low)
    if len(values) != len(names):
        raise ConfigError(
            f"parameter `{name}` of node `{node.get_name()}` must have {len(names)} numbers, "
            f"one for each of {list(names)}, got {len(values)}"
        )
    return values


def _limits(node: Node, names: Sequence[str], robot: RobotModel) -> SafetyLimits:
    low = _per_joint(node, "limits.low", names, "lowest position [rad, m]")
    high = _per_joint(node, "limits.high", names, "highest position [rad, m]")
    share = declare(node, "speed_share", 1.0, "share of limits.velocity that may be used", low=0.01, high=1.0)
    velocity = [
        share * limit for limit in _per_joint(node, "limits.velocity", names, "largest speed [rad/s, m/s]", low=0.0)
    ]
    acceleration = _per_joint(node, "limits.acceleration", names, "largest acceleration [rad/s^2, m/s^2]", low=0.0)
    jump = _per_joint(node, "limits.start_jump", names, "first command's largest distance [rad, m]", low=0.0)
    corner = {
        side: declare(node, f"limits.workspace_{side}", list[float], f"{side} corner of the tool's box [m]")
        for side in ("low", "high")
    }
    for side, values in corner.items():
        if len(values) != 3:
            raise ConfigError(f"parameter `limits.workspace_{side}` must have 3 numbers, got {len(values)}")
    kinematics, n = robot.kinematics(), len(robot.joints)
    if len(names) not in (n, n + 1):
        raise ConfigError(f"robot `{robot.name}` has {n} joints, but joint_names are {list(names)}")

    def tool(action: np.ndarray) -> np.ndarray:
        return kinematics.forward(action[:n])[:3, 3]

    return SafetyLimits(
        len(names),
        low=low,
        high=high,
        velocity=velocity,
        acceleration=acceleration,
        start_jump=jump,
        obs_age_s=declare(node, "joints_timeout_s", 0.1, "joint_states: largest age [s]", low=0.002, high=1.0),
        command_gap_s=declare(node, "command_timeout_s", 0.1, "selected/command: largest age [s]", low=0.01, high=1.0),
        slow_start_s=declare(node, "slow_start_s", 0.5, "time from a tenth of the speed to all of it [s]", low=0.0),
        workspace=Workspace(tool, tuple(corner["low"]), tuple(corner["high"])),
    )


def _guard(node: Node, names: Sequence[str], *, limits: SafetyLimits, step_ns: int) -> GuardSettings:
    cameras = declare(node, "watch_cameras", (list[str],), "camera_info topics that motion depends on")
    timeout = declare(node, "camera_timeout_s", 0.15, "cameras: largest age [s]", low=0.01, high=5.0)
    return GuardSettings(
        step_ns=step_ns,
        sources=declare(node, "sources", ["policy", "human"], "who may command"),
        command_timeout_s=limits.command_gap_s,
        joints_timeout_s=limits.obs_age_s,
        cameras=dict.fromkeys(cameras, timeout),
        cameras_for=declare(node, "cameras_for", ["policy", "human"], "sources that need the cameras"),
        following_error=_per_joint(node, "limits.following_error", names, "largest distance from command", low=0.0),
        interpolate_s=declare(
            node, "interpolate_s", 0.05, "a command is approached over at most this time [s]", low=0.0, high=0.5
        ),
        home=_per_joint(node, "home", names, "home pose [rad, m]"),
        home_speed=_per_joint(node, "home_speed", names, "speed of homing [rad/s, m/s]", low=0.0),
    )


def _output(node: Node, names: Sequence[str], robot: RobotModel, step_ns: int) -> Output:
    kind = declare(node, "output_type", "none", "further form of the final command", choices=OUTPUT_TYPES)
    kinematics = robot.kinematics() if kind == "twist" else None
    return make_output(
        node,
        kind,
        declare(node, "output_topic", "", "where that goes, such as forward_position_controller/commands"),
        joints=names[: len(robot.joints)],
        step_ns=step_ns,
        gripper_topic=declare(node, "output_gripper_topic", "", "where the gripper's width goes (Float64MultiArray)"),
        base_frame=declare(node, "base_frame", "base_link", "frame of a twist"),
        jacobian=None if kinematics is None else kinematics.jacobian,
    )
