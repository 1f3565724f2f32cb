"""Which transitions make a batch: a fixed share of demonstrations and of what the robot lived through.

Symmetric sampling as in RLPD (Ball et al. 2023, arXiv 2302.02948, section 4.1). The batch never shrinks: a side that is
small is drawn from with replacement, and a side that is empty leaves its share to the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from robot_rl.errors import ConfigError


@dataclass(frozen=True)
class SymmetricSampler:
    """Draws batches from two pools.

    Args:
        batch_size: B.
        ratio: Share of demonstrations; their number in a batch is the whole part of ratio * B.

    Raises:
        ConfigError: A batch below 1 or a ratio outside [0, 1].
    """

    batch_size: int
    ratio: float = 0.5

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not 0 <= self.ratio <= 1:
            raise ConfigError(
                f"`batch_size` must be at least 1 and `ratio` in [0, 1], got {self.batch_size} and {self.ratio}"
            )

    def sample(self, n_demo: int, n_online: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return indices of demonstration items and of online items, int64; together `batch_size` of them.

        Raises:
            ConfigError: Both pools are empty.
        """
        if n_demo + n_online == 0:
            raise ConfigError("there is nothing to sample: neither a demonstration nor an online transition")
        wanted = int(self.ratio * self.batch_size)
        if n_demo == 0 or n_online == 0:
            wanted = 0 if n_demo == 0 else self.batch_size
        demo = rng.integers(0, max(n_demo, 1), wanted)
        return demo, rng.integers(0, max(n_online, 1), self.batch_size - wanted)

    def oversampling(self, n_demo: int, n_online: int) -> float:
        """Return how much more often a demonstration item is drawn than an online one; NaN if a pool is empty."""
        n = int(self.ratio * self.batch_size)
        if n_demo == 0 or n_online == 0 or n == self.batch_size:
            return float("nan")
        return (n / n_demo) / ((self.batch_size - n) / n_online)


def interleaved(n_first: int, n_second: int) -> np.ndarray:
    """Return the order, int64 [n_first + n_second], that spreads two stacked blocks evenly over a batch.

    Slices of a batch in this order (as updates at a ratio above 1 take them) hold both blocks in proportion; slices of
    the stacked batch would hold one after the other.
    """
    at = np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in (n_first, n_second)])
    return np.argsort(at, kind="stable")


def update_slices(batch_size: int, n_updates: int) -> Iterator[slice]:
    """Yield the equal slices of a batch that the updates of one step take, one after another.

    Raises:
        ConfigError: The batch does not divide.
    """
    if n_updates < 1 or batch_size % n_updates:
        raise ConfigError(f"a batch of {batch_size} does not divide into {n_updates} updates")
    size = batch_size // n_updates
    for start in range(0, batch_size, size):
        yield slice(start, start + size)
