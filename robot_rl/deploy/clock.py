"""The loop's clock is an argument: the machine's monotonic one, or a simulated one that tests step by hand."""

from __future__ import annotations

import time
from typing import Protocol, runtime_checkable

from robot_rl.errors import ConfigError

MAX_SPIN_NS = 1_000_000


@runtime_checkable
class Clock(Protocol):
    """Nanoseconds that never go backwards."""

    def now_ns(self) -> int:
        """Return the present time."""

    def sleep_until(self, deadline_ns: int) -> None:
        """Return at `deadline_ns`, or at once if it has passed."""


class MonotonicClock:
    """The machine's monotonic clock; no jump of the wall clock disturbs it.

    Args:
        spin_ns: Wake up this much before a deadline and wait for it by looking at the clock. A sleep of an ordinary
            thread ends some 50 us late; spinning hides that, and takes `spin_ns` of a core per tick.

    Raises:
        ConfigError: `spin_ns` is negative or above `MAX_SPIN_NS`.
    """

    def __init__(self, *, spin_ns: int = 0) -> None:
        if not 0 <= spin_ns <= MAX_SPIN_NS:
            raise ConfigError(f"`spin_ns` must be in [0, {MAX_SPIN_NS}], got {spin_ns}")
        self._spin_ns = spin_ns

    def now_ns(self) -> int:
        """Return the present time."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def sleep_until(self, deadline_ns: int) -> None:
        """Sleep to an absolute deadline, so that errors of one sleep do not add up."""
        while (left := deadline_ns - self._spin_ns - self.now_ns()) > 0:
            time.sleep(left / 1e9)
        while self._spin_ns and self.now_ns() < deadline_ns:
            pass


class SimulatedClock:
    """Time that passes only when told to, for runs that must be repeatable."""

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """Return the present time."""
        return self._now_ns

    def sleep_until(self, deadline_ns: int) -> None:
        """Move to `deadline_ns` if it lies ahead."""
        self._now_ns = max(self._now_ns, deadline_ns)

    def advance(self, duration_ns: int) -> None:
        """Let time pass, as work does."""
        self._now_ns += duration_ns
