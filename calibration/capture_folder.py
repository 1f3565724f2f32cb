"""The folder that a capture session writes: pictures as they came, and what the arm said, as `calibrate` reads it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from robot_rl.errors import CalibrationError

PICTURES, STAMPS, POSES, JOINTS = "pictures", "stamps.csv", "poses.csv", "joints.csv"
_POSE_COLUMNS = ("x", "y", "z", "qx", "qy", "qz", "qw")


@dataclass(frozen=True)
class Entry:
    """One view: the picture's name and stamp, the tool's pose [7] and the joints [J] where they are known."""

    name: str
    stamp_ns: int
    pose: np.ndarray | None
    joints: np.ndarray | None


class CaptureFolder:
    """Pictures as PNG in `pictures/`; `stamps.csv`, `poses.csv` and `joints.csv` beside them, with a row per picture.

    Args:
        path: The folder; it is made. One that holds pictures already is refused: a calibration holds for one camera at
            one setting.

    Raises:
        CalibrationError: There are pictures in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.pictures = self.path / PICTURES
        if self.pictures.is_dir() and any(self.pictures.iterdir()):
            raise CalibrationError(f"{self.pictures} holds pictures already; give a folder of its own to each session")
        self.pictures.mkdir(parents=True, exist_ok=True)
        self._entries: list[Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    def next_name(self) -> str:
        """Return the name that the next picture gets."""
        return f"view_{len(self._entries):03d}.png"

    def add(self, picture: np.ndarray, stamp_ns: int, *, pose: np.ndarray | None, joints: np.ndarray | None) -> Entry:
        """Write a view.

        Args:
            picture: uint8 [H, W, 3], RGB, or [H, W].
            stamp_ns: When it was taken.
            pose: Position [m] and quaternion x y z w of the tool in the base's frame, [7].
            joints: Angles [rad], [J].

        Raises:
            CalibrationError: The picture cannot be written.
        """
        entry = Entry(self.next_name(), stamp_ns, pose, joints)
        coded = picture if picture.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR)
        done, data = cv2.imencode(".png", coded)
        if not done:
            raise CalibrationError(f"a picture of {picture.dtype}{picture.shape} cannot be written as PNG")
        _replace(self.pictures / entry.name, data.tobytes())
        self._entries.append(entry)
        self._write_tables()
        return entry

    def remove_last(self) -> Entry:
        """Delete the newest view.

        Raises:
            CalibrationError: There is none.
        """
        if not self._entries:
            raise CalibrationError("no view was taken yet, so there is none to discard")
        entry = self._entries.pop()
        (self.pictures / entry.name).unlink()
        self._write_tables()
        return entry

    def _write_tables(self) -> None:
        rows = [(e.name, e.stamp_ns) for e in self._entries]
        _write_csv(self.path / STAMPS, ("image", "stamp_ns"), rows)
        posed = [(e.name, e.stamp_ns, *e.pose.tolist()) for e in self._entries if e.pose is not None]
        _write_csv(self.path / POSES, ("image", "stamp_ns", *_POSE_COLUMNS), posed)
        jointed = [(e.name, *e.joints.tolist()) for e in self._entries if e.joints is not None]
        columns = [f"q{i + 1}" for i in range(len(jointed[0]) - 1)] if jointed else []
        _write_csv(self.path / JOINTS, ("image", *columns), jointed)


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table, or remove it where it has no rows."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    _replace(path, text.getvalue().encode())


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    os.replace(part, path)
