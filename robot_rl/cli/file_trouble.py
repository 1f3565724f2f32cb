"""A file or folder that cannot be used, in words: which one, why, and by which key another is chosen."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence

OF_THE_PLACE = frozenset(
    {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR}
)
"""What can be wrong with a place that the user chose."""
OUTPUT: Mapping[str, str] = {
    "demo": "out", "collect": "store", "import": "store", "export": "target", "import-bag": "store",
    "export-bag": "bag", "view": "view.save", "report": "store_report.out", "check": "check.out", "mend": "store",
    "train": "run", "finetune": "finetune.out", "distill": "distill.out", "reward": "reward.out", "package": "bundle",
    "evaluate": "evaluate.out", "validate": "validate.out", "ab": "ab.out", "compose": "compose.out",
    "loop": "loop.out", "calibrate": "calibrate.out", "doctor": "out",
}  # fmt: skip
"""Command to the key of what it writes."""


def explain(error: OSError, command: str, arguments: Sequence[str]) -> str | None:
    """Return what to tell the user, or `None` where the error may be a fault of the program.

    A file that does not exist is the user's only if it is one of the arguments.

    Args:
        error: What escaped the command.
        command: The command.
        arguments: What followed it, `key=value`.
    """
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return None
    path = os.fsdecode(error.filename)
    if error.errno == errno.ENOENT:
        keys = [key for key, _, value in (item.partition("=") for item in arguments) if _same(value, path)]
        return f"there is no file or folder {path}; give one that exists as `{keys[0]}`" if keys else None
    if error.errno not in OF_THE_PLACE:
        return None
    key = OUTPUT.get(command, "out")
    other = f"`{key}=<path>`" if key == "out" else f"`{key}=<path>`, or every output with `out=<folder>`"
    return f"cannot use {path}: {error.strerror}; mend that, or choose another place with {other}"


def _same(given: str, path: str) -> bool:
    return given != "" and os.path.abspath(given) == os.path.abspath(path)
