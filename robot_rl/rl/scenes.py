"""Which scene an episode begins with: a new one, or one that was failed at before.

Once most goes well, what is failed at is seldom met; prioritised level replay (Jiang et al. 2021, arXiv 2010.03934)
meets it more often. Departure: no ranks of errors of the value, but success or failure, and rests that double with each
failure at a scene, as in learning by flash cards: a scene that cannot be managed does not take half of the run.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from robot_rl.errors import ConfigError


class Scenes:
    """Chooses seeds.

    Args:
        first_seed: The n-th episode begins with this plus n, if it is not one that comes back.
        repeat_failed: Chance that a failed one comes back, where one has rested enough: 2^k episodes after k failures.

    Raises:
        ConfigError: A chance outside of [0, 1).
    """

    def __init__(self, first_seed: int, repeat_failed: float = 0.0) -> None:
        if not 0 <= repeat_failed < 1:
            raise ConfigError(f"`repeat_failed` must be a chance from 0 to below 1, got {repeat_failed}")
        self._first, self._chance = first_seed, repeat_failed
        self._n = 0
        self._failed: dict[int, tuple[int, int]] = {}  # seed: failures since it last succeeded, episode of the last one

    def remember(self, past: Iterable[tuple[int | None, bool]]) -> None:
        """Take note of episodes in the order they were played: seed, if there was one, and whether it succeeded."""
        for seed, success in past:
            self._n += 1
            if seed is None:
                continue
            if success:
                self._failed.pop(seed, None)
            else:
                self._failed[seed] = (self._failed.get(seed, (0, 0))[0] + 1, self._n)

    @property
    def number(self) -> int:
        """Seed of the next episode if it is a new one, and of the exploration in it either way."""
        return self._first + self._n

    def next(self) -> int:
        """Return the seed of the next episode; a run that is continued chooses as one that never stopped."""
        rng = np.random.default_rng([self.number, 1])
        rested = [seed for seed, (failures, last) in self._failed.items() if last + 2**failures <= self._n]
        if not rested or rng.random() >= self._chance:
            return self.number
        return int(rng.choice(rested))
