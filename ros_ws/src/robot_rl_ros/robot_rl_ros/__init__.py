"""ROS 2 nodes of robot_rl. A node converts messages and calls robot_rl; whatever can be decided without ROS is there."""
