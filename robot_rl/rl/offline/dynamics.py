"""An ensemble that predicts what a chunk leads to, in the latent space of the frozen encoder, as one batched network.

After MOPO (Yu et al. 2020, arXiv 2005.13239) and RL-100 (arXiv 2510.14830): each member is a Gaussian over the change
of the whole observation window's features and the chunk's discounted reward, with softly clamped log-variances; a
third head tells whether the task ends. Fitted with a likelihood; members stop by their own held-out error, the elites
are those with the least.

Departures: every member learns from its own bootstrap sample; latents that a rollout reaches are held to the range of
the data, since nothing was learned beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robot_rl.errors import ConfigError
from robot_rl.rl.ensemble import EnsembleLinear
from robot_rl.rl.offline.data import OfflineData

_LEAST_STD = 1e-3


@dataclass(frozen=True)
class Prediction:
    """What the members say of B chunks: means and log-variances [E, B, C + 1], ends [E, B] as logits.

    The last column is the reward.
    """

    mean: Tensor
    log_var: Tensor
    ended: Tensor


def soft_clamp(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return x held between two bounds by softplus, so that there is a gradient everywhere."""
    x = high - nn.functional.softplus(high - x)
    return low + nn.functional.softplus(x - low)


def gaussian_nll(error: Tensor, log_var: Tensor) -> Tensor:
    """Return error^2 / var + log var of each element: twice the negative log-likelihood, without its constant."""
    return error.square() * torch.exp(-log_var) + log_var


class EnsembleDynamics(nn.Module):
    """E members; which of them are trusted is in `elites`.

    Args:
        cond_dim: C.
        n_execute: n, actions of a chunk.
        action_dim: A.
        n_members: E.
        n_elites: How many are trusted.
        hidden: Widths of the hidden layers.

    Raises:
        ConfigError: Not 1 <= `n_elites` <= `n_members`.
    """

    cond_mean: Tensor
    cond_std: Tensor
    out_mean: Tensor
    out_std: Tensor
    low: Tensor
    high: Tensor
    elites: Tensor
    reward_explained: Tensor

    def __init__(
        self,
        cond_dim: int,
        n_execute: int,
        action_dim: int,
        *,
        n_members: int = 7,
        n_elites: int = 5,
        hidden: Sequence[int] = (256, 256, 256),
    ) -> None:
        super().__init__()
        if not 1 <= n_elites <= n_members:
            raise ConfigError(f"need 1 <= `n_elites` <= `n_members`, got {n_elites} and {n_members}")
        self.n_members, self.n_elites, self.cond_dim = n_members, n_elites, cond_dim
        layers: list[nn.Module] = []
        width = cond_dim + n_execute * action_dim
        for size in hidden:
            layers += [EnsembleLinear(n_members, width, size), nn.SiLU()]
            width = size
        self.layers = nn.Sequential(*layers, EnsembleLinear(n_members, width, 2 * (cond_dim + 1) + 1))
        self.max_log_var = nn.Parameter(torch.full((n_members, 1, cond_dim + 1), 0.5))
        self.min_log_var = nn.Parameter(torch.full((n_members, 1, cond_dim + 1), -10.0))
        for name, size, value in (
            ("cond_mean", cond_dim, 0.0), ("cond_std", cond_dim, 1.0), ("out_mean", cond_dim + 1, 0.0),
            ("out_std", cond_dim + 1, 1.0), ("low", cond_dim, -torch.inf), ("high", cond_dim, torch.inf),
        ):  # fmt: skip
            self.register_buffer(name, torch.full((size,), value))
        self.register_buffer("elites", torch.arange(n_elites))
        self.register_buffer("reward_explained", torch.tensor(torch.nan))

    def use_units(self, data: OfflineData) -> None:
        """Take the units of inputs and outputs, and the range of latents, from the data."""
        change = self.targets(data)
        both = torch.cat([data.cond, data.next_cond])
        for buffer, value in (
            (self.cond_mean, data.cond.mean(0)), (self.cond_std, data.cond.std(0).clamp(min=_LEAST_STD)),
            (self.out_mean, change.mean(0)), (self.out_std, change.std(0).clamp(min=_LEAST_STD)),
            (self.low, both.amin(0)), (self.high, both.amax(0)),
        ):  # fmt: skip
            buffer.copy_(value)

    @staticmethod
    def targets(data: OfflineData) -> Tensor:
        """Return the change of the latents and the chunk's reward, [M, C + 1], in their own unit."""
        return torch.cat([data.next_cond - data.cond, data.reward[:, None]], dim=1)

    def inputs(self, cond: Tensor, action: Tensor) -> Tensor:
        """Return what the members see: standardised conditions and chunks, [..., C + n A]."""
        return torch.cat([(cond - self.cond_mean) / self.cond_std, action.flatten(-2)], dim=-1)

    def raw(self, x: Tensor) -> Prediction:
        """Return what the members put out for inputs [E, B, I], in standardised units."""
        size = self.cond_dim + 1
        mean, log_var, ended = self.layers(x).split([size, size, 1], dim=-1)
        return Prediction(mean, soft_clamp(log_var, self.min_log_var, self.max_log_var), ended[..., 0])

    def predict(self, cond: Tensor, action: Tensor) -> Prediction:
        """Return what every member says of chunks [B, n, A] under conditions [B, C]."""
        x = self.inputs(cond, action)
        out = self.raw(x.expand(self.n_members, *x.shape))
        return Prediction(out.mean * self.out_std + self.out_mean, out.log_var + 2 * self.out_std.log(), out.ended)

    def step(self, cond: Tensor, action: Tensor, member: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next conditions [B, C], the chunks' mean rewards [B] and how likely the task ended [B].

        Args:
            cond: [B, C].
            action: [B, n, A], normalised.
            member: [B], which member each sample believes, int64.
            noise: [B, C], standard normal.
        """
        out = self.predict(cond, action)
        at = torch.arange(len(cond))
        mean, std = out.mean[member, at], (0.5 * out.log_var[member, at]).exp()
        following = cond + mean[:, :-1] + std[:, :-1] * noise
        following = torch.minimum(torch.maximum(following, self.low), self.high)
        return following, mean[:, -1], out.ended[member, at].sigmoid()

    def disagreement(self, cond: Tensor, action: Tensor) -> Tensor:
        """Return how far the elites' predicted latents lie apart, [B]: root mean square of the std over elites."""
        x = self.inputs(cond, action)
        mean = self.raw(x.expand(self.n_members, *x.shape)).mean[self.elites, :, :-1]  # [elites, B, C]
        return mean.var(dim=0, unbiased=False).mean(dim=-1).sqrt()

    def choose_elites(self, held_out: Tensor) -> None:
        """Trust the members with the least held-out errors [E]; of equal ones the first."""
        self.elites.copy_(torch.argsort(held_out, stable=True)[: self.n_elites])
