"""The staging area: a folder per episode being written, claimed by a lock that the kernel frees with its writer."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from robot_rl.data.files import try_lock, write_new
from robot_rl.data.layout import STAGING_FILE
from robot_rl.errors import StoreError

_STALE_S = 60.0


@dataclass
class Claim:
    """A staging folder that this process, and nobody else, may write."""

    id: str
    folder: Path
    fd: int

    def release(self) -> None:
        """Give the lock back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def remove(self) -> None:
        """Delete the folder and give the lock back."""
        shutil.rmtree(self.folder)
        self.release()


def claim_new(staging: Path, id: str, about: bytes) -> Claim:
    """Make the staging folder of a new episode; it appears with its lock already held.

    Raises:
        StoreError: An episode with this id is being written.
    """
    staging.mkdir(parents=True, exist_ok=True)
    folder, hidden = staging / id, staging / f".{id}.{os.getpid()}"
    hidden.mkdir()
    try:
        write_new(hidden / STAGING_FILE, about)
        fd = os.open(hidden / STAGING_FILE, os.O_RDWR | os.O_CLOEXEC)
        try_lock(fd)
        if folder.exists():
            os.close(fd)
            raise StoreError(f"episode {id} is already in {staging}; open the store to salvage it, or use another id")
        hidden.rename(folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return Claim(id, folder, fd)


def claim_dead(folder: Path) -> Claim | None:
    """Claim a staging folder whose writer is gone; `None` while the writer lives or when it has just been taken."""
    path = folder / STAGING_FILE
    try:
        # The file can only lack after a power cut or by hand; making it anew lets the folder be claimed all the same.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        return None
    if not try_lock(fd):
        os.close(fd)
        return None
    if not path.exists() or os.stat(path).st_ino != os.fstat(fd).st_ino:
        os.close(fd)
        return None
    return Claim(folder.name, folder, fd)


def staged(staging: Path) -> list[Path]:
    """Return the staging folders, oldest id first, and clear away those that were never begun."""
    if not staging.is_dir():
        return []
    folders = sorted(path for path in staging.iterdir() if path.is_dir())
    for path in folders:
        # A hidden folder lives for a moment while its lock is taken; an old one is of a writer killed just there.
        if path.name.startswith(".") and time.time() - path.stat().st_mtime > _STALE_S:
            shutil.rmtree(path, ignore_errors=True)
    return [path for path in folders if not path.name.startswith(".")]
