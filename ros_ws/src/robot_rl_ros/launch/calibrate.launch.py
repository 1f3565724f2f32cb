"""`ros2 launch robot_rl_ros calibrate.launch.py`: the graph `calibrate`; `-s` shows its arguments."""

from launch import LaunchDescription
from robot_rl_ros.launching import launch_description


def generate_launch_description() -> LaunchDescription:
    """Return the graph."""
    return launch_description("calibrate")
