"""Who had the arm within an episode, by `control_source`."""

from __future__ import annotations

from robot_rl.deploy.takeover import was_taken_over

HUMAN = "human"


class Drivers:
    """Listens to who drives, and says whether a person took the arm (`was_taken_over`)."""

    def __init__(self) -> None:
        self._within = [""]

    def begin(self) -> None:
        """Begin an episode with whoever has the arm now."""
        self._within = self._within[-1:]

    def take(self, driver: str) -> None:
        """Take in who has the arm from now on."""
        if driver != self._within[-1]:
            self._within.append(driver)

    @property
    def taken_over(self) -> bool:
        """Whether a person took the arm since the episode began, or never let go of it."""
        return was_taken_over([driver == HUMAN for driver in self._within])
