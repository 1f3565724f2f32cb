"""Implicit Q-learning on chunk transitions (Kostrikov et al. 2021, arXiv 2110.06169; RL-100, arXiv 2510.14830).

    L_V = mean |tau - 1{u < 0}| u^2,  u = min Q_target(s, a) - V(s)
    L_Q = mean over members of (Q_i(s, a) - (R + gamma^n V(s')))^2,  R the discounted rewards of the chunk

On features of the frozen encoder; only actions of the data are looked at. A = min Q - V is the actor's advantage.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robot_rl.errors import ConfigError
from robot_rl.rl.critic import ensemble_loss, polyak_, td_target
from robot_rl.rl.ensemble import EnsembleMLP
from robot_rl.rl.offline.data import OfflineData
from robot_rl.rl.offline.stage import Stage
from robot_rl.rl.optimise import step

OnStep = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class IqlSettings:
    """How a critic is fitted.

    Args:
        steps: Updates.
        batch_size: Transitions of an update.
        lr: Learning rate.
        expectile: tau, 0.5 the mean, towards 1 the best of the data. RL-100: 0.7 for single actions, 0.9 for chunks.
        polyak: Share that the target moves each time.
        target_every: Updates between two moves.
        bounds: Least and largest value there can be; targets are clipped to it. `None` for no bounds.
        n_members: Action values, of which the least counts.
        hidden: Widths of the hidden layers.
        checkpoint_every: Updates between checkpoints.
    """

    steps: int = 3000
    batch_size: int = 512
    lr: float = 3e-4
    expectile: float = 0.9
    polyak: float = 0.005
    target_every: int = 2
    bounds: tuple[float, float] | None = None
    n_members: int = 2
    hidden: Sequence[int] = (256, 256)
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        if not 0.5 <= self.expectile < 1:
            raise ConfigError(f"`expectile` must be in [0.5, 1), got {self.expectile}")
        if not 0 < self.polyak <= 1:
            raise ConfigError(f"`polyak` must be in (0, 1], got {self.polyak}")
        for name in ("steps", "batch_size", "target_every", "n_members", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {getattr(self, name)}")


def expectile_loss(u: Tensor, expectile: float) -> Tensor:
    """Return |tau - 1{u < 0}| u^2 of each element."""
    return torch.where(u < 0, 1 - expectile, expectile) * u.square()


class IqlCritic(nn.Module):
    """Twin (or more) action values with layer norm, their targets, and a state value.

    Args:
        cond_dim: C.
        n_execute: n, actions of a chunk.
        action_dim: A.
        settings: How it is fitted.
    """

    def __init__(self, cond_dim: int, n_execute: int, action_dim: int, settings: IqlSettings) -> None:
        super().__init__()
        self.settings, self.n_execute = settings, n_execute
        hidden = tuple(settings.hidden)
        self.online = EnsembleMLP(settings.n_members, cond_dim + n_execute * action_dim, 1, hidden=hidden)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.value = EnsembleMLP(1, cond_dim, 1, hidden=hidden)
        self.updates = 0

    def q(self, cond: Tensor, action: Tensor) -> Tensor:
        """Return action values [E, B] of chunks [B, n, A] under conditions [B, C]."""
        return self._of(self.online, cond, action)

    def v(self, cond: Tensor) -> Tensor:
        """Return state values [B]."""
        out: Tensor = self.value(cond)
        return out[0, :, 0]

    def advantage(self, cond: Tensor, action: Tensor) -> Tensor:
        """Return min Q - V, [B]."""
        return self.q(cond, action).amin(0) - self.v(cond)

    @staticmethod
    def _of(members: EnsembleMLP, cond: Tensor, action: Tensor) -> Tensor:
        out: Tensor = members(torch.cat([cond, action.flatten(1)], dim=1))
        return out[..., 0]

    def losses(self, batch: OfflineData) -> tuple[Tensor, Tensor]:
        """Return the losses of V and of Q."""
        with torch.no_grad():
            q = self._of(self.target, batch.cond, batch.action).amin(0)
            y = td_target(batch.reward, batch.bootstrap, self.v(batch.next_cond), bounds=self.settings.bounds)
        value = expectile_loss(q - self.v(batch.cond), self.settings.expectile).mean()
        return value, ensemble_loss(self.q(batch.cond, batch.action), y)

    def move_target(self) -> None:
        """Count an update and move the target if it is time."""
        self.updates += 1
        if self.updates % self.settings.target_every == 0:
            polyak_(self.target.parameters(), self.online.parameters(), self.settings.polyak)


def fit_critic(
    data: OfflineData,
    settings: IqlSettings,
    *,
    seed: int,
    folder: str | Path | None = None,
    belongs_to: Mapping[str, Any] | None = None,
    on_step: OnStep | None = None,
) -> IqlCritic:
    """Return a critic fitted on transitions.

    Args:
        data: The transitions.
        settings: How.
        seed: Of weights and batches.
        folder: For checkpoints, from the last of which it goes on; `None` for none.
        belongs_to: What else must be the same when it goes on, plain JSON.
        on_step: Called after every update with how many there were, and the losses.

    Raises:
        TrainingError: A loss is not finite; the last checkpoint stands.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critic = IqlCritic(data.cond.shape[1], data.action.shape[1], data.action.shape[2], settings)
    trained = [p for p in critic.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=settings.lr)
    generator = torch.Generator().manual_seed(seed)
    constants = {**asdict(settings), "hidden": list(settings.hidden), "seed": seed, "transitions": len(data),
                 "rewards": float(data.reward.sum()), **(belongs_to or {})}  # fmt: skip
    constants["bounds"] = None if settings.bounds is None else list(settings.bounds)
    stage = Stage(folder, critic, optimiser, generator, constants=constants)
    found = stage.restore()
    critic.updates = 0 if found is None else found[0]
    while critic.updates < settings.steps:
        batch = data.rows(torch.randint(len(data), (settings.batch_size,), generator=generator))
        value, action_value = critic.losses(batch)
        step(optimiser, value + action_value, trained, what="offline critic")
        critic.move_target()
        if on_step is not None:
            on_step(critic.updates, {"critic/v": float(value.detach()), "critic/q": float(action_value.detach())})
        if critic.updates % settings.checkpoint_every == 0 or critic.updates == settings.steps:
            stage.save(critic.updates)
    return critic.eval().requires_grad_(False)
