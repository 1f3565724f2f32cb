"""A loop faster than its policy: which ticks belong to the policy, and what is commanded between them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from robot_rl.errors import ConfigError
from robot_rl.interfaces import Env


@runtime_checkable
class Retimed(Protocol):
    """An arm that can be stepped at more than one rate."""

    def at_rate(self, control_hz: float) -> Env:
        """Return the same arm and task with another control rate and episodes that last as long."""


class PolicyGrid:
    """The instants at which the policy observes and its plan is looked at, and the way from one to the next.

    A row of a chunk says where to be when its step ends, as a robot's own controller takes a target. So the commands
    of a step go from the last executed one to the row in a straight line and arrive at its last tick: `1 / n` of what
    is left at `n` ticks before the end. Every command lies between the last one and the row; nothing is extrapolated.

    Args:
        control_hz: Rate of the loop.
        policy_hz: Rate the policy was trained for; the loop's is a whole multiple of it.
        interpolate: Go in a straight line; otherwise a row is commanded as it is from the step's first tick on.

    Raises:
        ConfigError: A rate that is not positive, or the loop's is no whole multiple of the policy's.
    """

    def __init__(self, control_hz: float, policy_hz: float, *, interpolate: bool = True) -> None:
        for name, rate in (("control_hz", control_hz), ("policy_hz", policy_hz)):
            if not 0 < rate < float("inf"):
                raise ConfigError(f"`{name}` must be positive, got {rate}")
        self.ticks = round(control_hz / policy_hz)
        if self.ticks < 1 or abs(self.ticks * policy_hz / control_hz - 1) > 1e-9:
            raise ConfigError(
                f"`control_hz` must be a whole multiple of the {policy_hz:g} Hz the policy was trained for, "
                f"got {control_hz:g}"
            )
        self._policy_step_ns = round(1e9 / policy_hz)
        self.step_ns = self._policy_step_ns // self.ticks
        self._interpolate, self._next_ns = interpolate, 0

    def start(self, tick_ns: int) -> None:
        """Make this tick the first of the policy's."""
        self._next_ns = tick_ns

    def due(self, tick_ns: int) -> bool:
        """Whether the policy observes at this tick; asked once at each tick. One slept through is due at the next."""
        if tick_ns < self._next_ns:
            return False
        self._next_ns += ((tick_ns - self._next_ns) // self._policy_step_ns + 1) * self._policy_step_ns
        return True

    def snap(self, tick_ns: int) -> int:
        """Return a tick's deadline without the nanoseconds that rounding the period leaves at the end of a step."""
        return self._next_ns if abs(tick_ns - self._next_ns) < self.step_ns // 2 else tick_ns

    def toward(self, last: np.ndarray, row: np.ndarray, tick_ns: int) -> np.ndarray:
        """Return the command [A] of a tick on the way from the last executed action to a row; call `due` before."""
        left = max(1, round((self._next_ns - tick_ns) / self.step_ns)) if self._interpolate else 1
        return row if left == 1 else np.asarray(last + (row - last) / left)
