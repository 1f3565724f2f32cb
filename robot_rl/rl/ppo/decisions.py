"""Recorded episodes as the decisions that were taken in them: what an update of the chain learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robot_rl.errors import ConfigError, SpecError
from robot_rl.rl.ppo.gae import chunk_segments
from robot_rl.rl.ppo.rollouts import CHAIN, OFFSET
from robot_rl.specs import RobotSpec
from robot_rl.values import Episode


@dataclass(frozen=True)
class Decisions:
    """The decisions of some episodes, M of them, one episode after the other. L = M + number of episodes.

    Args:
        obs: {name: [L, O, ...]}, at each decision and at the end of each episode.
        row: int64 [M], where in `obs` each decision stands; its successor, or the episode's end, stands one further.
        chain: [M, S, H, A], normalised.
        executed: bool [M, n], which of the chunk's rows that were due were executed.
        reward: float64 [M], discounted over the steps taken.
        bootstrap: float64 [M], factor on the value after them.
        continues: bool [M], whether the next decision is of the same episode.
        by_policy: bool [M], whether no person drove any of its steps.
        steps: Control steps of all the episodes.
        successes: Episodes that ended in success.
        episodes: How many there are.
    """

    obs: dict[str, Tensor]
    row: np.ndarray
    chain: Tensor
    executed: Tensor
    reward: np.ndarray
    bootstrap: np.ndarray
    continues: np.ndarray
    by_policy: np.ndarray
    steps: int
    successes: int
    episodes: int

    def __len__(self) -> int:
        return len(self.row)


def decisions(episodes: Sequence[Episode], spec: RobotSpec, *, n_obs: int, n_execute: int, gamma: float) -> Decisions:
    """Return the decisions of episodes that `robot_rl.rl.ppo.rollouts` recorded.

    Args:
        episodes: In the order that they are to stand in.
        spec: The robot, restricted to the observations that the chain reads.
        n_obs: O; before an episode's first observation it is repeated.
        n_execute: n, rows of a chunk that are due.
        gamma: Discount per control step.

    Raises:
        ConfigError: No episode, or none with a decision.
        SpecError: An episode does not hold the chain, or starts in mid-chunk.
    """
    if not episodes:
        raise ConfigError("an update needs at least one episode, got none")
    parts = [_Part(episode, spec, n_obs=n_obs, n_execute=n_execute, gamma=gamma) for episode in episodes]
    parts, first, rows = [part for part in parts if len(part.start)], 0, []
    if not parts:
        raise ConfigError(f"none of {len(episodes)} episodes has a decision whose outcome is known")
    for part in parts:
        rows.append(first + np.arange(len(part.start)))
        first += len(part.start) + 1
    return Decisions(
        obs={name: torch.as_tensor(np.concatenate([part.obs[name] for part in parts])) for name in spec.obs},
        row=np.concatenate(rows),
        chain=torch.as_tensor(np.concatenate([part.chain for part in parts])),
        executed=torch.as_tensor(np.concatenate([part.executed for part in parts])),
        reward=np.concatenate([part.reward for part in parts]),
        bootstrap=np.concatenate([part.bootstrap for part in parts]),
        continues=np.concatenate([np.append(np.ones(len(part.start) - 1, bool), False) for part in parts]),
        by_policy=np.concatenate([part.by_policy for part in parts]),
        steps=sum(map(len, episodes)),
        successes=sum(episode.meta.outcome == "success" for episode in episodes),
        episodes=len(episodes),
    )


class _Part:
    """One episode's share of `Decisions`."""

    def __init__(self, episode: Episode, spec: RobotSpec, *, n_obs: int, n_execute: int, gamma: float) -> None:
        if missing := [name for name in (CHAIN, OFFSET) if name not in episode.extras]:
            raise SpecError(f"episode {episode.id} lacks the streams {missing}; play it by `robot_rl.rl.ppo.rollouts`")
        offset = np.asarray(episode.extras[OFFSET][:])
        if offset[0] != 0:
            raise SpecError(f"episode {episode.id} starts at row {offset[0]} of a chunk; it must start with a decision")
        found = chunk_segments(
            episode.reward, np.flatnonzero(offset == 0), gamma=gamma, terminated=episode.terminated,
            has_final_obs=episode.final_obs is not None,
        )  # fmt: skip
        self.start, self.reward, self.bootstrap = found.start, found.reward, found.bootstrap
        self.chain = np.asarray(episode.extras[CHAIN][found.start], np.float32)
        self.executed = np.arange(n_execute) < found.n_steps[:, None]
        human = np.concatenate([[0], np.cumsum(np.asarray(episode.by_human, np.int64))])
        self.by_policy = human[found.next_step] == human[found.start]
        if len(found):
            self.obs = {
                name: _stacks(episode, name, np.append(found.start, found.next_step[-1]), n_obs) for name in spec.obs
            }


def _stacks(episode: Episode, name: str, newest: np.ndarray, n_obs: int) -> np.ndarray:
    """Return {name} at the given steps with the O - 1 before each, [L, O, ...]; N is the final observation."""
    rows = np.asarray(episode.obs[name][:])
    final = rows[-1] if episode.final_obs is None else np.asarray(episode.final_obs[name])
    stacked: np.ndarray = np.concatenate([rows, final[None]])[np.maximum(newest[:, None] + np.arange(1 - n_obs, 1), 0)]
    return stacked
