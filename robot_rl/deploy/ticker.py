"""Work at a fixed rate on a thread of its own, at absolute deadlines: what a timer of an executor cannot promise."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from robot_rl.deploy.clock import MonotonicClock
from robot_rl.deploy.latency import LatencyHistogram
from robot_rl.deploy.priority import request_realtime
from robot_rl.errors import ConfigError

log = logging.getLogger(__name__)


class Ticker:
    """Calls `tick` at `rate_hz` until closed. A deadline slept through is counted and never made up for.

    An exception of `tick` ends the ticking: whoever waits for its output sees silence. It stays in `error`.

    Args:
        tick: The work; must return within a period.
        rate_hz: How often.
        name: Of the thread.
        realtime: Run before ordinary threads (SCHED_FIFO) where the machine allows it; `ordinary_because` says whether
            it did. For work that takes a small part of its period: it displaces everything else on its core.

    Raises:
        ConfigError: The rate is not positive.
    """

    def __init__(self, tick: Callable[[], None], *, rate_hz: float, name: str, realtime: bool = False) -> None:
        if not 0 < rate_hz < float("inf"):
            raise ConfigError(f"`rate_hz` of {name} must be positive, got {rate_hz}")
        self._tick, self._step_ns = tick, round(1e9 / rate_hz)
        self._clock = MonotonicClock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.lateness = LatencyHistogram()
        self.ticks = 0
        self.skipped = 0
        self.error: Exception | None = None
        self._realtime = realtime
        self.ordinary_because = "" if realtime else "not asked for"

    def start(self) -> None:
        """Begin; the first tick is due one period from now."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the present tick. Calling it twice, or before `start`, is allowed."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        if self._realtime:
            self.ordinary_because = request_realtime()
            log.info("%s runs %s", self._thread.name, self.ordinary_because or "under SCHED_FIFO")
        deadline = self._clock.now_ns() + self._step_ns
        while not self._stop.is_set():
            self._clock.sleep_until(deadline)
            self.lateness.record(self._clock.now_ns() - deadline)
            try:
                self._tick()
            except Exception as error:  # the thread's last words: whoever owns the ticker reads `error`
                self.error = error
                log.exception("%s stopped", self._thread.name)
                return
            self.ticks += 1
            deadline += self._step_ns
            late = self._clock.now_ns() - deadline
            if late > 0:
                missed = -(-late // self._step_ns)  # rounded up
                self.skipped += missed
                deadline += missed * self._step_ns
