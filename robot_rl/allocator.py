"""Memory that numeric loops free and ask for again, at every update."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Have the process keep what it frees, up to blocks of 1 GiB, and return whether that could be asked for.

    By default glibc hands the large intermediates of a batch back to the system and takes them anew, a page fault for
    every 4 KiB: 7 % of the time of an update of two critics of 256x256 (docs/rl.md). Other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(_M_MMAP_THRESHOLD, _BYTES), mallopt(_M_TRIM_THRESHOLD, _BYTES)])
