"""`ros2 launch robot_rl_ros deploy.launch.py`: the graph `deploy`; `-s` shows its arguments."""

from launch import LaunchDescription
from robot_rl_ros.launching import launch_description


def generate_launch_description() -> LaunchDescription:
    """Return the graph."""
    return launch_description("deploy")
