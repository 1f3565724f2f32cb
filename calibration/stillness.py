"""Did it hold still? From the last corners of the board, and from the last poses of the arm."""

from __future__ import annotations

from collections import deque

import numpy as np
from scipy.spatial.transform import Rotation

from calibration.boards import BoardView

_KEEP_NS = 3_000_000_000


class CornerHistory:
    """The last views of the board, for how far its corners moved in the picture."""

    def __init__(self) -> None:
        self._views: deque[tuple[int, BoardView]] = deque()

    def add(self, stamp_ns: int, view: BoardView | None) -> None:
        """Take the view of the newest picture; `None`, or a clock that went back, begins anew."""
        if view is None or (self._views and stamp_ns <= self._views[-1][0]):
            self._views.clear()
        if view is not None:
            self._views.append((stamp_ns, view))
        while self._views and stamp_ns - self._views[0][0] > _KEEP_NS:
            self._views.popleft()

    def moved_px(self, within_ns: int) -> float | None:
        """Return how far corners moved in the time before the newest view, median over corners of the largest move.

        `None` while the views do not reach back that far, or share no corner. The last view before that time counts
        too, so that a slow camera does not seem to stand still.
        """
        newest_ns, newest = self._views[-1] if self._views else (0, None)
        if newest is None or newest_ns - self._views[0][0] < within_ns:
            return None
        moves = np.zeros(len(newest.ids))
        for stamp_ns, view in reversed(self._views):
            distance = corner_distances(newest, view)
            if not np.isfinite(distance).any():
                return None
            moves = np.fmax(moves, distance)
            if newest_ns - stamp_ns >= within_ns:
                break
        return float(np.median(moves))


def corner_distances(view: BoardView, other: BoardView) -> np.ndarray:
    """Return how far apart each corner of `view` is in the other one [px], NaN for those it does not show, [K]."""
    places = {int(number): place for number, place in zip(other.ids, other.corners, strict=True)}
    nowhere = np.full(2, np.nan)
    there = np.stack([places.get(int(number), nowhere) for number in view.ids])
    return np.asarray(np.linalg.norm(view.corners - there, axis=1))


class StampedRows:
    """The last rows of a stream: tool poses [7] (position [m], quaternion x y z w), or joints."""

    def __init__(self) -> None:
        self._rows: deque[tuple[int, np.ndarray]] = deque()

    def add(self, stamp_ns: int, row: np.ndarray) -> None:
        """Take a row; a clock that went back begins anew."""
        if self._rows and stamp_ns < self._rows[-1][0]:
            self._rows.clear()
        self._rows.append((stamp_ns, np.asarray(row, np.float64)))
        while stamp_ns - self._rows[0][0] > _KEEP_NS:
            self._rows.popleft()

    def nearest(self, stamp_ns: int, within_ns: int) -> np.ndarray | None:
        """Return the row nearest in time, or `None` where none is within `within_ns`."""
        if not self._rows:
            return None
        when, row = min(self._rows, key=lambda pair: abs(pair[0] - stamp_ns))
        return row if abs(when - stamp_ns) <= within_ns else None

    def between(self, start_ns: int, end_ns: int) -> np.ndarray:
        """Return the rows of a time, [N, ...]."""
        return np.array([row for when, row in self._rows if start_ns <= when <= end_ns])


def poses_apart(pose: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far other poses [N, 7] are from a pose [7]: distances [N] [m], turns [N] [rad]."""
    turns = Rotation.from_quat(others[:, 3:]) * Rotation.from_quat(pose[3:]).inv()
    return np.linalg.norm(others[:, :3] - pose[:3], axis=1), np.asarray(turns.magnitude())
