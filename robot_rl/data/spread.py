"""The spread of a signed duration in bounded memory."""

from __future__ import annotations

import numpy as np

_EDGES = np.concatenate([-(10.0 ** np.linspace(10, 3, 281)), [0.0], 10.0 ** np.linspace(3, 10, 281)])


class Spread:
    """Counts of signed durations between 1 us and 10 s in buckets 6 % wide; percentiles are a bucket's upper edge."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(_EDGES) + 1, np.int64)
        self.max_ns: int | None = None

    def add(self, durations_ns: np.ndarray) -> None:
        """Count durations, int64 [M] in nanoseconds."""
        if len(durations_ns) == 0:
            return
        self._counts += np.bincount(np.searchsorted(_EDGES, durations_ns), minlength=len(self._counts))
        top = int(durations_ns.max())
        self.max_ns = top if self.max_ns is None else max(self.max_ns, top)

    def percentile_ms(self, percent: float) -> float | None:
        """Return the duration that `percent` of the samples do not exceed, in milliseconds; `None` without samples."""
        total = int(self._counts.sum())
        if total == 0 or self.max_ns is None:
            return None
        index = int(np.searchsorted(np.cumsum(self._counts), total * percent / 100.0))
        upper = _EDGES[index] if index < len(_EDGES) else np.inf
        return round(float(min(upper, self.max_ns)) / 1e6, 3)
