"""What a policy would have done: its chunks along the observations of a recorded episode, and how far off they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robot_rl.errors import ConfigError, SpecError
from robot_rl.interfaces import Policy, Seedable
from robot_rl.values import ActionChunk, Episode, PolicyInput


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Chunks that a policy answered to the observations of an episode.

    Args:
        step: int64 [P], the ticks at which it was asked.
        chunks: P chunks; row h of a chunk is its action for h ticks later.
        error: [P, A] mean over a chunk's rows within the episode of |predicted - recorded|, in the action's units.
    """

    step: np.ndarray
    chunks: tuple[ActionChunk, ...]
    error: np.ndarray

    @property
    def mean_error(self) -> np.ndarray:
        """Mean of the absolute error over all chunks, [A] in the action's units."""
        return np.asarray(self.error.mean(axis=0))


def predict(
    policy: Policy, episode: Episode, *, obs_names: Sequence[str], every: int | None = None, seed: int = 0
) -> Prediction:
    """Ask a policy for a chunk every few ticks of a recorded episode.

    The observations are the recorded ones throughout, the first standing in for those before it, as in training:
    what is shown is open-loop error, not how the policy would fare.

    Args:
        policy: Anything that answers a `PolicyInput`.
        episode: The aligned episode; ticks that are not valid are passed over.
        obs_names: Which observations to give it.
        every: Ticks between two questions; `None` is the policy's `n_execute`.
        seed: Seed of the policy's own noise, where it draws any.

    Raises:
        ConfigError: `every` is below 1, or the episode lacks an observation.
        SpecError: The policy refuses the observations, or its actions are of another width than the episode's.
    """
    every = policy.n_execute if every is None else every
    if every < 1:
        raise ConfigError(f"`view.every` must be at least 1 tick, got {every}")
    if missing := sorted(set(obs_names) - set(episode.obs)):
        raise ConfigError(f"the policy reads {missing}, which this store lacks; it has {sorted(episode.obs)}")
    if isinstance(policy, Seedable):
        policy.seed(seed)
    policy.reset()
    step = np.flatnonzero(episode.valid[::every]) * every
    if not len(step):
        raise SpecError(f"episode {episode.id} has no valid tick to predict from")
    chunks = tuple(_ask(policy, episode, obs_names, int(n)) for n in step)
    error = np.stack([_error(chunk, episode, int(n)) for chunk, n in zip(chunks, step, strict=True)])
    return Prediction(step=step, chunks=chunks, error=error)


def _ask(policy: Policy, episode: Episode, obs_names: Sequence[str], n: int) -> ActionChunk:
    rows = np.maximum(np.arange(n - policy.n_obs + 1, n + 1), 0)
    obs = {name: np.asarray(episode.obs[name][rows]) for name in obs_names}
    chunk = policy.act(PolicyInput(obs=obs, stamp_ns=int(episode.stamp_ns[n])))
    if chunk.action.shape[1] != episode.action.shape[1]:
        raise SpecError(
            f"the policy's actions have {chunk.action.shape[1]} elements, the episode's {episode.action.shape[1]}; "
            "it is for another robot"
        )
    return chunk


def _error(chunk: ActionChunk, episode: Episode, n: int) -> np.ndarray:
    """Return the mean absolute error [A] of the rows that lie within the episode, each beside its tick's action."""
    recorded = episode.action[n : n + len(chunk)]
    return np.asarray(np.abs(chunk.action[: len(recorded)] - recorded).mean(axis=0), np.float64)
