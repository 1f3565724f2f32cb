"""What makes a thread's wake-ups late, switched off for as long as the loop runs, and put back afterwards."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from robot_rl.deploy.priority import pin, realtime
from robot_rl.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How the thread of a control loop is run.

    What the machine refuses is logged and told in the report; the loop runs without it.

    Args:
        realtime: Run before every ordinary thread (SCHED_FIFO). The loop must take a small part of its period.
        cores: Cores the thread may run on; `None` leaves it to the operating system.
        pause_gc: Collect garbage before a run and not during it; the loop itself makes no cycles.
        switch_us: Longest time another Python thread of this process keeps the interpreter once the loop wants it, in
            microseconds. Python's own 5000 is more than two periods at 500 Hz.

    Raises:
        ConfigError: No core, or a `switch_us` that is not positive.
    """

    realtime: bool = False
    cores: Sequence[int] | None = None
    pause_gc: bool = True
    switch_us: int = 100

    def __post_init__(self) -> None:
        if self.cores is not None and not self.cores:
            raise ConfigError("`timing.cores` must name at least one core, or be null for any")
        if self.switch_us <= 0:
            raise ConfigError(f"`timing.switch_us` must be positive, got {self.switch_us}")

    @contextmanager
    def applied(self) -> Iterator[str]:
        """Apply all this to the calling thread; gives how it is scheduled, in words."""
        with ExitStack() as undo:
            undo.callback(sys.setswitchinterval, sys.getswitchinterval())
            sys.setswitchinterval(self.switch_us / 1e6)
            how = []
            if self.cores is not None:
                refused = undo.enter_context(pin(self.cores))
                how.append(refused if refused else f"core {', '.join(map(str, self.cores))}")
            if self.realtime:
                refused = undo.enter_context(realtime())
                how.append(refused if refused else "SCHED_FIFO")
            else:
                how.append("ordinary priority")
            if self.pause_gc:
                undo.enter_context(garbage_paused())
            log.info("the control loop runs with %s", "; ".join(how))
            yield "; ".join(how)


@contextmanager
def garbage_paused() -> Iterator[None]:
    """Collect garbage now and no more until the end, where it was collected before."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def split_cores(available: Sequence[int] | None = None) -> tuple[list[int], list[int]] | None:
    """Return the core for the loop (the last) and those for inference, or `None` where there is only one.

    Args:
        available: Cores this process may use; asked of the operating system when `None`.
    """
    if available is None:
        if not hasattr(os, "sched_getaffinity"):  # not Linux
            return None
        available = sorted(os.sched_getaffinity(0))
    return ([available[-1]], list(available[:-1])) if len(available) > 1 else None
