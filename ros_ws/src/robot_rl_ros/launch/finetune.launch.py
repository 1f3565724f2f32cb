"""`ros2 launch robot_rl_ros finetune.launch.py`: the graph `finetune`; `-s` shows its arguments."""

from launch import LaunchDescription
from robot_rl_ros.launching import launch_description


def generate_launch_description() -> LaunchDescription:
    """Return the graph."""
    return launch_description("finetune")
