"""Which views a calibration still lacks, and what a person has to do to get them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import cv2
import numpy as np

from calibration.boards import BoardSpec, BoardView
from robot_rl.calibration_types import Pose

PER_BIN = 2
TILT_DEG = 15.0
TURN_DEG = 15.0
NEAR_SHARE = 0.3
"""Of the picture's area, for the whole board."""
_IN_REGION = 3
_COLUMNS = ("left", "middle", "right")
_ROWS = ("upper", "middle", "lower")


def _region_name(row: str, column: str) -> str:
    return "middle" if row == column else f"{row} {column}"


_REGIONS = {
    f"region: {_region_name(row, column)}": f"move the board to the {_region_name(row, column)} of the picture"
    for row in _ROWS
    for column in _COLUMNS
}
_SIDES = ("left", "right", "upper", "lower")
_TILTS = {
    "tilt: facing": "hold the board square to the camera",
    **{f"tilt: {side}": f"tilt more: bring the {side} side of the board {TILT_DEG:g} to 45 deg nearer"
       for side in _SIDES},
}  # fmt: skip
_DISTANCES = {
    "distance: near": f"come closer: the board should fill {100 * NEAR_SHARE:g} % of the picture",
    "distance: far": "go farther away",
}
_TURNS = {
    f"turn: {sign}{axis}": f"turn the tool by {TURN_DEG:g} deg or more about its {axis} axis, {way} way"
    for axis in "xyz"
    for sign, way in (("+", "the positive"), ("-", "the negative"))
}
INTRINSICS_BINS: Mapping[str, str] = {**_REGIONS, **_TILTS, **_DISTANCES}
"""Regions of the picture, tilts and distances of the board: from bin to what fills it."""
HAND_EYE_BINS: Mapping[str, str] = {**_TURNS, **_DISTANCES}
"""Turns of the tool against the first view, both ways about each axis, and distances of the board."""


class Coverage:
    """Counts views per bin.

    Args:
        bins: From bin to what a person does to fill it.
        per_bin: How many views fill one.
    """

    def __init__(self, bins: Mapping[str, str], *, per_bin: int = PER_BIN) -> None:
        self._bins, self._per_bin = bins, per_bin
        self._counts: Counter[str] = Counter()

    def add(self, bins: Iterable[str]) -> None:
        """Count a view that was taken."""
        self._counts.update(list(bins))

    def remove(self, bins: Iterable[str]) -> None:
        """Count it no more."""
        self._counts.subtract(list(bins))

    @property
    def counts(self) -> dict[str, int]:
        """Views of every bin."""
        return {name: self._counts[name] for name in self._bins}

    @property
    def missing(self) -> list[str]:
        """Bins that are not filled, the emptiest first."""
        lacking = [name for name in self._bins if self._counts[name] < self._per_bin]
        return sorted(lacking, key=lambda name: self._counts[name])

    def suggestions(self) -> list[str]:
        """Return what to do next: of each kind of bin, what fills the emptiest."""
        emptiest: dict[str, str] = {}
        for name in self.missing:
            emptiest.setdefault(name.split(":")[0], self._bins[name])
        return list(emptiest.values())


def board_bins(view: BoardView, board: BoardSpec, T_camera_board: Pose) -> set[str]:
    """Return the bins of `INTRINSICS_BINS` that a view falls into: every region that holds corners, a tilt, a distance.

    Args:
        view: The view.
        board: The board.
        T_camera_board: Where it is; a rough camera is enough for it.
    """
    columns, rows = (np.clip((3 * view.corners / view.size).astype(int), 0, 2)).T
    held = Counter(zip(rows.tolist(), columns.tolist(), strict=True))
    regions = {
        f"region: {_region_name(_ROWS[row], _COLUMNS[column])}"
        for (row, column), count in held.items()
        if count >= _IN_REGION
    }
    return {*regions, _tilt(T_camera_board), distance_bin(view, board)}


def distance_bin(view: BoardView, board: BoardSpec) -> str:
    """Return `distance: near` or `distance: far`, by how much of the picture the whole board takes."""
    to_picture, _ = cv2.findHomography(view.board_points[:, :2], view.corners)
    width, height = board.size_m
    outline = np.array([[[0.0, 0.0]], [[width, 0.0]], [[width, height]], [[0.0, height]]])
    x, y = cv2.perspectiveTransform(outline, to_picture).reshape(4, 2).T
    area = 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))
    return "distance: near" if area >= NEAR_SHARE * view.size[0] * view.size[1] else "distance: far"


def turn_bins(T_base_first: Pose, T_base_tool: Pose) -> set[str]:
    """Return the bins of turns that a tool pose falls into, against the first view's."""
    turn = np.degrees((T_base_first.inverse() @ T_base_tool).rotation_vector)
    return {f"turn: {'+' if value > 0 else '-'}{axis}" for axis, value in zip("xyz", turn, strict=True)
            if abs(value) >= TURN_DEG}  # fmt: skip


def _tilt(T_camera_board: Pose) -> str:
    """The board's z points away from the camera; where it leans to, that side is nearer."""
    x, y, z = T_camera_board.rotation[:, 2]
    if np.degrees(np.arccos(np.clip(z, -1.0, 1.0))) < TILT_DEG:
        return "tilt: facing"
    sideways = ("right" if x > 0 else "left") if abs(x) >= abs(y) else ("lower" if y > 0 else "upper")
    return f"tilt: {sideways}"
