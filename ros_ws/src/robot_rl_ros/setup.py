"""Package of the ROS 2 nodes, for `colcon build` and for `pip install`."""

from glob import glob

from setuptools import setup

NAME = "robot_rl_ros"
NODES = ("calibration", "camera", "policy", "recorder", "safety", "sim_camera", "sim_robot", "supervisor", "teleop")

setup(
    name=NAME,
    version="0.1.0",
    description="ROS 2 nodes of robot_rl",
    license="Apache-2.0",
    packages=[NAME],
    package_data={NAME: ["*.xml", "py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.py"))),
        (f"share/{NAME}/config", sorted(glob("config/*.yaml"))),
    ],
    python_requires=">=3.11",
    install_requires=["robot-rl"],
    zip_safe=False,
    entry_points={"console_scripts": [f"{node}_node = {NAME}.{node}_node:main" for node in NODES]},
)
