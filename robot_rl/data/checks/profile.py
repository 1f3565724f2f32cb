"""What is usual in a store, element by element: its range, its steps, how much of it an episode uses."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from robot_rl.data.checks.view import EpisodeView

LIVE = 0.1
"""Share of its range that an element covers in the median episode when it takes part in the task."""
TWO_STATES = 0.7
"""Share of frames near either end of an episode's own span above which an element only switches, as grippers do."""
NOISE = 1e-5
"""Share of its range that a sensor's noise moves a reading by; an object at rest in simulation creeps by far less."""
_NEAR = 0.05


@dataclass(frozen=True)
class Profile:
    """Store-wide figures per column of `EpisodeView.table`, S state elements and then A action elements.

    Args:
        low: Smallest value.
        high: Largest value.
        span: Median over episodes of the element's range within one.
        step: Median over episodes of the 99th percentile of |x[n+1] - x[n]|.
        restless: Median over episodes of the 20th percentile of |x[n+1] - x[n]|: what it does when nothing happens.
        switching: Share of frames near either end of an episode's own span.
    """

    low: np.ndarray
    high: np.ndarray
    span: np.ndarray
    step: np.ndarray
    restless: np.ndarray
    switching: np.ndarray

    @property
    def range(self) -> np.ndarray:
        """Largest less smallest value."""
        return np.asarray(self.high - self.low)

    @property
    def live(self) -> np.ndarray:
        """Which elements move in an ordinary episode."""
        return np.asarray((self.range > 0) & (self.span >= LIVE * self.range))

    @property
    def noisy(self) -> np.ndarray:
        """Which elements change at nearly every step by more than rounding, so that a standstill is telling."""
        return np.asarray(self.restless > NOISE * self.range)

    @property
    def two_state(self) -> np.ndarray:
        """Which elements only switch."""
        return np.asarray(self.switching >= TWO_STATES)


@dataclass
class ProfileBuilder:
    """Gathers a profile, one episode at a time; keeps a few numbers per episode and element."""

    _low: list[np.ndarray] = field(default_factory=list)
    _high: list[np.ndarray] = field(default_factory=list)
    _step: list[np.ndarray] = field(default_factory=list)
    _restless: list[np.ndarray] = field(default_factory=list)
    _switching: list[np.ndarray] = field(default_factory=list)

    def add(self, view: EpisodeView) -> None:
        """Count one episode."""
        x = view.table
        low, high = x.min(axis=0), x.max(axis=0)
        steps = np.abs(np.diff(x, axis=0)) if len(x) > 1 else np.zeros((1, x.shape[1]))
        span = high - low
        near = (x <= low + _NEAR * span) | (x >= high - _NEAR * span)
        self._low.append(low)
        self._high.append(high)
        self._step.append(np.percentile(steps, 99, axis=0))
        self._restless.append(np.percentile(steps, 20, axis=0))
        self._switching.append(np.where(span > 0, near.mean(axis=0), np.nan))

    def build(self) -> Profile | None:
        """Return the profile; `None` when no episode could be read."""
        if not self._low:
            return None
        low, high, switching = (np.array(rows) for rows in (self._low, self._high, self._switching))
        moved = np.isfinite(switching)
        return Profile(
            low=low.min(axis=0),
            high=high.max(axis=0),
            span=np.median(high - low, axis=0),
            step=np.median(self._step, axis=0),
            restless=np.median(self._restless, axis=0),
            switching=np.where(moved, switching, 0.0).sum(axis=0) / np.maximum(moved.sum(axis=0), 1),
        )
