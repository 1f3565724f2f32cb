"""What the learner's loop knows of an algorithm, and the two that come with it: residual, and soft actor-critic (RLPD).

The loop draws batches in physical units; here they become the agent's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from robot_rl.interfaces import Policy
from robot_rl.rl.actions import ActionScaler
from robot_rl.rl.critic import QEnsemble, ValueHead
from robot_rl.rl.feed import Batch
from robot_rl.rl.residual import ResidualActor, ResidualAgent, ResidualBatch, ResidualSettings, judged_width
from robot_rl.rl.sac import GaussianActor, SacAgent, SacBatch, SacSettings
from robot_rl.rl.steps import GaussianStep, ResidualStep
from robot_rl.values import Episode


@runtime_checkable
class Algorithm(Protocol):
    """An agent, what of it drives a robot, and how it learns from a batch."""

    agent: nn.Module
    policy: nn.Module
    """Whose weights the actors are given: a `robot_rl.rl.runner.ExploringPolicy`, unless there is a `driver`."""
    driver: Policy | None
    """What drives with `policy`'s weights in place of base and correction: chunks that a critic chose."""
    streams: Mapping[str, Sequence[int]]
    """Extras that each transition must carry."""
    prepare: Callable[[Episode], Episode] | None
    """Adds those extras that are not recorded, to demonstrations and to what was played; `None` for none."""
    horizon: int
    """H, actions of a transition."""
    bounds: tuple[float, float] | None
    """Least and largest value there can be."""

    def update(self, batch: Batch, generator: torch.Generator, *, actor: bool) -> dict[str, float]:
        """Learn from a batch, the actor only if asked, and return what to log.

        Raises:
            TrainingError: A loss is not finite.
        """

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by name."""


def features_of(encoder: nn.Module) -> int:
    """Return the width of an encoder's features."""
    return int(cast(Any, encoder).out_dim)


def standard_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normal numbers of a tensor's shape, on its device."""
    return torch.randn(like.shape, generator=generator).to(like.device)


def return_noise(critic: QEnsemble, reward: Tensor, generator: torch.Generator) -> Tensor | None:
    """Return standard normal numbers [B] if the critic's head draws returns."""
    return standard_normal(reward, generator) if critic.head.draws else None


class ResidualAlgorithm:
    """ResFiT on a frozen base.

    Args:
        encoder: Maps obs {name: [B, 1, ...]} to features [B, out_dim].
        scaler: Between physical actions and the agent's unit.
        names: Observations that the encoder reads.
        settings: How it learns.
        n_members: Critics.
        hidden: Widths of the critics' and the actor's hidden layers.
        noise: Exploration, as of `ResidualStep`.
        warm_up_noise: As of `ResidualStep`.
        correlation: As of `ResidualStep`.
        hold: As of `ResidualStep`; `n_step` should be a multiple, so that segments end where decisions are made.
        head: What the critics put out, as of `QEnsemble`.
    """

    driver: Policy | None = None
    prepare: Callable[[Episode], Episode] | None = None
    horizon = 1

    def __init__(
        self,
        encoder: nn.Module,
        scaler: ActionScaler,
        names: Sequence[str],
        *,
        settings: ResidualSettings,
        n_members: int = 5,
        hidden: Sequence[int] = (256, 256),
        noise: float = 0.05,
        warm_up_noise: float = 0.2,
        correlation: float = 0.0,
        hold: int = 1,
        head: Callable[[int], ValueHead] | None = None,
    ) -> None:
        a, c = len(scaler.half), features_of(encoder)
        width = judged_width(a, settings)
        critic = QEnsemble(encoder, n_features=c, action_dim=width, n_members=n_members, hidden=hidden, head=head)
        residual = ResidualActor(
            c, a, alpha=settings.alpha, wide=settings.wide, wide_alpha=settings.wide_alpha, hidden=hidden
        )
        self.agent = ResidualAgent(critic, residual, settings)
        self.policy: nn.Module = ResidualStep(
            encoder, residual, scaler, names, noise=noise, warm_up_noise=warm_up_noise, correlation=correlation,
            hold=hold, average=self.agent.average_actor,
        )  # fmt: skip
        self.streams: Mapping[str, Sequence[int]] = {"base_action": (a,)}
        self.bounds = settings.gamma_bounds
        self._scaler = scaler

    def update(self, batch: Batch, generator: torch.Generator, *, actor: bool) -> dict[str, float]:
        """Take a critic step, and an actor step if asked."""
        unit = self._scaler.to_agent
        data = ResidualBatch(
            obs=batch.obs,
            action=unit(batch.action[:, 0]),
            base=unit(batch.extras["base_action"]),
            reward=batch.reward,
            bootstrap=batch.bootstrap,
            next_obs=batch.next_obs,
            next_base=unit(batch.next_extras["base_action"]),
        )
        values = self.agent.update_critic(
            data, standard_normal(data.action, generator), return_noise(self.agent.critic, data.reward, generator)
        )
        return {**values, **self.agent.update_actor(data)} if actor else values

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by name."""
        return {"critic": self.agent.critic_optimiser, "actor": self.agent.actor_optimiser}


class SacAlgorithm:
    """RLPD: soft actor-critic from scratch, with demonstrations in half of each batch.

    Args:
        encoder: Maps obs {name: [B, 1, ...]} to features [B, out_dim].
        scaler: Between physical actions and the agent's unit.
        names: Observations that the encoder reads.
        settings: How it learns.
        n_members: Critics.
        hidden: Widths of the critics' and the actor's hidden layers.
        layer_norm: Whether there is a layer norm before each activation, in both.
        head: What the critics put out, as of `QEnsemble`.
    """

    driver: Policy | None = None
    prepare: Callable[[Episode], Episode] | None = None
    horizon = 1

    def __init__(
        self,
        encoder: nn.Module,
        scaler: ActionScaler,
        names: Sequence[str],
        *,
        settings: SacSettings,
        n_members: int = 5,
        hidden: Sequence[int] = (256, 256),
        layer_norm: bool = True,
        head: Callable[[int], ValueHead] | None = None,
    ) -> None:
        a, c = len(scaler.half), features_of(encoder)
        critic = QEnsemble(
            encoder, n_features=c, action_dim=a, n_members=n_members, hidden=hidden, layer_norm=layer_norm, head=head
        )
        gaussian = GaussianActor(c, a, hidden=hidden, layer_norm=layer_norm)
        self.agent = SacAgent(critic, gaussian, settings)
        self.policy: nn.Module = GaussianStep(encoder, gaussian, scaler, names)
        self.streams: Mapping[str, Sequence[int]] = {}
        self.bounds = settings.bounds
        self._scaler = scaler

    def update(self, batch: Batch, generator: torch.Generator, *, actor: bool) -> dict[str, float]:
        """Take a critic step, and a step of actor and temperature if asked."""
        data = SacBatch(
            obs=batch.obs,
            action=self._scaler.to_agent(batch.action[:, 0]),
            reward=batch.reward,
            bootstrap=batch.bootstrap,
            next_obs=batch.next_obs,
        )
        values = self.agent.update_critic(
            data, standard_normal(data.action, generator), return_noise(self.agent.critic, data.reward, generator)
        )
        if actor:
            values |= self.agent.update_actor(data, standard_normal(data.action, generator))
        return values

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by name."""
        return {"critic": self.agent.critic_optimiser, "actor": self.agent.actor_optimiser}
