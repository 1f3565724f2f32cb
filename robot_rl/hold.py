"""A correction that is kept for several ticks: fewer decisions to learn from the same reward, each with more effect.

On absolute targets a correction of one tick is smoothed away by the arm; of one that lasts, the arm goes somewhere
else. numpy and torch alike; it needs neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robot_rl.errors import ConfigError
from robot_rl.interfaces import Holding, StepPolicy


class Hold:
    """When a correction is chosen, and what is kept of it until the next time.

    Args:
        ticks: Ticks that a correction lasts; 1 chooses at every tick.

    Raises:
        ConfigError: Fewer than one.
    """

    def __init__(self, ticks: int) -> None:
        if ticks < 1:
            raise ConfigError(f"`hold` must be at least 1 tick, got {ticks}")
        self.ticks = ticks
        self.renew()

    def renew(self) -> None:
        """Choose anew at the next tick: an episode begins, or the arm went another way."""
        self.age, self._offset = 0, None

    def total(self, base: Any, choose: Callable[[], Any]) -> Any:
        """Return a tick's action [..., A]; call it once a tick.

        Args:
            base: The base's action [..., A], within the limits that the chosen total is held to.
            choose: Makes base and correction of this tick; called when it is time.
        """
        self.age = 0 if self._offset is None else (self.age + 1) % self.ticks
        if self.age == 0:
            total = choose()
            self._offset = total - base
            return total
        return base + self._offset


def renew(step: StepPolicy | None) -> None:
    """Have a correction that lasts choose anew at the next tick; one that does not, or none, has nothing to renew."""
    if isinstance(step, Holding):
        step.renew()
