"""Decoded pictures kept in memory while a budget lasts."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np


class FrameCache:
    """The first rows decoded stay, until the budget is full.

    Nothing is evicted: training draws rows at random, so which ones stay does not matter, and a full cache serves the
    share of requests that it has room for. A row holds the pictures of all cameras. Memory is taken as rows come.

    Args:
        n_rows: Rows there are.
        shapes: Shape of one picture by camera.
        dtypes: Its dtype by camera.
        budget: Bytes to use at most.
    """

    def __init__(
        self, n_rows: int, *, shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, np.dtype], budget: int
    ) -> None:
        row_bytes = sum(int(np.prod(shape)) * dtypes[name].itemsize for name, shape in shapes.items())
        self.capacity = min(n_rows, max(budget, 0) // row_bytes) if row_bytes else 0
        self._frames = {name: np.empty((self.capacity, *shape), dtypes[name]) for name, shape in shapes.items()}
        self._slot = np.full(n_rows if self.capacity else 0, -1, dtype=np.int64)
        self._used = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many rows are kept."""
        return self._used

    def slots(self, rows: np.ndarray) -> np.ndarray:
        """Return where each row is kept, -1 where it is not, int64 [K]."""
        return self._slot[rows] if self.capacity else np.full(len(rows), -1, dtype=np.int64)

    def take(self, name: str, slots: np.ndarray) -> np.ndarray:
        """Return the kept pictures of one camera, [K, ...]."""
        return self._frames[name].take(slots, axis=0)

    def put(self, rows: np.ndarray, frames: Mapping[str, np.ndarray]) -> None:
        """Keep pictures [K, ...] of distinct rows [K] as far as there is room."""
        if self._used == self.capacity:
            return
        with self._lock:
            new = np.flatnonzero(self._slot[rows] < 0)[: self.capacity - self._used]
            slots = self._used + np.arange(len(new))
            for name, kept in self._frames.items():
                kept[slots] = frames[name][new]
            self._slot[rows[new]] = slots
            self._used += len(new)
