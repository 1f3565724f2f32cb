"""The control clock of imported data: stamps from row numbers."""

from __future__ import annotations

import numpy as np


def grid_ns(n: int, control_hz: float) -> np.ndarray:
    """Return the stamps of `n` ticks of a clock that starts at zero, int64 [n]; each is rounded, so none drifts."""
    return np.array([round(i * 1e9 / control_hz) for i in range(n)], np.int64)
