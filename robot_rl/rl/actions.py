"""The unit that residuals and critics work in: each action element scaled to about [-1, 1] by its demonstrations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_rl.errors import ConfigError


@dataclass(frozen=True)
class ActionScaler:
    """Maps physical actions to the agent's and back: (a - middle) / half.

    Args:
        middle: [A], centre of the demonstrated range.
        half: [A], half of it, never below a floor.
    """

    middle: np.ndarray
    half: np.ndarray

    @classmethod
    def fit(cls, low: np.ndarray, high: np.ndarray, *, widen: float = 0.1, floor: float = 0.05) -> ActionScaler:
        """Return the scaler of a demonstrated range, as ResFiT fits it (arXiv 2509.19301, appendix).

        Args:
            low: [A], least demonstrated action.
            high: [A], largest.
            widen: Share by which the range is widened, so that a residual at its edge is not cut: the residual's bound.
            floor: Least half range, in the action's unit, for elements that hardly move.

        Raises:
            ConfigError: Ends that are not finite or out of order, or a floor that is not positive.
        """
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
            raise ConfigError(f"the demonstrated range must be finite with low <= high, got {low} and {high}")
        if not floor > 0 or not widen >= 0:
            raise ConfigError(f"`floor` must be positive and `widen` 0 or more, got {floor} and {widen}")
        half = np.maximum((high - low) / 2, floor) * (1 + widen)
        return cls((low + high) / 2, half)

    def to_agent(self, action: Any) -> Any:
        """Return physical actions [..., A] in the agent's unit; numpy in, numpy out, torch likewise."""
        middle, half = self._like(action)
        return (action - middle) / half

    def to_physical(self, action: Any) -> Any:
        """Return the agent's actions [..., A] in physical units."""
        middle, half = self._like(action)
        return action * half + middle

    def _like(self, action: Any) -> tuple[Any, Any]:
        if isinstance(action, np.ndarray):
            return self.middle.astype(action.dtype), self.half.astype(action.dtype)
        return action.new_tensor(self.middle), action.new_tensor(self.half)
