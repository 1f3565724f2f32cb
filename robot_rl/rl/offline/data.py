"""What the offline stage learns from: chunk transitions of stored episodes, in the frozen encoder's features.

A transition starts at every `stride`-th valid step and covers the `n_execute` actions that a policy would execute
before it looks again; what happens at an episode's edge is as of `robot_rl.rl.returns`. Everything is in the policy's
own units: conditions as `encode` returns them, actions normalised as the network sees them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robot_rl.errors import ConfigError, SpecError, StoreError
from robot_rl.rl.offline.policy import Chain
from robot_rl.rl.ppo.objective import executed_rows
from robot_rl.rl.replay import Reward, TransitionPool, recorded_reward
from robot_rl.rl.returns import episode_segments
from robot_rl.specs import RobotSpec
from robot_rl.values import Episode

_ROWS = 1024  # windows encoded in one call


@dataclass(frozen=True)
class OfflineData:
    """M chunk transitions; n actions each.

    Args:
        cond: [M, C], condition before the chunk.
        action: [M, n, A], normalised; steps beyond the episode repeat the last one inside.
        mask: [M, n], false for those.
        reward: [M], discounted sum over the chunk.
        bootstrap: [M], factor on the next state's value, 0 where the task ended.
        next_cond: [M, C], condition after it.
        episode: [M], number of its episode, int64.
        phase: [M], where in the episode it starts, 0 to below 1.
        success: [M], whether its episode earned more than the worst one.
    """

    cond: Tensor
    action: Tensor
    mask: Tensor
    reward: Tensor
    bootstrap: Tensor
    next_cond: Tensor
    episode: Tensor
    phase: Tensor
    success: Tensor

    def __len__(self) -> int:
        return len(self.reward)

    def rows(self, index: Tensor) -> OfflineData:
        """Return the transitions of the given numbers, int64 [B], or of a mask, bool [M]."""
        return OfflineData(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def of_episodes(self, episodes: Tensor) -> OfflineData:
        """Return the transitions of the given episodes, int64 [E]."""
        return self.rows(torch.isin(self.episode, episodes))


def load(
    episodes: Iterable[Episode],
    spec: RobotSpec,
    model: Chain,
    *,
    n_execute: int,
    gamma: float,
    reward: Reward = recorded_reward,
    stride: int | None = None,
) -> OfflineData:
    """Return the transitions of episodes.

    Args:
        episodes: Of any quality; successes alone teach no difference, failures alone no reward.
        spec: The robot, with the observations that the model reads.
        model: The policy.
        n_execute: n, actions executed of a chunk.
        gamma: Discount per control step.
        reward: Makes an episode's rewards.
        stride: Steps between the starts of two transitions; `None` for `n_execute`, as RL-100's critics have it.

    Raises:
        StoreError: No episodes.
        ConfigError: All episodes earned the same, so that there is nothing to learn reward from; or none of them has a
            valid step.
        SpecError: An episode does not fit, or holds numbers that are not finite.
    """
    pool = TransitionPool(spec, n_step=n_execute, gamma=gamma, n_obs=model.n_obs, horizon=n_execute, reward=reward)
    places: list[tuple[int, float]] = []
    earned: list[float] = []
    for episode in episodes:
        start = np.zeros(len(episode), bool)
        start[:: n_execute if stride is None else stride] = True
        pool.add(episode, start=start)
        paid = reward(episode)
        found = episode_segments(episode, n=n_execute, gamma=gamma, reward=paid)
        places += [(len(earned), float(t) / len(episode)) for t in found.where(start[found.start]).start]
        earned.append(float(np.sum(paid)))
    _check_earned(earned, len(places))
    data = _gathered(pool, model, n_execute)
    episode_of = torch.tensor([e for e, _ in places])
    won = torch.tensor(earned) > (min(earned) + max(earned)) / 2
    phase = torch.tensor([p for _, p in places], dtype=torch.float32)
    return OfflineData(**data, episode=episode_of, phase=phase, success=won[episode_of])


def _check_earned(earned: Sequence[float], n_transitions: int) -> None:
    if not earned:
        raise StoreError("there are no episodes to improve on; record or collect some, or give another store=...")
    if n_transitions == 0:
        raise ConfigError(f"none of {len(earned)} episodes has a valid step to start from; check their alignment")
    if not np.isfinite(earned).all():
        bad = int(np.flatnonzero(~np.isfinite(earned))[0])
        raise SpecError(f"the rewards of episode number {bad} are not finite (sum {earned[bad]}); relabel or drop it")
    if max(earned) == min(earned):
        raise ConfigError(
            f"all {len(earned)} episodes earned {earned[0]:g}, so there is nothing to learn reward from; add episodes "
            "that succeeded and episodes that failed (`robot-rl collect collect.qualities=[1.0,0.5,0.2]`), or label "
            "them (`robot-rl mend relabel`) and set algo.reward=success"
        )


def _gathered(pool: TransitionPool, model: Chain, n_execute: int) -> dict[str, Tensor]:
    rows = executed_rows(model, n_execute)
    parts: dict[str, list[Tensor]] = {}
    for first in range(0, len(pool), _ROWS):
        batch = pool.gather(np.arange(first, min(first + _ROWS, len(pool))))
        now, following = _tensors(batch.obs), _tensors(batch.next_obs)
        chunk = torch.zeros(len(batch), model.horizon, model.action_dim)
        chunk[:, rows] = torch.from_numpy(batch.action)
        with torch.no_grad():
            part = {
                "cond": model.encode(now), "next_cond": model.encode(following),
                "action": model.normalised(now, chunk)[:, rows],
            }  # fmt: skip
        part |= {name: torch.from_numpy(getattr(batch, name)) for name in ("mask", "reward", "bootstrap")}
        for name, value in part.items():
            parts.setdefault(name, []).append(value)
    data = {name: torch.cat(values) for name, values in parts.items()}
    for name, value in data.items():
        if not bool(torch.isfinite(value).all()):
            raise SpecError(f"`{name}` of the stored episodes holds numbers that are not finite; run `robot-rl check`")
    return data


def _tensors(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def distinct(numbers: Tensor) -> Tensor:
    """Return the different numbers among int64 [M], ascending."""
    return torch.tensor(sorted(set(numbers.tolist())), dtype=torch.int64)


def halves(data: OfflineData, seed: int) -> tuple[Tensor, Tensor]:
    """Return two disjoint sets of episodes, int64, with successes in both, and failures where there are two.

    The critic that pulls the actor is fitted on one, the critic that the gate asks on the other, so that they do not
    over-estimate the same actions.

    Raises:
        ConfigError: Fewer than two episodes that earned something.
    """
    generator = torch.Generator().manual_seed(seed)
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for won in (True, False):
        there = distinct(data.episode[data.success == won])
        if won and len(there) < 2:
            raise ConfigError(
                f"the offline stage fits two critics on different episodes and needs at least 2 that earned reward, "
                f"got {len(there)}; add successful episodes"
            )
        there = there[torch.randperm(len(there), generator=generator)]
        middle = (len(there) + 1) // 2
        sides[0].append(there[:middle])
        sides[1].append(there[middle:])
    return torch.cat(sides[0]), torch.cat(sides[1])
