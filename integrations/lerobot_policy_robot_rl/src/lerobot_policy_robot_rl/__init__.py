"""Bundles of robot-rl as policies of LeRobot (type `robot_rl`), its simulated tasks as environments of that type."""

from lerobot_policy_robot_rl.configuration_env import RobotRLEnv
from lerobot_policy_robot_rl.configuration_robot_rl import RobotRLConfig

__all__ = ["RobotRLConfig", "RobotRLEnv"]
