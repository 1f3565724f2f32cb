"""Whether a policy still acts where data, critic and model can be believed (the support checks of the gate).

What counts as far is measured on the policy that imitated the data, at starts whose own episode is left out of the
comparison: its own spread of distances, of disagreement between critics and between models, is the yardstick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl.rl.offline.data import OfflineData, distinct
from robot_rl.rl.offline.dynamics import EnsembleDynamics
from robot_rl.rl.offline.iql import IqlCritic
from robot_rl.rl.offline.policy import OfflinePolicy
from robot_rl.rl.ppo.objective import k3

QUANTILES: Mapping[str, tuple[float, float]] = {
    "action_distance": (0.95, 0.99), "critic_std": (0.90, 0.95), "model_disagreement": (0.90, 0.95)
}  # fmt: skip
"""For each measure the quantile over starts of the candidate, and of imitation that it must not exceed."""
_EQUAL = 1e-6


@dataclass(frozen=True)
class Check:
    """One support check: the candidate's figure and the largest that is accepted."""

    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the figure is a number and not above the limit."""
        return self.value <= self.limit * (1 + _EQUAL)


class Support:
    """Measures policies against imitation at fixed starts.

    Args:
        data: Everything recorded.
        starts: Where to measure.
        dynamics: Whose elites may disagree.
        critic: Whose members may disagree.
        imitation: The policy that the stage began with.
        kl: Largest divergence per step of a candidate from the incumbent, mean over steps, joint density.
        n_neighbours: Nearest recorded states whose actions count as data for a start.
        seed: Of the noise.

    Raises:
        ConfigError: No episode but a start's own, so that there is nothing to calibrate by.
    """

    def __init__(
        self,
        data: OfflineData,
        starts: OfflineData,
        dynamics: EnsembleDynamics,
        critic: IqlCritic,
        imitation: OfflinePolicy,
        *,
        kl: float = 0.02,
        n_neighbours: int = 16,
        seed: int = 0,
    ) -> None:
        if len(starts) == 0 or len(distinct(data.episode)) < 2:
            raise ConfigError(
                f"the gate has no calibration data: {len(starts)} starts and {len(distinct(data.episode))} episodes; "
                "it needs at least 2 episodes, so that imitation can be measured on some it is not compared with"
            )
        self._starts, self._dynamics, self._critic = starts, dynamics, critic
        self._kl, self._seed = kl, seed
        self._near, self._near_mask = _neighbours(data, starts, n_neighbours)
        measured = self.measures(imitation)
        self.limits = {name: _quantile(measured[name], QUANTILES[name][1]) for name in QUANTILES}

    @torch.no_grad()
    def measures(self, policy: OfflinePolicy) -> dict[str, Tensor]:
        """Return each measure at every start, [S]."""
        action = policy.act(self._starts.cond, torch.Generator().manual_seed(self._seed))
        mask = self._near_mask[..., None].float()
        square = ((action[:, None] - self._near).square() * mask).sum(dim=(2, 3))
        distance = (square / (mask.sum(dim=(2, 3)) * action.shape[-1])).sqrt()  # [S, k]
        q = self._critic.q(self._starts.cond, action)
        return {
            "action_distance": distance.amin(dim=1), "critic_std": q.std(dim=0, unbiased=False),
            "model_disagreement": self._dynamics.disagreement(self._starts.cond, action),
        }  # fmt: skip

    @torch.no_grad()
    def divergence(self, new: OfflinePolicy, old: OfflinePolicy) -> Tensor:
        """Return how far `new` is from `old` at each tuned step, [K']: k3 of the joint densities on old's chains."""
        cond = self._starts.cond
        states = old.draw(cond, torch.Generator().manual_seed(self._seed))
        ratio = (new.log_prob(cond, states) - old.log_prob(cond, states)).flatten(2).sum(dim=-1)
        return k3(ratio).mean(dim=0)

    def checks(self, new: OfflinePolicy, old: OfflinePolicy) -> dict[str, Check]:
        """Return all checks of a candidate against limits and incumbent."""
        measured = self.measures(new)
        found = {name: Check(_quantile(measured[name], QUANTILES[name][0]), self.limits[name]) for name in QUANTILES}
        return {"kl": Check(float(self.divergence(new, old).mean()), self._kl), **found}


def _quantile(values: Tensor, q: float) -> float:
    return float(values.double().quantile(q))


def _neighbours(data: OfflineData, starts: OfflineData, k: int) -> tuple[Tensor, Tensor]:
    """Return actions [S, k, n, A] and masks [S, k, n] of the nearest recorded states in other episodes."""
    scale = data.cond.std(dim=0).clamp(min=1e-3)
    known, asked = data.cond / scale, starts.cond / scale
    found = []
    for i in range(0, len(asked), 256):
        distance = torch.cdist(asked[i : i + 256], known)
        distance[starts.episode[i : i + 256, None] == data.episode[None]] = torch.inf
        found.append(distance.topk(min(k, len(known)), dim=1, largest=False))
    index, far = torch.cat([f.indices for f in found]), torch.cat([f.values for f in found]).isinf()
    mask = data.mask[index] & ~far[..., None]
    mask[..., 0] |= ~mask.any(dim=-1)  # one step of a state of its own episode, where there are too few others
    return data.action[index], mask
