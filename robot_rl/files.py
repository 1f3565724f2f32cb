"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def replace_text(path: str | Path, text: str) -> Path:
    """Make `text` the content of a file by one rename, so that a reader or a kill finds the old or the new one whole.

    The rename is atomic; it is not flushed to the disk, so a power cut may still bring the old content back.

    Returns:
        The file's path.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, "utf-8")
    part.replace(path)
    return path
