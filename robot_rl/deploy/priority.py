"""Ask the operating system to run the calling thread before ordinary ones."""

from __future__ import annotations

import os

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
