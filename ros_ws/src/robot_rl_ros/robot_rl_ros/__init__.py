"""ROS 2 nodes of robot_rl: they convert messages and call it; what can be decided without ROS is decided there."""
