"""One recorder per robot: a lock file in the store that the kernel frees with its holder, however that one ends."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path

from robot_rl.data.files import try_lock
from robot_rl.errors import RecordingError


class RecorderLock:
    """Held from construction to `release`.

    Args:
        store_url: The store.
        robot: The robot's name.
        holder: Who holds it, for the message that another one gets.

    Raises:
        RecordingError: Another process records this robot into this store; says which.
    """

    def __init__(self, store_url: str, robot: str, *, holder: str) -> None:
        local = Path(store_url)
        name = f"recorder-{re.sub(r'[^A-Za-z0-9_.-]', '_', robot)}"
        if local.is_dir():
            path = local / f"{name}.lock"
        else:
            # Behind a URL there are no locks; two recorders on one machine still see each other.
            path = Path(tempfile.gettempdir()) / f"{name}-{hashlib.sha256(store_url.encode()).hexdigest()[:12]}.lock"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not try_lock(self._fd):
            other = os.pread(self._fd, 4096, 0).decode(errors="replace")
            os.close(self._fd)
            raise RecordingError(
                f"robot `{robot}` is already being recorded into {store_url} by {_words(other)}; there is one recorder "
                "per robot: stop that one, or give this one another store"
            )
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps({"pid": os.getpid(), "holder": holder}).encode(), 0)

    def release(self) -> None:
        """Let others record. Calling it twice does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _words(document: str) -> str:
    try:
        about = json.loads(document)
        return f"{about['holder']} (process {about['pid']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
