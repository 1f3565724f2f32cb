"""Takes away what killed processes left in /dev/shm. Needs no ROS."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
_YOUNG_S = 10.0  # Fast DDS makes the lock file a moment before it takes the lock


def remove_orphans(folder: Path = SHARED_MEMORY, *, older_than_s: float = _YOUNG_S) -> int:
    """Remove Fast DDS segments whose owner is gone, and return how many bytes that gave back.

    A participant holds a lock on `<segment>_el` for as long as it lives; kill -9 leaves 17 MB each behind.

    Args:
        folder: Where segments lie.
        older_than_s: Younger ones are left alone.
    """
    freed = 0
    for lock in folder.glob("fastdds_*_el"):
        segment = lock.with_name(lock.name.removesuffix("_el"))
        if "_port" in lock.name or not is_orphan(lock, older_than_s=older_than_s):
            continue
        if segment.exists():
            freed += segment.stat().st_size
        for path in (segment, lock):
            path.unlink(missing_ok=True)
    return freed


def is_orphan(lock: Path, *, older_than_s: float) -> bool:
    """Return whether nobody holds this lock file, and it is not so young that its owner may just be about to."""
    try:
        if time.time() - lock.stat().st_mtime < older_than_s:
            return False
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError, PermissionError):  # alive, just ended, or another user's
        return False
    return True
