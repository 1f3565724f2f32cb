"""The loop's clock is an argument: the machine's monotonic one, or a simulated one that tests step by hand."""

from __future__ import annotations

import time
from typing import Protocol, runtime_checkable


@runtime_checkable
class Clock(Protocol):
    """Nanoseconds that never go backwards."""

    def now_ns(self) -> int:
        """Return the present time."""

    def sleep_until(self, deadline_ns: int) -> None:
        """Return at `deadline_ns`, or at once if it has passed."""


class MonotonicClock:
    """The machine's monotonic clock; no jump of the wall clock disturbs it."""

    def now_ns(self) -> int:
        """Return the present time."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def sleep_until(self, deadline_ns: int) -> None:
        """Sleep to an absolute deadline, so that errors of one sleep do not add up."""
        while (left := deadline_ns - self.now_ns()) > 0:
            time.sleep(left / 1e9)


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
