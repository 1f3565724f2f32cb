"""Counts the episodes of the bundle that drives; what could not be counted is counted before anything moves again."""

from __future__ import annotations

from rclpy.node import Node
from std_msgs.msg import String

from robot_rl.bundle import PolicyBundle
from robot_rl.errors import RobotRLError
from robot_rl_ros.bundle_source import BundleSource
from robot_rl_ros.drivers import Drivers
from robot_rl_ros.qos import LATCHED


class EpisodeTally:
    """Hands every episode's outcome to the rollback, with whether a person took the arm within it.

    Args:
        node: The policy node.
        source: Where outcomes go.
    """

    def __init__(self, node: Node, source: BundleSource) -> None:
        self._source, self._log = source, node.get_logger()
        self.drivers = Drivers()
        node.create_subscription(String, "control_source", lambda msg: self.drivers.take(msg.data), LATCHED)
        self._uncounted: list[tuple[PolicyBundle, str | None, bool]] = []

    def end(self, bundle: PolicyBundle, outcome: str | None) -> None:
        """Count how the episode ended, or remember it until it can be."""
        self._uncounted.append((bundle, outcome, self.drivers.taken_over))
        if problem := self.settle():
            self._log.error(problem)

    def settle(self) -> str:
        """Count what ended; return what stands in the way, since a bundle that nobody counts must not drive on."""
        while self._uncounted:
            bundle, outcome, taken_over = self._uncounted[0]
            try:
                back = self._source.note(bundle, outcome, taken_over=taken_over)
            except (RobotRLError, OSError) as error:
                return f"the outcome {outcome!r} of bundle {bundle.id} cannot be counted: {error}"
            self._uncounted.pop(0)
            if back:
                self._log.error(f"taken back: {back}")
        return ""
