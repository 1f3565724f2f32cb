"""Decoupled Q-chunking: a critic of long chunks taught to one of short ones (DQC: Li et al. 2025, arXiv 2512.10926).

All values are probabilities, sigma of what a network puts out:

    L_C = BCE(Q_C(s, a_0..H),  clip(R + gamma^n' m V(s'), 0, 1))             rewards travel H steps at a time
    L_P = w BCE(Q_P(s, a_0..h), Q_C),  w = kappa_d if Q_C >= Q_P else 1 - kappa_d      the best known continuation
    L_V = w |logit V - logit Q'_P|,    w = kappa_b if Q'_P >= V  else 1 - kappa_b      the best known action
          (or w (Q'_P - V)^2, the kappa_b-expectile of IQL: Kostrikov et al. 2021, arXiv 2110.06169)

Only Q_P has a target network. No action is proposed while learning; the robot executes h actions of the best of N
chunks by Q_P.

Departures: no goals, rewards of one task in [0, 1] that are paid at most once; chunks that an episode's end cuts short
keep their own length in the exponent, and success is told by the bootstrap factor, not by a short chunk; the target's
probability is held within [1e-5, 1 - 1e-5] before its logit; the base stays frozen; and learning goes on online.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from robot_rl.errors import ConfigError
from robot_rl.rl.best_of_n import Aggregate, aggregated
from robot_rl.rl.critic import MeanHead, QEnsemble, TdTarget, polyak_, td_target
from robot_rl.rl.ensemble import EnsembleMLP
from robot_rl.rl.optimise import step

_EDGE = 1e-5


class ProbabilityHead(MeanHead):
    """A value in [0, 1] as the sigmoid of one number, fitted by cross-entropy; the actor climbs the members' mean."""

    always = (0.0, 1.0)

    def mean(self, out: Tensor) -> Tensor:
        """Return sigma of the outputs, [E, B]."""
        return torch.sigmoid(out.squeeze(-1))

    def loss(self, out: Tensor, target: TdTarget) -> Tensor:
        """Return the mean cross-entropy over members and batch."""
        logit = out.squeeze(-1)
        return functional.binary_cross_entropy_with_logits(logit, target.mean.expand_as(logit))


def expectile_cross_entropy(logit: Tensor, target: Tensor, kappa: float) -> Tensor:
    """Return w BCE(sigma(logit), target) elementwise, w = kappa where target >= sigma(logit), else 1 - kappa.

    Its gradient w (q - target) vanishes at the kappa-expectile of the targets. The loss itself jumps where q crosses a
    target, so its least value says nothing.
    """
    weight = torch.where(target >= torch.sigmoid(logit.detach()), kappa, 1 - kappa)
    return weight * functional.binary_cross_entropy_with_logits(logit, target, reduction="none")


def quantile_loss(logit: Tensor, target: Tensor, kappa: float) -> Tensor:
    """Return w |logit - logit(target)| elementwise, w = kappa where the target is above, else 1 - kappa.

    Args:
        logit: [...].
        target: [...], probabilities; held within [1e-5, 1 - 1e-5].
        kappa: Which quantile; quantiles pass through the logit unchanged, as expectiles do not.
    """
    wanted = torch.logit(target, eps=_EDGE)
    return torch.where(wanted >= logit.detach(), kappa, 1 - kappa) * (logit - wanted).abs()


def expectile_loss(value: Tensor, target: Tensor, kappa: float) -> Tensor:
    """Return w (target - value)^2 elementwise, w = kappa where the target is above, else 1 - kappa."""
    error = target - value
    return torch.where(error >= 0, kappa, 1 - kappa) * error.square()


@dataclass(frozen=True, kw_only=True)
class DecoupledSettings:
    """How the three learn; the paper's values for its cubes.

    Args:
        distil: kappa_d, how optimistically the short critic takes over what the long one says; 0.5 is the mean.
        backup: kappa_b, which quantile or expectile of the actions in the data stands for the best.
        implicit: `quantile`, the paper's, which the logit leaves alone, or `expectile`, of probabilities.
        aggregate: What stands for the members: their mean, or the least.
        tau: Share by which the short critic's target moves at each update.
        lr: Learning rate of all.
        max_grad_norm: Bound of the gradient's norm; `None` for none.
    """

    distil: float = 0.8
    backup: float = 0.93
    implicit: Literal["quantile", "expectile"] = "quantile"
    aggregate: Aggregate = "mean"
    tau: float = 0.005
    lr: float = 3e-4
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        aggregated(torch.zeros(1, 1), self.aggregate)
        if self.implicit not in ("quantile", "expectile"):
            raise ConfigError(f"`implicit` must be `quantile` or `expectile`, got {self.implicit!r}")
        for name, value in (("distil", self.distil), ("backup", self.backup)):
            if not 0.5 <= value < 1:
                raise ConfigError(f"`{name}` must be in [0.5, 1), got {value}; 0.5 is the mean or median")


@dataclass(frozen=True)
class DecoupledBatch:
    """What an update needs, actions in the agent's unit.

    Args:
        obs: {name: [B, O, ...]}.
        action: [B, H, A], what was executed; beyond the segment the last one repeats.
        reward: [B], discounted sum over the segment, in [0, 1].
        bootstrap: [B], gamma^n' of the n' steps there are, or 0 where the task ended.
        next_obs: {name: [B, O, ...]} at the segment's end.
    """

    obs: Mapping[str, Tensor]
    action: Tensor
    reward: Tensor
    bootstrap: Tensor
    next_obs: Mapping[str, Tensor]


class DecoupledAgent(nn.Module):
    """The long critic, the short one with its target, and the state's value, on one encoder.

    Args:
        partial: The short critic, of h actions, with a `ProbabilityHead`; its encoder is trained by all three losses.
        n_features: Width of the encoder's features.
        horizon: H, actions of the long critic.
        hidden: Widths of the long critic's and the value's hidden layers.
        settings: How they learn.

    Raises:
        ConfigError: H below h, or a short critic whose values are not probabilities.
    """

    def __init__(
        self,
        partial: QEnsemble,
        *,
        n_features: int,
        horizon: int,
        hidden: Sequence[int],
        settings: DecoupledSettings,
    ) -> None:
        super().__init__()
        if horizon < partial.horizon:
            raise ConfigError(f"the long critic's horizon must be at least {partial.horizon}, got {horizon}")
        if not isinstance(partial.head, ProbabilityHead):
            raise ConfigError("the short critic must have a `ProbabilityHead`")
        self.partial, self.settings = partial, settings
        width = n_features + horizon * partial.action_dim
        self.long_members = EnsembleMLP(partial.n_members, width, 1, hidden=hidden)
        self.value = EnsembleMLP(1, n_features, 1, hidden=hidden)
        self.target_members = deepcopy(partial.members).requires_grad_(False)
        trained = [p for p in self.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(trained, lr=settings.lr, fused=True)

    def update(self, batch: DecoupledBatch) -> dict[str, float]:
        """Take one joint step, move the target, and return what to log.

        Raises:
            TrainingError: The loss is not finite; nothing was changed.
        """
        s, features = self.settings, self.partial.encoder(batch.obs)
        long = self.long_members(torch.cat([features, batch.action.flatten(1)], dim=1)).squeeze(-1)
        prefix = torch.cat([features, batch.action[:, : self.partial.horizon].flatten(1)], dim=1)
        short = self.partial.members(prefix).squeeze(-1)
        state = self.value(features)[0, :, 0]
        target = self._target(batch)
        with torch.no_grad():
            taught = aggregated(torch.sigmoid(long), s.aggregate)
            backup = aggregated(torch.sigmoid(self.target_members(prefix.detach()).squeeze(-1)), s.aggregate)
        losses = {
            "critic/loss": functional.binary_cross_entropy_with_logits(long, target.expand_as(long)),
            "critic/distil_loss": expectile_cross_entropy(short, taught.expand_as(short), s.distil).mean(),
            "critic/value_loss": self._value_loss(state, backup).mean(),
        }
        trained = [p for p in self.parameters() if p.requires_grad]
        total = torch.stack(list(losses.values())).sum()
        step(self.optimiser, total, trained, what="critic", max_norm=s.max_grad_norm)
        polyak_(self.target_members.parameters(), self.partial.members.parameters(), s.tau)
        q = torch.sigmoid(short.detach())
        return {
            **{name: float(loss.detach()) for name, loss in losses.items()}, "critic/q_mean": float(q.mean()),
            "critic/q_max": float(q.max()), "critic/target_mean": float(target.mean()),
            "critic/value_mean": float(torch.sigmoid(state.detach()).mean()),
        }  # fmt: skip

    def _value_loss(self, logit: Tensor, target: Tensor) -> Tensor:
        if self.settings.implicit == "quantile":
            return quantile_loss(logit, target, self.settings.backup)
        return expectile_loss(torch.sigmoid(logit), target, self.settings.backup)

    @torch.no_grad()
    def _target(self, batch: DecoupledBatch) -> Tensor:
        following = torch.sigmoid(self.value(self.partial.encoder(batch.next_obs)))[0, :, 0]
        return td_target(batch.reward, batch.bootstrap, following, bounds=(0.0, 1.0))
