"""Who may change a local store, and when: two lock files that the kernel frees with their holders.

`store.lock` is held for moments: shared by whoever publishes, deletes or relabels one episode, alone by a transaction
while it moves many. `mend.lock` is held by the one who mends, from the first byte it stages to the last.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robot_rl.data import layout
from robot_rl.data.files import try_lock
from robot_rl.errors import StoreError


@contextmanager
def changing(root: Path, *, alone: bool = False) -> Iterator[None]:
    """Hold the store's lock, waiting for it; `alone` keeps everybody else from changing anything."""
    fd = os.open(root / layout.STORE_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


@contextmanager
def mending(root: Path) -> Iterator[None]:
    """Be the only one who mends the store.

    Raises:
        StoreError: Another process mends it now.
    """
    fd = os.open(root / layout.MEND_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not try_lock(fd):
            raise StoreError(f"another process mends the store {root}; wait until it has ended, then try again")
        yield
    finally:
        os.close(fd)


def recorders(root: Path) -> list[str]:
    """Return the names of the recorder locks that somebody holds."""
    held = []
    for path in sorted(root.glob("recorder-*.lock")):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if not try_lock(fd):
                held.append(path.stem)
        finally:
            os.close(fd)
    return held
