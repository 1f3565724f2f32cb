"""A policy that is watched and not obeyed: what it would have commanded beside what was, tick by tick.

The order of the rungs before motion: recorded observations (replay), then live ones with the arm in other hands (this),
then slow supervised trials.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_rl.errors import ConfigError, SpecError

_KEPT = 20_000


@dataclass(frozen=True)
class Command:
    """What was really commanded: `value` [A] in the action's unit, and when it was stamped [ns]."""

    value: np.ndarray
    stamp_ns: int


class ShadowComparison:
    """Compares a policy's actions with the commands in force at the same ticks.

    A command counts at a tick if it is no older than `max_age_ns`; a tick without one is counted and not compared. The
    newest 20,000 differences are kept for percentiles, counts and maxima are over all.

    Args:
        width: A.
        max_age_ns: Oldest command that still is in force [ns].

    Raises:
        ConfigError: A width below 1 or an age that is not positive.
    """

    def __init__(self, width: int, *, max_age_ns: int) -> None:
        if width < 1 or max_age_ns <= 0:
            raise ConfigError(f"need a width of at least 1 and a positive age, got {width} and {max_age_ns}")
        self._width, self._max_age_ns = width, max_age_ns
        self._lock = threading.Lock()
        self._command: Command | None = None
        self._differences = np.zeros((_KEPT, width))
        self._max = np.zeros(width)
        self._n = self._alone = self._silent = 0

    def commanded(self, value: np.ndarray, stamp_ns: int) -> None:
        """Take in what was commanded [A].

        Raises:
            SpecError: Another width, or not finite.
        """
        value = np.asarray(value, dtype=np.float64)
        if value.shape != (self._width,) or not np.isfinite(value).all():
            raise SpecError(f"a command must be {self._width} finite numbers, got {value.tolist()}")
        with self._lock:
            self._command = Command(value, stamp_ns)

    def tick(self, action: np.ndarray | None, stamp_ns: int) -> np.ndarray | None:
        """Compare at a tick.

        Args:
            action: What the policy would command [A]; `None` where it would command nothing.
            stamp_ns: The tick.

        Returns:
            The policy's action less the command [A], `None` where there is nothing to compare.
        """
        with self._lock:
            command = self._command
            if action is None:
                self._silent += 1
                return None
            if command is None or not -self._max_age_ns <= stamp_ns - command.stamp_ns <= self._max_age_ns:
                self._alone += 1
                return None
            difference = np.asarray(action, dtype=np.float64) - command.value
            self._differences[self._n % _KEPT] = np.abs(difference)
            self._n += 1
            self._max = np.maximum(self._max, np.abs(difference))
            return np.asarray(difference)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: ticks compared, without a command, without an action; differences per axis."""
        with self._lock:
            kept = self._differences[: min(self._n, _KEPT)].copy()
            n, alone, silent, most = self._n, self._alone, self._silent, self._max.tolist()
        median, p95 = np.percentile(kept, (50, 95), axis=0).tolist() if len(kept) else ([], [])
        worst = max(most) if n else math.nan
        return {
            "compared": n, "without_command": alone, "without_action": silent, "difference_median": median,
            "difference_p95": p95, "difference_max": most if n else [], "largest": None if math.isnan(worst) else worst,
        }  # fmt: skip
