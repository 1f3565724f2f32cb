"""The constants of an update, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from robot_rl.errors import ConfigError
from robot_rl.rl.ppo.objective import ChainClip

LrSchedule = Literal["constant", "linear", "kl"]


@dataclass(frozen=True, kw_only=True)
class PpoSettings:
    """How decisions become better weights.

    Args:
        n_execute: Actions executed of a chunk.
        clip: The objective's constants.
        gamma: Discount per control step.
        lam: Lambda of the advantages.
        reward_scale: Factor on rewards, so that returns are about 1.
        epochs: Passes over the decisions.
        minibatch: Decisions a step.
        actor_lr: Learning rate of the policy's Adam; where it starts, under a schedule.
        critic_lr: Learning rate of the critic's.
        lr_schedule: `linear` to 0 over the run, `kl` adapts it to the divergence (`adapted_lr`), or `constant`.
        lr_bounds: Least and largest rate under `kl`.
        kl_target: What `kl` aims at, per denoising step.
        kl_stop: The policy stops where the divergence per denoising step, the mean over the tuned steps, is more.
        grad_norm: Largest gradient norm, of policy and critic each.
        value_clip: How far a value may move from its old one before the clipped error counts; `None` for plain errors.
        warm_up_variance: The policy is left alone until the critic explains this share of the variance of new returns.
        warm_up_updates: But for at most so many updates.
        train_encoder: Whether the policy's encoder is tuned too.
        bc_weight: Weight of the imitation loss on demonstrations; 0 for none.

    Raises:
        ConfigError: A number out of range.
    """

    n_execute: int
    clip: ChainClip = field(default_factory=ChainClip)
    gamma: float = 0.997
    lam: float = 0.95
    reward_scale: float = 1.0
    epochs: int = 5
    minibatch: int = 128
    actor_lr: float = 1e-5
    critic_lr: float = 3e-4
    lr_schedule: LrSchedule = "linear"
    lr_bounds: tuple[float, float] = (5e-7, 1e-4)
    kl_target: float = 0.02
    kl_stop: float = 0.02
    grad_norm: float = 0.5
    value_clip: float | None = None
    warm_up_variance: float = 0.3
    warm_up_updates: int = 5
    train_encoder: bool = False
    bc_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("n_execute", "epochs", "minibatch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        for name in ("actor_lr", "critic_lr", "kl_target", "kl_stop", "grad_norm", "reward_scale"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"`{name}` must be above 0, got {getattr(self, name)}")
        if not 0 < self.gamma <= 1 or not 0 <= self.lam <= 1:
            raise ConfigError(f"need `gamma` in (0, 1] and `lam` in [0, 1], got {self.gamma} and {self.lam}")
        if self.lr_schedule not in ("constant", "linear", "kl"):
            raise ConfigError(f"`lr_schedule` must be constant, linear or kl, got {self.lr_schedule!r}")
        if self.warm_up_updates < 0 or self.bc_weight < 0:
            raise ConfigError(
                f"`warm_up_updates` and `bc_weight` must be 0 or more, got {self.warm_up_updates}, {self.bc_weight}"
            )
