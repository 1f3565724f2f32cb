"""Ask the operating system to run the calling thread before ordinary ones, and on cores of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

REALTIME_PRIORITY = 20
"""Of SCHED_FIFO, 1 to 99: above every ordinary thread, below what drivers and the kernel's own work commonly use."""


def request_realtime() -> str:
    """Put the calling thread under SCHED_FIFO and return "", or why that was refused.

    It needs CAP_SYS_NICE or an `rtprio` limit (/etc/security/limits.d) of at least `REALTIME_PRIORITY`. Threads that
    the calling one starts later are ordinary again.
    """
    if not hasattr(os, "sched_setscheduler"):  # not Linux
        return "this operating system has no SCHED_FIFO"
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(REALTIME_PRIORITY))
    except OSError as error:
        return f"SCHED_FIFO at priority {REALTIME_PRIORITY} was refused ({error.strerror}); see docs/ros.md"
    return ""


@contextmanager
def realtime() -> Iterator[str]:
    """Run the calling thread under SCHED_FIFO until the end; gives "", or why that was refused."""
    before = (os.sched_getscheduler(0), os.sched_getparam(0)) if hasattr(os, "sched_getscheduler") else None
    refused = request_realtime()
    try:
        yield refused
    finally:
        if before is not None and not refused:
            policy, parameters = before
            os.sched_setscheduler(0, policy | os.SCHED_RESET_ON_FORK, parameters)  # only root may take the flag back


@contextmanager
def pin(cores: Sequence[int]) -> Iterator[str]:
    """Keep the calling thread, and those it starts, on some cores until the end; gives "", or why that was refused."""
    if not hasattr(os, "sched_setaffinity"):  # not Linux
        yield "this operating system cannot pin threads to cores"
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, ValueError) as error:
        yield f"pinning to core {', '.join(map(str, cores))} of {sorted(before)} was refused ({error})"
        return
    try:
        yield ""
    finally:
        os.sched_setaffinity(0, before)
