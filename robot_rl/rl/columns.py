"""Columns of a growing replay: numbers in memory that grow by doubling, pictures left compressed until asked for."""

from __future__ import annotations

import bisect

import numpy as np

from robot_rl.values import Rows

_FIRST_ROWS = 1024


class NumberColumn:
    """Rows of one low-dimensional signal in one array.

    Args:
        shape: Shape of a row.
        dtype: What rows are kept as.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._data = np.empty((_FIRST_ROWS, *shape), dtype)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def append(self, rows: np.ndarray) -> None:
        """Add rows [M, ...] at the end."""
        needed = self._n + len(rows)
        if needed > len(self._data):
            grown = np.empty((max(needed, 2 * len(self._data)), *self._data.shape[1:]), self._data.dtype)
            grown[: self._n] = self._data[: self._n]
            self._data = grown
        self._data[self._n : needed] = rows
        self._n = needed

    def take(self, index: np.ndarray) -> np.ndarray:
        """Return rows by index, [*index.shape, ...]."""
        taken: np.ndarray = self._data[: self._n][index]
        return taken


class PictureColumn:
    """Rows of one camera, each episode's left where and as it is stored; decoded when taken.

    Args:
        shape: Height, width, channels.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._starts: list[int] = []
        self._parts: list[tuple[Rows, np.ndarray]] = []  # an episode's rows, and the final one
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def append_episode(self, rows: Rows, final: np.ndarray) -> None:
        """Add an episode's pictures and the one after its last action."""
        self._starts.append(self._n)
        self._parts.append((rows, final))
        self._n += len(rows) + 1

    def take(self, index: np.ndarray) -> np.ndarray:
        """Return pictures by index, uint8 [*index.shape, H, W, C]; each is decoded once however often it is asked."""
        flat = index.reshape(-1)
        wanted, where = np.unique(flat, return_inverse=True)
        decoded = np.empty((len(wanted), *self._shape), np.uint8)
        at = 0
        while at < len(wanted):
            part = bisect.bisect_right(self._starts, int(wanted[at])) - 1
            rows, final = self._parts[part]
            end = int(np.searchsorted(wanted, self._starts[part] + len(rows) + 1))
            local = wanted[at:end] - self._starts[part]
            inside = local < len(rows)
            if inside.any():
                decoded[at:end][inside] = rows[local[inside]]
            decoded[at:end][~inside] = final
            at = end
        taken: np.ndarray = decoded[where].reshape(*index.shape, *self._shape)
        return taken
