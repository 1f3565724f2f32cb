"""The few file operations that a crash-safe store rests on. POSIX: flock, O_APPEND, rename within one folder tree."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robot_rl.errors import StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_all(fd: int, data: bytes | memoryview, path: Path) -> None:
    """Write every byte of `data`, unbuffered.

    Raises:
        StoreError: The disk (or the quota) is full; says how much was needed and how much is free.
    """
    view = memoryview(data).cast("B")
    needed = len(view)
    while len(view):
        try:
            view = view[os.write(fd, view) :]
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise disk_full(path, needed, error) from error


def disk_full(path: Path, needed: int, error: OSError) -> StoreError:
    """Return the error for a full disk."""
    stat = os.statvfs(path.parent)
    free = stat.f_bavail * stat.f_frsize
    return StoreError(
        f"disk full writing {path}: {needed} more bytes were needed, {free} are free ({error.strerror}); "
        "episodes saved earlier are intact, and what was recorded of this one stays in staging and is salvaged "
        "when the store is next opened; free some space"
    )


def fsync_dir(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_new(path: Path, data: bytes, *, sync: bool = False, mode: int = 0o644) -> None:
    """Write a file that nobody reads yet.

    Raises:
        StoreError: The disk is full.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        write_all(fd, data, path)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file so that a reader sees the old or the new content, also after a power cut.

    Args:
        path: The file.
        data: Its new content.
        mode: Who may read it, from the first moment on.

    Raises:
        StoreError: The disk is full; the old file stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_new(temporary, data, sync=True, mode=mode)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_dir(path.parent)


def to_json(value: Any) -> bytes:
    """Return compact JSON that is the same for equal values.

    Raises:
        StoreError: Something in it is not plain JSON.
    """
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise StoreError(f"only plain JSON can be stored (numbers, strings, lists, maps): {error}") from error


def from_json(data: bytes | bytearray, what: str) -> dict[str, Any]:
    """Return the JSON object in `data`.

    Raises:
        StoreError: It is not one; names `what`.
    """
    try:
        value = json.loads(data)
    except ValueError as error:
        raise StoreError(f"{what} is not JSON ({error}); it was cut short or edited") from error
    if not isinstance(value, dict):
        raise StoreError(f"{what} must hold a JSON object, got {type(value).__name__}")
    return value


@contextlib.contextmanager
def locked(fd: int) -> Iterator[None]:
    """Hold the advisory lock of an open file."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def try_lock(fd: int) -> bool:
    """Take the advisory lock of an open file if nobody holds it; it is freed when the file is closed."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
