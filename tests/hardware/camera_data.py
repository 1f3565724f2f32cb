"""Identifiable pictures and a clock stepped by hand."""

from __future__ import annotations

import numpy as np

MS = 1_000_000
START_NS = 1_700_000_000_000_000_000


def pictures(n: int, height: int = 12, width: int = 16) -> np.ndarray:
    """Return uint8 [n, height, width, 3] whose red is the index and whose blue is the column."""
    out = np.zeros((n, height, width, 3), np.uint8)
    out[..., 0] = np.arange(n, dtype=np.uint8)[:, None, None]
    out[..., 2] = np.arange(width, dtype=np.uint8)
    return out


class HandClock:
    """Time passes only while somebody sleeps; `jump_ns` moves ROS time against monotonic time."""

    def __init__(self) -> None:
        self._ns = 5_000_000_000
        self._zero_ns = self._ns
        self.jump_ns = 0
        self.slept_s = 0.0

    def now_ns(self) -> int:
        return START_NS + self._ns - self._zero_ns + self.jump_ns

    def monotonic_ns(self) -> int:
        return self._ns

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept_s += seconds
        self._ns += round(seconds * 1e9)
