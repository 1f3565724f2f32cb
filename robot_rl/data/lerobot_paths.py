"""Where the files of a LeRobot data set lie: the templates of info.json, kept inside the data set's folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from robot_rl.data.foreign import Findings

_POINTER = b"version https://git-lfs"


class PathTemplate:
    """A path template, with the format's standard one to fall back on where it leads nowhere.

    Args:
        root: The data set's folder.
        key: `data_path` or `video_path`.
        given: What info.json says.
        standard: What the format's version prescribes.
        findings: Takes what is wrong with the template.
    """

    def __init__(self, root: Path, key: str, given: str, standard: str, findings: Findings) -> None:
        self._root, self._key, self._given, self._standard, self._findings = root, key, given, standard, findings

    def place(self, **fields: Any) -> str:
        """Return a file's path in the data set's folder; where no such file is, the path it should have."""
        given = self._fill(self._given, fields)
        standard = self._fill(self._standard, fields)
        if given is None:
            self._note("cannot be filled in" if _inside(self._given) else "leads out of the data set's folder")
            return standard if standard is not None else self._standard
        if given != standard and not (self._root / given).exists() and standard and (self._root / standard).exists():
            self._note("names files that are not there")
            return standard
        return given

    def _fill(self, template: str, fields: dict[str, Any]) -> str | None:
        try:
            path = template.format(**fields)
        except (KeyError, IndexError, ValueError, AttributeError):
            return None
        return path if _inside(path) else None

    def _note(self, what: str) -> None:
        self._findings.add(
            "warning", "meta/info.json", f"{self._key} {self._given!r} {what}",
            f"files are looked for at {self._standard!r}",
        )  # fmt: skip


def _inside(path: str) -> bool:
    """Whether a path stays in the folder that it is relative to."""
    return not (
        PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive or ".." in PurePosixPath(path).parts
    )  # fmt: skip


def inside(root: Path, path: str) -> Path | None:
    """Return `root / path`, or `None` where `path` is absolute or leads out of `root`."""
    return root / path if _inside(path) else None


def is_pointer(path: Path) -> bool:
    """Whether a file is only Git LFS's note of where the real one is."""
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER
