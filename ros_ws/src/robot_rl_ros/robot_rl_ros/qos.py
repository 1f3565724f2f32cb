"""The four qualities of service of the graph; a topic has exactly one of them."""

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

SENSOR = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Images, poses, camera_info: the newest counts, a lost one is not sent again."""

JOINTS = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
"""joint_states at 500 Hz: 100 ms of slack for a receiver that was busy."""

COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Commands: each arrives, and an older one never waits behind a newer."""

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""States: who joins late gets the last one."""
