"""Residual reinforcement learning on a frozen base policy (ResFiT: Ankile et al. 2025, arXiv 2509.19301).

A small actor corrects the base within a bound, in the agent's unit: a = clip(a_base + alpha tanh(f(s, a_base)), -1, 1).
Its last layer starts at zero, so that training begins with the base itself. The critic sees the total action alone.

Options for small residuals, which a critic of total actions can hardly tell apart: `critic_sees_base` gives it base and
residual as two inputs, each of its own scale; `doubt` has the actor climb only what the members agree is a gain over
the base; `average` delivers the mean of the actors of many updates, for one alone swings from update to update; `wide`
lets a gripper be moved over its whole range, since a small residual cannot change when it closes. Departures from the
released code: the loss is the mean of squares over members, the executed (clamped) sum is stored and learned from, and
an episode that was cut off is bootstrapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robot_rl.errors import ConfigError
from robot_rl.rl.critic import QEnsemble, TdTarget, polyak_
from robot_rl.rl.optimise import frozen, step


@dataclass(frozen=True, kw_only=True)
class ResidualSettings:
    """How a residual learns; the defaults are those for one robot on a CPU.

    Args:
        alpha: Bound of the residual in the agent's unit.
        wide: Elements that have a bound of their own, by their place in the action, negative ones from the end: -1 for
            a gripper that comes last. Noise grows with the bound.
        wide_alpha: Bound of those.
        gamma_bounds: Least and largest value there can be, to clip targets; `None` leaves them.
        subset: Members that a target takes the least of.
        tau: Share by which targets move at each critic update.
        target_noise: Standard deviation of the noise on target actions.
        target_noise_clip: Bound of that noise.
        critic_lr: Learning rate of critic and encoder.
        actor_lr: Learning rate of the actor; together with `alpha` it decides how far training strays from the base.
        residual_penalty: Weight of the residual in the actor's loss: the squared share of its bound, summed over the
            elements.
        average: Share by which the delivered actor moves to the learning one at each of its updates; 1 delivers that.
        doubt: Deviations, over the members, that are taken off what the residual is said to gain; 0 climbs the mean.
        critic_sees_base: The critic reads the base's action and the residual in units of `alpha`, up to 2 either way,
            in place of their sum.
        max_grad_norm: Bound of the gradient's norm, of critic and actor each.
    """

    alpha: float = 0.1
    wide: Sequence[int] = ()
    wide_alpha: float = 1.0
    gamma_bounds: tuple[float, float] | None = (0.0, 1.0)
    subset: int = 2
    tau: float = 0.005
    target_noise: float = 0.05
    target_noise_clip: float = 0.3
    critic_lr: float = 3e-4
    actor_lr: float = 1e-4
    residual_penalty: float = 0.0
    average: float = 1.0
    doubt: float = 0.0
    critic_sees_base: bool = False
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.alpha <= 2 and 0 < self.wide_alpha <= 2):
            raise ConfigError(
                "`alpha` and `wide_alpha` must be in (0, 2] of the agent's unit, got "
                f"{self.alpha} and {self.wide_alpha}"
            )
        if not (0 < self.tau <= 1 and 0 < self.average <= 1):
            raise ConfigError(f"`tau` and `average` must be in (0, 1], got {self.tau} and {self.average}")
        if self.doubt < 0 or self.residual_penalty < 0:
            raise ConfigError(
                f"`doubt` and `residual_penalty` must be 0 or more, got {self.doubt} and {self.residual_penalty}"
            )


def bounds_of(action_dim: int, *, alpha: float, wide: Sequence[int] = (), wide_alpha: float = 1.0) -> np.ndarray:
    """Return the bound [A] of each element in the agent's unit, as of `ResidualSettings`.

    Raises:
        ConfigError: `wide` names an element that the action does not have.
    """
    if wrong := [place for place in wide if not -action_dim <= place < action_dim]:
        raise ConfigError(f"`wide` names the elements {wrong} of an action of {action_dim}")
    bounds = np.full(action_dim, alpha)
    bounds[list(wide)] = wide_alpha
    return bounds


def judged_width(action_dim: int, settings: ResidualSettings) -> int:
    """Return how many numbers the critic is given for an action of `action_dim`."""
    return 2 * action_dim if settings.critic_sees_base else action_dim


class ResidualActor(nn.Module):
    """alpha tanh(f(features, base action)), exactly zero before it has learned anything.

    Args:
        n_features: C, width of the features.
        action_dim: A.
        alpha: As of `ResidualSettings`.
        wide: As of `ResidualSettings`.
        wide_alpha: As of `ResidualSettings`.
        hidden: Widths of the hidden layers.

    Raises:
        ConfigError: As of `bounds_of`.
    """

    alpha: Tensor
    relative: Tensor

    def __init__(
        self,
        n_features: int,
        action_dim: int,
        *,
        alpha: float,
        wide: Sequence[int] = (),
        wide_alpha: float = 1.0,
        hidden: Sequence[int] = (256, 256),
    ) -> None:
        super().__init__()
        found = bounds_of(action_dim, alpha=alpha, wide=wide, wide_alpha=wide_alpha)
        bounds = torch.as_tensor(found, dtype=torch.float32)
        self.register_buffer("alpha", bounds, persistent=False)
        self.register_buffer("relative", bounds / alpha, persistent=False)
        layers: list[nn.Module] = []
        width = n_features + action_dim
        for out in hidden:
            layers += [nn.Linear(width, out), nn.LayerNorm(out), nn.ReLU()]
            width = out
        last = nn.Linear(width, action_dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, features: Tensor, base: Tensor) -> Tensor:
        """Return residuals [B, A] for features [B, C] and base actions [B, A] in the agent's unit."""
        out: Tensor = self.alpha * torch.tanh(self.layers(torch.cat([features, base], dim=1)))
        return out

    def total(self, features: Tensor, base: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return base plus residual [B, A], clamped to the agent's unit.

        `noise` [B, A], if given, is that of elements with the common bound; others get it in proportion to theirs.
        """
        total = base + self(features, base)
        clamped: Tensor = (total if noise is None else total + noise * self.relative).clamp(-1.0, 1.0)
        return clamped


@dataclass(frozen=True)
class ResidualBatch:
    """What an update needs, actions in the agent's unit.

    Args:
        obs: {name: [B, O, ...]}.
        action: [B, A], total action that was commanded.
        base: [B, A], what the base commanded at that step.
        reward: [B], discounted sum over the segment.
        bootstrap: [B], factor on the next value.
        next_obs: {name: [B, O, ...]} at the segment's end.
        next_base: [B, A], what the base commands there; not read where `bootstrap` is 0.
    """

    obs: Mapping[str, Tensor]
    action: Tensor
    base: Tensor
    reward: Tensor
    bootstrap: Tensor
    next_obs: Mapping[str, Tensor]
    next_base: Tensor


class ResidualAgent(nn.Module):
    """Actor, critics and their targets.

    Args:
        critic: Values of single actions; its encoder is trained by its loss alone and read by the actor.
        actor: The correction.
        settings: How they learn.

    Raises:
        ConfigError: A target cannot take the least of `subset` critics, or there is only one to doubt.
    """

    def __init__(self, critic: QEnsemble, actor: ResidualActor, settings: ResidualSettings) -> None:
        super().__init__()
        critic.check_subset(settings.subset)
        if settings.doubt and critic.n_members == 1:
            raise ConfigError(
                f"`doubt` {settings.doubt} needs two critics or more that may disagree, got one; set it to 0"
            )
        self.critic, self.actor, self.settings = critic, actor, settings
        self.target_members = deepcopy(critic.members).requires_grad_(False)
        self.target_actor = deepcopy(actor).requires_grad_(False)
        self.average_actor = deepcopy(actor).requires_grad_(False)
        self.critic_optimiser = torch.optim.AdamW(critic.parameters(), lr=settings.critic_lr, fused=True)
        self.actor_optimiser = torch.optim.AdamW(actor.parameters(), lr=settings.actor_lr, fused=True)

    def act(self, obs: Mapping[str, Tensor], base: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return total actions [B, A] of the learning actor; `noise` [B, A] is for exploration, before the clamp."""
        with torch.no_grad():
            return self.actor.total(self.critic.encoder(obs), base, noise)

    def update_critic(
        self, batch: ResidualBatch, noise: Tensor, return_noise: Tensor | None = None
    ) -> dict[str, float]:
        """Take one critic step, move the targets, and return what to log.

        Args:
            batch: Transitions.
            noise: Standard normal [B, A], for the target actions.
            return_noise: Standard normal [B], for a critic whose head draws returns.

        Raises:
            TrainingError: The loss is not finite; nothing was changed.
        """
        target = self._target(batch, noise, return_noise)
        out = self._out(self.critic.encoder(batch.obs), batch.action, batch.base)
        loss = self.critic.head.loss(out, target)
        norm = self.settings.max_grad_norm
        value = step(self.critic_optimiser, loss, self.critic.parameters(), what="critic", max_norm=norm)
        polyak_(self.target_members.parameters(), self.critic.members.parameters(), self.settings.tau)
        q = self.critic.head.mean(out.detach())
        return {
            "critic/loss": value, "critic/q_mean": float(q.mean()),
            "critic/q_max": float(q.max()), "critic/target_mean": float(target.mean.mean()),
        }  # fmt: skip

    def update_actor(self, batch: ResidualBatch) -> dict[str, float]:
        """Take one actor step, move its target, and return what to log.

        Raises:
            TrainingError: The loss is not finite; nothing was changed.
        """
        with torch.no_grad():
            features = self.critic.encoder(batch.obs)
        residual = self.actor(features, batch.base)
        total = (batch.base + residual).clamp(-1.0, 1.0)
        with frozen(self.critic):
            gain = self._gain(features, total, batch.base).mean()
        loss = -gain + self.settings.residual_penalty * (residual / self.actor.alpha).square().sum(1).mean()
        norm = self.settings.max_grad_norm
        value = step(self.actor_optimiser, loss, self.actor.parameters(), what="actor", max_norm=norm)
        polyak_(self.target_actor.parameters(), self.actor.parameters(), self.settings.tau)
        polyak_(self.average_actor.parameters(), self.actor.parameters(), self.settings.average)
        share = residual.detach().abs() / self.actor.alpha
        return {
            "actor/loss": value, "residual/mean": float(share.mean()),
            "residual/saturated": float((share > 0.95).float().mean()),
            "residual/clamped": float((total != batch.base + residual).float().mean()),
        }  # fmt: skip

    def _judged(self, total: Tensor, base: Tensor) -> Tensor:
        """Return what the critic is given for total actions [B, A]: those, or [B, 2 A]."""
        if not self.settings.critic_sees_base:
            return total
        return torch.cat([base, ((total - base) / self.actor.alpha).clamp(-2.0, 2.0)], dim=1)

    def _out(self, features: Tensor, total: Tensor, base: Tensor) -> Tensor:
        """Return the critic's outputs [E, B, F]."""
        return self.critic.out_of_features(features, self._judged(total, base)[:, None])

    def _gain(self, features: Tensor, total: Tensor, base: Tensor) -> Tensor:
        """Return what the actor climbs, [B]: the value, or by how much the members agree that it beats the base's."""
        out = self._out(features, total, base)
        if self.settings.doubt == 0:
            return self.critic.head.improved(out)
        with torch.no_grad():
            unmoved = self.critic.head.mean(self._out(features, base, base))
        gain = self.critic.head.mean(out) - unmoved
        spread = (gain.var(0) + 1e-8).sqrt()  # the root has no slope at 0, where training begins
        return gain.mean(0) - self.settings.doubt * spread

    @torch.no_grad()
    def _target(self, batch: ResidualBatch, noise: Tensor, return_noise: Tensor | None = None) -> TdTarget:
        s = self.settings
        features = self.critic.encoder(batch.next_obs)
        base = torch.where(batch.bootstrap[:, None] > 0, batch.next_base, torch.zeros_like(batch.next_base))
        jitter = (s.target_noise * noise).clamp(-s.target_noise_clip, s.target_noise_clip)
        total = self.target_actor.total(features, base, jitter)
        next_out: Tensor = self.target_members(torch.cat([features, self._judged(total, base)], dim=1))
        return self.critic.head.target(
            next_out, batch.reward, batch.bootstrap, subset=s.subset, bounds=s.gamma_bounds, noise=return_noise
        )
