"""How predictions for the same instant, made at different times, become one action.

Temporal ensembling is ACT's (Zhao et al. 2023, arXiv 2304.13705, algorithm 2): a_t = sum_i w_i p_i / sum_i w_i with
w_i = exp(-m i), i = 0 the oldest prediction. The original takes an all-zero row for "no prediction"; here a count and a
mask say so. The aggregates are LeRobot's asynchronous client's: what is queued and what is new, by fixed weights.

Both are weighted means, so that between two ways round an obstacle they go through it; and a mean of rotations in the
six-number form is a rotation only after it is orthonormalised again, which the controller does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from robot_rl.errors import ConfigError

AGGREGATES: dict[str, float] = {"weighted_average": 0.7, "latest_only": 1.0, "average": 0.5, "conservative": 0.3}
"""Weight of the new prediction."""


@runtime_checkable
class Combine(Protocol):
    """Joins new predictions with what is planned for the same instants."""

    def __call__(self, old: np.ndarray, count: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Return the joined rows [R, A]; `old` [R, A] stands for `count` [R] predictions, at least one."""


@dataclass(frozen=True)
class TemporalEnsemble:
    """ACT's exponential weights, kept up online: the running mean of all predictions for an instant.

    Args:
        decay: m; 0 weighs all alike, larger ones favour the oldest prediction.

    Raises:
        ConfigError: A negative `decay`.
    """

    decay: float = 0.01

    def __post_init__(self) -> None:
        if not self.decay >= 0:
            raise ConfigError(f"`decay` must be 0 or more, got {self.decay}")

    def __call__(self, old: np.ndarray, count: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Return the mean of `count` + 1 predictions."""
        n = np.asarray(count, dtype=np.float64)[:, None]
        weight = np.exp(-self.decay * n)
        m = max(self.decay, np.finfo(np.float64).tiny)
        before = np.expm1(-m * n) / np.expm1(-m)  # sum of exp(-m i) over i < n
        return np.asarray((before * old + weight * new) / (before + weight))


@dataclass(frozen=True)
class Aggregate:
    """LeRobot's aggregation of a queued action with a new one.

    Args:
        name: `weighted_average` (.3 old, .7 new), `latest_only`, `average` or `conservative` (.7 old, .3 new).

    Raises:
        ConfigError: An unknown name.
    """

    name: str = "weighted_average"

    def __post_init__(self) -> None:
        if self.name not in AGGREGATES:
            raise ConfigError(f"`aggregate` must be one of {sorted(AGGREGATES)}, got {self.name!r}")

    def __call__(self, old: np.ndarray, count: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Return the weighted mean of both, however many predictions `old` stands for."""
        weight = AGGREGATES[self.name]
        return np.asarray((1 - weight) * old + weight * new)


def ensemble(predictions: np.ndarray, known: np.ndarray, *, decay: float = 0.01) -> np.ndarray:
    """Return ACT's action from all predictions for one instant at once, the form the paper states.

    Args:
        predictions: [I, A], the oldest first.
        known: Which of them were made, bool [I].
        decay: m.

    Raises:
        ConfigError: No prediction was made.
    """
    rows = np.asarray(predictions, dtype=np.float64)[known]
    if not len(rows):
        raise ConfigError("an ensemble needs at least one prediction; `known` is false everywhere")
    weights = np.exp(-decay * np.arange(len(rows)))
    return np.asarray(weights @ rows / weights.sum())
