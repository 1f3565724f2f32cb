"""Counts the episodes of the bundle that drives; what could not be counted is counted before anything moves again."""

from __future__ import annotations

from collections.abc import Callable

from robot_rl.bundle import PolicyBundle
from robot_rl.errors import RobotRLError
from robot_rl_ros.bundle_source import BundleSource
from robot_rl_ros.drivers import Drivers


class EpisodeTally:
    """Hands every episode's outcome to the rollback, with whether a person took the arm within it.

    Args:
        source: Where outcomes go.
        say: Tells the operator that a bundle was taken back.
    """

    def __init__(self, source: BundleSource, say: Callable[[str], object]) -> None:
        self._source, self._say = source, say
        self.drivers = Drivers()
        self._uncounted: list[tuple[PolicyBundle, str | None, bool]] = []

    def end(self, bundle: PolicyBundle, outcome: str | None) -> None:
        """Remember how the episode ended; `settle` counts it."""
        self._uncounted.append((bundle, outcome, self.drivers.taken_over))

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
                self._say(f"taken back: {back}")
        return ""
