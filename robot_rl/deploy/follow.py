"""From commands that come now and then to where the arm should be at the end of each control period."""

from __future__ import annotations

import numpy as np

from robot_rl.deploy.limits import brake_speed
from robot_rl.errors import ConfigError

_TARGET_MOVES_NS = 60_000_000  # a target not sent again within this time stands still


class CommandFollower:
    """Approaches each command in a straight line, and brakes before one that stands still.

    A 20 Hz policy on a 100 Hz filter would else move the arm in bursts, and a filter that limits speed and acceleration
    alone runs past a target that is far away. A target that moves is followed at its own speed, without lag.

    Args:
        step_ns: Control period.
        interpolate_s: A command is approached over the time since the one before it, at most this.
        acceleration: Largest deceleration per element [A], unit/s^2.

    Raises:
        ConfigError: A negative time.
    """

    def __init__(self, *, step_ns: int, interpolate_s: float, acceleration: np.ndarray) -> None:
        if not interpolate_s >= 0:
            raise ConfigError(f"`interpolate_s` must be zero or more, got {interpolate_s}")
        self._step_ns, self._longest_ns = step_ns, round(interpolate_s * 1e9)
        self._acceleration = acceleration
        self.reset()

    @property
    def has_command(self) -> bool:
        """Whether there is a command to follow."""
        return self._target is not None

    def reset(self) -> None:
        """Forget the command."""
        self._target: np.ndarray | None = None
        self._start: np.ndarray | None = None
        self._received_ns = self._period_ns = 0
        self._speed = np.zeros(len(self._acceleration))

    def take(self, target: np.ndarray, *, last: np.ndarray | None, now_ns: int) -> None:
        """Take a command [A].

        Args:
            target: Where to go.
            last: What was executed last; `None` when nothing was, so that `wanted` gives the first command whole and a
                jump in it shows.
            now_ns: Monotonic time of receipt.
        """
        before, gap_ns = self._target, now_ns - self._received_ns
        self._start, self._period_ns = (None, 0) if before is None else (last, min(gap_ns, self._longest_ns))
        moved = before is not None and gap_ns > 0 and before.shape == np.shape(target)
        self._speed = np.abs(target - before) / (gap_ns / 1e9) if moved else np.zeros(len(self._acceleration))
        self._target, self._received_ns = np.array(target, dtype=np.float64), now_ns

    def wanted(self, last: np.ndarray, now_ns: int) -> np.ndarray:
        """Return where to be one period after `now_ns` [A], given what was executed last [A].

        Raises:
            ConfigError: There is no command.
        """
        target, start = self._target, self._start
        if target is None:
            raise ConfigError("no command to follow; look at `has_command` first")
        if start is None or target.shape != last.shape or not np.isfinite(target).all():
            return target
        elapsed_ns = now_ns - self._received_ns + self._step_ns
        share = 1.0 if self._period_ns <= 0 else min(elapsed_ns / self._period_ns, 1.0)
        step = start + share * (target - start) - last
        own = self._speed if elapsed_ns <= _TARGET_MOVES_NS else np.zeros(len(last))
        dt = self._step_ns / 1e9
        reach = (own + brake_speed(np.abs(target - last), self._acceleration, dt)) * dt
        return np.asarray(last + np.clip(step, -reach, reach))
