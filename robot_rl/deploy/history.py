"""The last O observations, stacked the way a policy was trained on them."""

from __future__ import annotations

from collections import deque

import numpy as np

from robot_rl.errors import ConfigError, SpecError
from robot_rl.values import Obs


class ObsHistory:
    """Keeps `n_obs` observations; the first one after a reset stands in for those before it, as in training.

    Args:
        n_obs: O, how many observation steps the policy reads.
    """

    def __init__(self, n_obs: int) -> None:
        if n_obs < 1:
            raise ConfigError(f"`n_obs` must be at least 1, got {n_obs}")
        self.n_obs = n_obs
        self._steps: deque[Obs] = deque(maxlen=n_obs)

    def reset(self) -> None:
        """Forget everything."""
        self._steps.clear()

    def push(self, obs: Obs) -> Obs:
        """Add the newest observation and return the stack `{name: [O, ...]}`, oldest first.

        Raises:
            SpecError: The observation's names changed within an episode.
        """
        step = {name: np.array(value) for name, value in obs.items()}
        if self._steps and set(step) != set(self._steps[-1]):
            raise SpecError(f"observation names must stay {sorted(self._steps[-1])}, got {sorted(step)}; reset first")
        self._steps.extend([step] * (1 if self._steps else self.n_obs))
        return {name: np.stack([past[name] for past in self._steps]) for name in step}
