"""Latency statistics in bounded memory: a logarithmic histogram with exact count, mean, minimum and maximum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from robot_rl.errors import ConfigError

_LOWEST_NS = 1_000
_DECADES = 8
_PER_DECADE = 100
_N_BUCKETS = _DECADES * _PER_DECADE + 1


class LatencyHistogram:
    """Durations from 1 us to 100 s in buckets 2.3 % wide; shorter and longer ones fall into the end buckets.

    A loop may run for days, so nothing is kept per sample. Percentiles are a bucket's upper edge, at most 2.3 % too
    long and never longer than the true maximum.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_N_BUCKETS, dtype=np.int64)
        self._sum_ns = 0
        self.min_ns = 0
        self.max_ns = 0

    @property
    def count(self) -> int:
        """Number of durations recorded."""
        return int(self._counts.sum())

    @property
    def mean_ns(self) -> float:
        """Mean in nanoseconds; NaN when nothing was recorded."""
        return self._sum_ns / self.count if self.count else math.nan

    def record(self, duration_ns: int) -> None:
        """Add one duration; a negative one (an early wake-up) counts as zero."""
        value = max(int(duration_ns), 0)
        index = 0 if value <= _LOWEST_NS else math.ceil(math.log10(value / _LOWEST_NS) * _PER_DECADE - 1e-9)
        first = self.count == 0
        self._counts[min(index, _N_BUCKETS - 1)] += 1
        self._sum_ns += value
        self.min_ns = value if first else min(self.min_ns, value)
        self.max_ns = max(self.max_ns, value)

    def add(self, other: LatencyHistogram) -> None:
        """Take over everything another histogram recorded."""
        if other.count:
            self.min_ns = other.min_ns if self.count == 0 else min(self.min_ns, other.min_ns)
            self.max_ns = max(self.max_ns, other.max_ns)
            self._counts += other._counts
            self._sum_ns += other._sum_ns

    def percentile_ns(self, percent: float) -> float:
        """Return the duration that `percent` of the samples do not exceed; NaN when nothing was recorded.

        Raises:
            ConfigError: `percent` is outside 0..100.
        """
        if not 0 <= percent <= 100:
            raise ConfigError(f"`percent` must be in 0..100, got {percent}")
        if self.count == 0:
            return math.nan
        rank = max(1, math.ceil(self.count * percent / 100))
        index = int(np.searchsorted(np.cumsum(self._counts), rank))
        if index == _N_BUCKETS - 1:
            return float(self.max_ns)
        return float(np.clip(_upper_edges_ns()[index], self.min_ns, self.max_ns))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values in milliseconds: the summary, and `edges_ms` and `counts` of filled buckets."""
        counts = self._counts.copy()  # another thread may be recording, and flatnonzero refuses an array that changes
        filled = np.flatnonzero(counts)
        empty = self.count == 0
        summary = {
            "count": self.count,
            "mean_ms": None if empty else self.mean_ns / 1e6,
            "p50_ms": None if empty else self.percentile_ns(50) / 1e6,
            "p99_ms": None if empty else self.percentile_ns(99) / 1e6,
            "max_ms": None if empty else self.max_ns / 1e6,
        }
        edges = _upper_edges_ns()[filled] / 1e6
        return {**summary, "edges_ms": edges.tolist(), "counts": counts[filled].tolist()}


def _upper_edges_ns() -> np.ndarray:
    """Return each bucket's upper edge [_N_BUCKETS]."""
    return np.asarray(_LOWEST_NS * 10.0 ** (np.arange(_N_BUCKETS) / _PER_DECADE))
