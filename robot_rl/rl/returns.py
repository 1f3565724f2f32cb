"""Discounted segments of an episode: what an n-step or a chunk target needs, with the two ways an episode can end.

A segment that starts at step t covers n' = min(n, N - t) steps and never crosses the episode's edge. A task that ended
(`terminated`) has no value beyond its end; an episode that was cut off (`truncated`) has, and is bootstrapped at the
observation after its last action. The exponent is always the number of steps really taken (a departure from
Q-chunking's released code, arXiv 2507.07969, which drops chunks that end early).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robot_rl.errors import ConfigError
from robot_rl.values import Episode


@dataclass(frozen=True)
class Segments:
    """One segment a row; M rows, at most one for each step of the episode.

    Args:
        start: Its first step t, int64 [M].
        n_steps: n', how many steps it covers, int64 [M]; the next observation is that of step t + n'.
        reward: Sum of gamma^i r_{t+i} over its steps, float64 [M].
        bootstrap: What the next state's value is multiplied by: gamma^n', or 0 where the task ended, float64 [M].
    """

    start: np.ndarray
    n_steps: np.ndarray
    reward: np.ndarray
    bootstrap: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    @property
    def next_step(self) -> np.ndarray:
        """Step whose observation follows each segment, int64 [M]; N means the episode's final observation."""
        following: np.ndarray = self.start + self.n_steps
        return following

    def where(self, kept: np.ndarray) -> Segments:
        """Return the segments for which `kept` [M] is true."""
        return Segments(self.start[kept], self.n_steps[kept], self.reward[kept], self.bootstrap[kept])


def segments(reward: np.ndarray, *, n: int, gamma: float, terminated: bool, has_final_obs: bool = True) -> Segments:
    """Return the segments of up to `n` steps that start at each step of an episode.

    Args:
        reward: [N], reward of each step.
        n: Steps of a full segment.
        gamma: Discount per step, in (0, 1].
        terminated: The task itself ended after the last step.
        has_final_obs: The observation after the last action was recorded. Without it, segments that would bootstrap
            there are left out.

    Raises:
        ConfigError: `n` below 1, or `gamma` outside (0, 1].
    """
    if n < 1:
        raise ConfigError(f"`n` must be at least 1 step, got {n}")
    if not 0 < gamma <= 1:
        raise ConfigError(f"`gamma` must be in (0, 1], got {gamma}")
    reward = np.asarray(reward, dtype=np.float64)
    total = len(reward)
    start = np.arange(total)
    n_steps = np.minimum(n, total - start)
    summed = np.zeros(total)
    for i in range(min(n, total)):
        summed[: total - i] += gamma**i * reward[i:]
    at_end = start + n_steps == total
    bootstrap = np.where(at_end & terminated, 0.0, gamma**n_steps)
    kept = ~at_end | terminated | has_final_obs
    return Segments(start[kept], n_steps[kept], summed[kept], bootstrap[kept])


def episode_segments(episode: Episode, *, n: int, gamma: float, reward: np.ndarray | None = None) -> Segments:
    """Return the segments of an episode that start at a valid tick.

    Args:
        episode: The episode.
        n: Steps of a full segment.
        gamma: Discount per step.
        reward: [N] in place of the episode's own, for rewards made from labels (`robot_rl.rl.interventions`).

    Raises:
        ConfigError: As of `segments`, or a reward of another length.
    """
    given = episode.reward if reward is None else np.asarray(reward)
    if len(given) != len(episode):
        raise ConfigError(f"`reward` must have one value for each of {len(episode)} steps, got {len(given)}")
    found = segments(
        given, n=n, gamma=gamma, terminated=episode.terminated, has_final_obs=episode.final_obs is not None
    )
    return found.where(episode.valid[found.start])


def value_bounds(low: float, high: float, gamma: float) -> tuple[float, float]:
    """Return the range that a value can have when each reward lies in [low, high] and goes on for ever.

    For rewards that come at most once, such as a success at the end, the range is [min(low, 0), max(high, 0)] itself.

    Raises:
        ConfigError: `low` above `high`, or `gamma` outside (0, 1).
    """
    if low > high or not 0 < gamma < 1:
        raise ConfigError(f"need low <= high and gamma in (0, 1), got {low}, {high} and {gamma}")
    return low / (1 - gamma), high / (1 - gamma)
