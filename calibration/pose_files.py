"""Poses, joint angles, points and signals as people have them: a folder of 4 x 4 text files, or one CSV with a header.

CSV columns: `image` (name of the picture) and `stamp_ns` where they apply; a pose is `x, y, z, qx, qy, qz, qw`, so that
the order of a quaternion is never in doubt; joints are `q1, q2, ...`; points `x, y, z`; of a signal, all other columns.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot_rl.calibration_types import Pose
from robot_rl.errors import CalibrationError, RobotRLError

UNITS: Mapping[str, float] = {"m": 1.0, "mm": 1e-3}
_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")


@dataclass(frozen=True)
class PoseTable:
    """Poses by name of the picture, or by number; `stamp_ns` int64 [N] where the file has it."""

    names: Sequence[str]
    poses: Sequence[Pose]
    stamp_ns: np.ndarray | None = None


def read_poses(path: str | Path, *, unit: str = "m", pattern: str = "*.txt") -> PoseTable:
    """Read poses.

    Args:
        path: A CSV file, or a folder with one file per pose: 4 x 4 numbers in text, or `.npz` with `rvec` and `tvec`.
        unit: Of the positions, `m` or `mm`.
        pattern: Which files of the folder.

    Raises:
        CalibrationError: Nothing there, or a file that is not a pose; names it.
    """
    if unit not in UNITS:
        raise CalibrationError(f"`unit` of poses must be one of {sorted(UNITS)}, got {unit!r}")
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.glob(pattern) if file.is_file())
        if not files:
            raise CalibrationError(f"{path} holds no file `{pattern}`; give the pattern of the pose files")
        return PoseTable([file.name for file in files], [_one_pose(file, UNITS[unit]) for file in files])
    columns, rows = read_csv(path)
    lacking = [name for name in _POSE if name not in columns]
    if lacking:
        raise CalibrationError(
            f"{path} lacks columns {lacking}; a pose is x, y, z, qx, qy, qz, qw in a CSV with a header, it has "
            f"{columns}"
        )
    poses = []
    for number, row in enumerate(rows):
        values = np.array([float(row[name]) for name in _POSE])
        try:
            poses.append(Pose.from_quaternion(values[3:], values[:3] * UNITS[unit]))
        except RobotRLError as error:
            raise CalibrationError(f"{path}, row {number + 1}: {error}") from error
    names = [row.get("image", str(number)) for number, row in enumerate(rows)]
    return PoseTable(names, poses, stamps_of(columns, rows))


def read_csv(path: str | Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the header and the rows of a CSV file.

    Raises:
        CalibrationError: No such file, no rows, or a row of another length.
    """
    path = Path(path)
    if not path.is_file():
        raise CalibrationError(f"no file or folder at {path}")
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream, skipinitialspace=True)
        rows = list(reader)
    columns = [name.strip() for name in reader.fieldnames] if reader.fieldnames else []
    broken = [i + 1 for i, row in enumerate(rows) if None in row or None in row.values()]
    if not rows or broken:
        what = f"rows {broken[:3]} have another number of values than the header" if broken else "it has no rows"
        raise CalibrationError(f"{path} is not a CSV file with a header: {what}")
    return columns, rows


def read_numbers(
    path: str | Path, columns: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Return numbers [N, C], stamps [N] and picture names of a CSV file.

    Args:
        path: The file.
        columns: Which columns; all but `image` and `stamp_ns` when not given.

    Raises:
        CalibrationError: As `read_csv`, or a column that is missing or not numbers.
    """
    header, rows = read_csv(path)
    wanted = [name for name in header if name not in ("image", "stamp_ns")] if columns is None else list(columns)
    lacking = [name for name in wanted if name not in header]
    if lacking or not wanted:
        raise CalibrationError(f"{path} lacks columns {lacking}; it has {header}")
    try:
        numbers = np.array([[float(row[name]) for name in wanted] for row in rows])
    except ValueError as error:
        raise CalibrationError(f"{path}: a value in columns {wanted} is not a number: {error}") from error
    return numbers, stamps_of(header, rows), [row.get("image", str(i)) for i, row in enumerate(rows)]


def stamps_of(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> np.ndarray | None:
    """Return column `stamp_ns` as int64 [N], if there is one."""
    return np.array([int(row["stamp_ns"]) for row in rows], np.int64) if "stamp_ns" in columns else None


def match(names: Sequence[str], wanted: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs (row in `names`, row in `wanted`) of the same file stem or, failing that, the same last number.

    Raises:
        CalibrationError: Nothing matches, or a number stands twice on one side.
    """
    stems = {Path(name).stem: i for i, name in enumerate(names)}
    if all(Path(name).stem in stems for name in wanted):
        return [(stems[Path(name).stem], i) for i, name in enumerate(wanted)]
    numbered, asked = _by_number(names), _by_number(wanted)
    common = sorted(numbered.keys() & asked.keys())
    if not common:
        raise CalibrationError(
            f"no pose belongs to a picture: poses are called {list(names)[:2]}, pictures {list(wanted)[:2]}; give a "
            f"CSV "
            "column `image`, or the same number at the end of both names"
        )
    return [(numbered[number], asked[number]) for number in common]


def _by_number(names: Sequence[str]) -> dict[int, int]:
    found: dict[int, int] = {}
    for i, name in enumerate(names):
        digits = re.findall(r"\d+", Path(name).stem)
        if digits:
            if int(digits[-1]) in found:
                raise CalibrationError(
                    f"{name} and {names[found[int(digits[-1])]]} have the same number; which one is it?"
                )
            found[int(digits[-1])] = i
    return found


def _one_pose(file: Path, scale: float) -> Pose:
    """Read one pose file."""
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as data:
                return Pose.from_rotation_vector(data["rvec"], np.asarray(data["tvec"], np.float64).reshape(3) * scale)
        numbers = re.findall(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", file.read_text(encoding="utf-8"))
        matrix = np.array(numbers, np.float64)
        if matrix.size != 16:
            raise CalibrationError(f"a pose is 4 x 4 numbers, got {matrix.size}")
        matrix = matrix.reshape(4, 4)
        matrix[:3, 3] *= scale
        return Pose.from_matrix(matrix)
    except (RobotRLError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{file}: {error}") from error
