"""Off-policy evaluation: what a policy would earn, by rollouts in the learned dynamics and a critic it did not see.

Two scores of each start, both of the same rollouts:

    am_q   sum over h < H of w_h min Q(s_h, a_h)               AM-Q of Uni-O4 (arXiv 2311.03351) and RL-100
    value  sum over h < H of w_h g^h R(s_h, a_h) + w_H g^H min Q(s_H, a_H),    g = gamma^n, n steps a chunk

with w_h the chance that the task has not ended before h: a rollout that has ended adds nothing from then on and is not
dropped, as the released Uni-O4 code does. Actions come from the deployed sampler.

Policies are compared on the same starts, noise and member of the ensemble (`Rollouts`): what differs is the policy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl.rl.offline.data import OfflineData, distinct
from robot_rl.rl.offline.dynamics import EnsembleDynamics
from robot_rl.rl.offline.iql import IqlCritic
from robot_rl.rl.offline.policy import OfflinePolicy

PHASES = 4
"""Parts of an episode that starts are spread over."""


@dataclass(frozen=True)
class Scores:
    """What a policy earns from each of S starts, by every member of the critic.

    Args:
        value: [Q, S], discounted rewards and the value of where the rollout stops.
        am_q: [Q, S], sum of action values.
        member: [S], which member of the dynamics the start was rolled out in.
    """

    value: Tensor
    am_q: Tensor
    member: Tensor

    def of(self, name: str) -> Tensor:
        """Return the score `value` or `am_q`, [S], by the least member of the critic at each start."""
        scores: Tensor = getattr(self, name)
        return scores.amin(0)


def choose_starts(data: OfflineData, n: int, *, seed: int) -> OfflineData:
    """Return n transitions to start from, spread evenly over outcomes and phases; all of them if there are fewer.

    Raises:
        ConfigError: `n` below 1.
    """
    if n < 1:
        raise ConfigError(f"`n_starts` must be at least 1, got {n}")
    if len(data) <= n:
        return data
    generator = torch.Generator().manual_seed(seed)
    stratum = data.success.long() * PHASES + (data.phase * PHASES).long().clamp(max=PHASES - 1)
    order = torch.randperm(len(data), generator=generator)
    rank = torch.zeros(len(data), dtype=torch.int64)
    for s in distinct(stratum):
        mine = order[stratum[order] == s]
        rank[mine] = torch.arange(len(mine))
    # The first of every stratum come first, then the second of every one: a stratum that is short gives all it has.
    return data.rows(order[torch.argsort(rank[order], stable=True)[:n]])


class Rollouts:
    """Fixed starts, noise and members of the ensemble, by which policies are scored.

    Args:
        starts: Where to start.
        dynamics: The model.
        critic: Action values that the actor was not trained by.
        horizon: H, chunks of a rollout; must reach the reward.
        gamma: Discount per control step.
        seed: Of the noise; the same for all policies.
        batch_size: Starts at a time.

    Raises:
        ConfigError: `horizon` below 1, or no starts.
    """

    def __init__(
        self,
        starts: OfflineData,
        dynamics: EnsembleDynamics,
        critic: IqlCritic,
        *,
        horizon: int,
        gamma: float,
        seed: int,
        batch_size: int = 512,
    ) -> None:
        if horizon < 1 or len(starts) == 0:
            raise ConfigError(f"need `horizon` >= 1 and at least one start, got {horizon} and {len(starts)}")
        self.starts, self.dynamics, self.critic = starts, dynamics, critic
        self.horizon, self.gamma, self.seed, self.batch_size = horizon, gamma, seed, batch_size
        turn = torch.randperm(len(starts), generator=torch.Generator().manual_seed(seed))
        self.member = dynamics.elites[turn % len(dynamics.elites)]

    @torch.no_grad()
    def score(self, policy: OfflinePolicy) -> Scores:
        """Return a policy's scores."""
        parts = [self._part(policy, first) for first in range(0, len(self.starts), self.batch_size)]
        value, am_q = (torch.cat(column, dim=1) for column in zip(*parts, strict=True))
        return Scores(value, am_q, self.member)

    def _part(self, policy: OfflinePolicy, first: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + first)
        part = slice(first, first + self.batch_size)
        cond, member = self.starts.cond[part], self.member[part]
        alive, per_chunk = cond.new_ones(len(cond)), self.gamma**policy.n_execute
        value = am_q = cond.new_zeros(self.critic.settings.n_members, len(cond))
        for h in range(self.horizon):
            action = policy.act(cond, generator)
            am_q = am_q + alive * self.critic.q(cond, action)
            noise = torch.randn(cond.shape, generator=generator)
            cond, reward, ended = self.dynamics.step(cond, action, member, noise)
            value = value + alive * per_chunk**h * reward
            alive = alive * (1 - ended)
        last = self.critic.q(cond, policy.act(cond, generator))
        return value + alive * per_chunk**self.horizon * last, am_q
