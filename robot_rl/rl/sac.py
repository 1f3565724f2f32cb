"""Soft actor-critic on an ensemble of critics: the learner of RLPD, RLIF and HIL-SERL.

Haarnoja et al. 2018 (arXiv 1812.05905) with the recipe of Ball et al. 2023 (RLPD, arXiv 2302.02948): layer norm, the
least of a random subset as target, the mean of all members for the actor, entropy out of the target unless asked for.
Actions are in the agent's unit, [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from robot_rl.errors import ConfigError
from robot_rl.rl.critic import QEnsemble, TdTarget, polyak_
from robot_rl.rl.optimise import frozen, step

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def tanh_gaussian_log_prob(u: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return log pi(tanh u) [B] of a tanh-squashed Gaussian, in the form that stays finite for large |u|.

    log(1 - tanh(u)^2) is written as 2 (log 2 - u - softplus(-2u)).

    Args:
        u: [B, A], before the tanh.
        mean: [B, A].
        log_std: [B, A].
    """
    gaussian = -0.5 * ((u - mean) * torch.exp(-log_std)).square() - log_std - _HALF_LOG_2PI
    squash = 2 * (math.log(2) - u - functional.softplus(-2 * u))
    return (gaussian - squash).sum(-1)


class GaussianActor(nn.Module):
    """A tanh-squashed Gaussian over actions.

    Args:
        n_features: C.
        action_dim: A.
        hidden: Widths of the hidden layers.
        layer_norm: Whether there is a layer norm before each activation.
        log_std_bounds: Least and largest log standard deviation.
    """

    def __init__(
        self,
        n_features: int,
        action_dim: int,
        *,
        hidden: Sequence[int] = (256, 256),
        layer_norm: bool = False,
        log_std_bounds: tuple[float, float] = (-10.0, 2.0),
    ) -> None:
        super().__init__()
        self.action_dim, self.log_std_bounds = action_dim, log_std_bounds
        layers: list[nn.Module] = []
        width = n_features
        for out in hidden:
            layers += [nn.Linear(width, out), *([nn.LayerNorm(out)] if layer_norm else []), nn.ReLU(inplace=True)]
            width = out
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2 * action_dim))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation, each [B, A], before the tanh."""
        mean, log_std = self.layers(features).chunk(2, dim=-1)
        return mean, log_std.clamp(*self.log_std_bounds)

    def sample(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions [B, A] and their log-probabilities [B] for standard normal `noise` [B, A]."""
        mean, log_std = self(features)
        u = mean + torch.exp(log_std) * noise
        return torch.tanh(u), tanh_gaussian_log_prob(u, mean, log_std)

    def choose(self, features: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return actions [B, A]: the mode, or a sample for standard normal `noise` [B, A]."""
        mean, log_std = self(features)
        return torch.tanh(mean if noise is None else mean + torch.exp(log_std) * noise)


@dataclass(frozen=True, kw_only=True)
class SacSettings:
    """How the agent learns; RLPD's defaults.

    Args:
        subset: Members that a target takes the least of.
        tau: Share by which targets move at each critic update.
        lr: Learning rate of critic, actor and temperature.
        temperature: First entropy weight.
        target_entropy: Entropy aimed at; `None` for -A / 2.
        backup_entropy: Whether the target holds the entropy term.
        bounds: Least and largest value there can be, to clip targets; `None` leaves them.
        max_grad_norm: Bound of each gradient's norm; `None` for none.
    """

    subset: int = 2
    tau: float = 0.005
    lr: float = 3e-4
    temperature: float = 1.0
    target_entropy: float | None = None
    backup_entropy: bool = False
    bounds: tuple[float, float] | None = None
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"`temperature` must be positive, got {self.temperature}")


@dataclass(frozen=True)
class SacBatch:
    """What an update needs.

    Args:
        obs: {name: [B, O, ...]}.
        action: [B, A] in the agent's unit.
        reward: [B], discounted sum over the segment.
        bootstrap: [B], factor on the next value.
        next_obs: {name: [B, O, ...]} at the segment's end.
    """

    obs: Mapping[str, Tensor]
    action: Tensor
    reward: Tensor
    bootstrap: Tensor
    next_obs: Mapping[str, Tensor]


class SacAgent(nn.Module):
    """Actor, critics, their targets, and the temperature.

    Args:
        critic: Values of single actions; its encoder is trained by its loss alone and read by the actor.
        actor: The policy.
        settings: How they learn.
    """

    def __init__(self, critic: QEnsemble, actor: GaussianActor, settings: SacSettings) -> None:
        super().__init__()
        critic.check_subset(settings.subset)
        self.critic, self.actor, self.settings = critic, actor, settings
        self.target_members = deepcopy(critic.members).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(settings.temperature)))
        wanted = settings.target_entropy
        self.target_entropy = -actor.action_dim / 2 if wanted is None else wanted
        self.critic_optimiser = torch.optim.Adam(critic.parameters(), lr=settings.lr, fused=True)
        learned = [*actor.parameters(), self.log_temperature]
        self.actor_optimiser = torch.optim.Adam(learned, lr=settings.lr, fused=True)

    @torch.no_grad()
    def act(self, obs: Mapping[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """Return actions [B, A]: the mode, or a sample for standard normal `noise` [B, A]."""
        return self.actor.choose(self.critic.encoder(obs), noise)

    def update_critic(self, batch: SacBatch, noise: Tensor, return_noise: Tensor | None = None) -> dict[str, float]:
        """Take one critic step, move the targets, and return what to log.

        Args:
            batch: Transitions.
            noise: Standard normal [B, A], for the next action.
            return_noise: Standard normal [B], for a critic whose head draws returns.

        Raises:
            TrainingError: The loss is not finite; nothing was changed.
        """
        target = self._target(batch, noise, return_noise)
        out = self.critic.out_of_features(self.critic.encoder(batch.obs), batch.action[:, None])
        given, norm = self.critic.head.loss(out, target), self.settings.max_grad_norm
        loss = step(self.critic_optimiser, given, self.critic.parameters(), what="critic", max_norm=norm)
        polyak_(self.target_members.parameters(), self.critic.members.parameters(), self.settings.tau)
        q = self.critic.head.mean(out.detach())
        return {"critic/loss": loss, "critic/q_mean": float(q.mean()), "critic/q_max": float(q.max())}

    def update_actor(self, batch: SacBatch, noise: Tensor) -> dict[str, float]:
        """Take one step of actor and temperature and return what to log; `noise` [B, A] is the action's.

        Neither loss has a gradient for the other's parameters, so that one step down their sum is a step of each.

        Raises:
            TrainingError: A loss is not finite; nothing was changed.
        """
        with torch.no_grad():
            features = self.critic.encoder(batch.obs)
        action, log_prob = self.actor.sample(features, noise)
        with frozen(self.critic):
            value = self.critic.head.improved(self.critic.out_of_features(features, action[:, None]))
        temperature = self.log_temperature.exp()
        norm = self.settings.max_grad_norm
        entropy = -float(log_prob.detach().mean())
        surplus = temperature * (entropy - self.target_entropy)
        loss = (temperature.detach() * log_prob - value).mean() + surplus
        step(self.actor_optimiser, loss, self.actor.parameters(), what="actor and temperature", max_norm=norm)
        return {"actor/entropy": entropy, "actor/temperature": float(temperature.detach())}

    @torch.no_grad()
    def _target(self, batch: SacBatch, noise: Tensor, return_noise: Tensor | None = None) -> TdTarget:
        s, features = self.settings, self.critic.encoder(batch.next_obs)
        if s.backup_entropy:
            action, log_prob = self.actor.sample(features, noise)
            cost = self.log_temperature.exp() * log_prob
        else:
            action, cost = self.actor.choose(features, noise), None
        next_out: Tensor = self.target_members(torch.cat([features, action], dim=1))
        return self.critic.head.target(
            next_out, batch.reward, batch.bootstrap, subset=s.subset, cost=cost, bounds=s.bounds, noise=return_noise
        )
