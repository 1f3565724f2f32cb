"""Q-chunking: values of whole executed chunks (QC: Li, Zhou and Levine 2025, arXiv 2507.07969).

The critic sees the H actions that were executed, so that rewards of H steps can be summed without a bias from actions
that another policy chose. The target takes the best of N chunks that a frozen base proposes at the next state.

Departures: a chunk that an episode's end cuts short is learned from with its own length in the exponent, its missing
actions filled by the last one, where the released code leaves it out (`complete_only` does too); the base stays frozen;
and its proposals are drawn once an observation (`robot_rl.rl.candidates`).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robot_rl.errors import ConfigError
from robot_rl.rl.best_of_n import Aggregate, aggregated, best_of, values_of
from robot_rl.rl.critic import QEnsemble, ensemble_loss, polyak_, td_target
from robot_rl.rl.optimise import step


@dataclass(frozen=True, kw_only=True)
class ChunkSettings:
    """How a chunk critic learns; the paper's defaults, but for `bounds`.

    Args:
        aggregate: What stands for the members in target and choice: their mean, or the least.
        tau: Share by which targets move at each update.
        lr: Learning rate of critic and encoder.
        bounds: Least and largest value there can be, to clip targets; `None` leaves them.
        complete_only: Learn only from chunks that no end cut short, as released.
        max_grad_norm: Bound of the gradient's norm; `None` for none.
    """

    aggregate: Aggregate = "mean"
    tau: float = 0.005
    lr: float = 3e-4
    bounds: tuple[float, float] | None = (0.0, 1.0)
    complete_only: bool = False
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        aggregated(torch.zeros(1, 1), self.aggregate)
        if not 0 < self.tau <= 1:
            raise ConfigError(f"`tau` must be in (0, 1], got {self.tau}")


@dataclass(frozen=True)
class ChunkBatch:
    """What an update needs, actions in the agent's unit.

    Args:
        obs: {name: [B, O, ...]}.
        action: [B, H, A], what was executed.
        mask: [B, H], false for steps beyond the segment.
        reward: [B], discounted sum over the segment.
        bootstrap: [B], gamma^n' of the n' steps there are, or 0 where the task ended.
        next_obs: {name: [B, O, ...]} at the segment's end.
        candidates: [B, N, H, A], what the base proposes there; not read where `bootstrap` is 0.
    """

    obs: Mapping[str, Tensor]
    action: Tensor
    mask: Tensor
    reward: Tensor
    bootstrap: Tensor
    next_obs: Mapping[str, Tensor]
    candidates: Tensor


def complete(mask: Tensor) -> Tensor:
    """Return the weight [B] of chunks by the released rule: 1 where the last of their H steps [B, H] is inside."""
    return mask[:, -1].float()


class ChunkAgent(nn.Module):
    """A critic of chunks and its target; the policy is the base with the critic's choice.

    Args:
        critic: Values of H actions; its encoder is trained by its loss.
        settings: How it learns.
    """

    def __init__(self, critic: QEnsemble, settings: ChunkSettings) -> None:
        super().__init__()
        self.critic, self.settings = critic, settings
        self.target_members = deepcopy(critic.members).requires_grad_(False)
        self.optimiser = torch.optim.Adam(critic.parameters(), lr=settings.lr, fused=True)

    def update(self, batch: ChunkBatch) -> dict[str, float]:
        """Take one step, move the target, and return what to log.

        Raises:
            TrainingError: The loss is not finite; nothing was changed.
        """
        s = self.settings
        target, gain = self._target(batch)
        q = self.critic.q(batch.obs, batch.action)
        loss = ensemble_loss(q, target, complete(batch.mask) if s.complete_only else None)
        value = step(self.optimiser, loss, self.critic.parameters(), what="critic", max_norm=s.max_grad_norm)
        polyak_(self.target_members.parameters(), self.critic.members.parameters(), s.tau)
        return {
            "critic/loss": value, "critic/q_mean": float(q.detach().mean()), "critic/q_max": float(q.detach().max()),
            "critic/target_mean": float(target.mean()), "chunk/gain": float(gain),
            "chunk/cut_short": float((~batch.mask[:, -1]).float().mean()),
        }  # fmt: skip

    @torch.no_grad()
    def _target(self, batch: ChunkBatch) -> tuple[Tensor, Tensor]:
        """Return targets [B], and by how much the best candidate exceeds the average one, on average."""
        open_end = batch.bootstrap > 0
        candidates = torch.where(open_end[:, None, None, None], batch.candidates, torch.zeros_like(batch.candidates))
        q = values_of(self.critic, self.target_members, self.critic.encoder(batch.next_obs), candidates)
        value = aggregated(q, self.settings.aggregate)  # [B, N]
        _, top = best_of(value, candidates)
        gain = ((top - value.mean(1)) * open_end).sum() / open_end.sum().clamp(min=1)
        return td_target(batch.reward, batch.bootstrap, top, bounds=self.settings.bounds), gain
