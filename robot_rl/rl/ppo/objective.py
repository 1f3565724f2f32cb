"""The clipped objective over the steps of a denoising chain, and the small laws that go with it.

For an executed action with advantage A and chain x_0 ... x_T of its T tuned steps, step t has the ratio
r_t = exp(reduce(new_t - old_t)), taken over the executed rows of the chunk, and the loss is

    mean over samples and steps of max(-A_t r_t, -A_t clip(r_t, 1 - eps_t, 1 + eps_t)),   A_t = discount^(T-1-t) A.

* RL-100 (Lei et al. 2025, arXiv 2510.14830): `reduction` sum, no discount, one epsilon.
* DPPO (Ren et al. 2024, arXiv 2409.00588): `reduction` mean, discount below 1, epsilon growing over the steps,
  log-densities of an element clipped before the mean.

Departure: RL-100's paper adds the steps up, where its released code takes one optimiser step for each of them. We take
the mean, as DPPO does, so that losses and gradient norms do not grow with the number of steps.

An epsilon means another thing under each reduction: 0.01 per element over 112 elements is a ratio of 3.06 by the sum
and of 1.01 by the mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl.interfaces import ChunkModel


@dataclass(frozen=True, kw_only=True)
class ChainClip:
    """How far one update may move the chain; the constants of the objective.

    Args:
        epsilon: Clip range of the ratio; of the last step where there is a schedule.
        epsilon_base: Clip range of the first tuned step, from which it grows exponentially (DPPO, section 4.3); `None`
            for `epsilon` at every step.
        rate: Exponent of that growth.
        reduction: How the log-densities of a step's elements become one: `sum`, the joint density, or `mean`.
        discount: What an advantage loses with each step before the last (DPPO's gamma_den).
        log_prob_bounds: Elements' log-densities are clipped to this range first; beyond it they have no gradient.
            `None` for none.
        advantage_clip: Largest absolute normalised advantage; `None` for no bound.

    Raises:
        ConfigError: A number out of range, or an unknown reduction.
    """

    epsilon: float = 0.2
    epsilon_base: float | None = None
    rate: float = 3.0
    reduction: Literal["sum", "mean"] = "sum"
    discount: float = 1.0
    log_prob_bounds: tuple[float, float] | None = None
    advantage_clip: float | None = None

    def __post_init__(self) -> None:
        if not self.epsilon > 0 or (self.epsilon_base is not None and not self.epsilon_base > 0):
            raise ConfigError(f"`epsilon` and `epsilon_base` must be above 0, got {self.epsilon}, {self.epsilon_base}")
        if not self.rate > 0 or not 0 < self.discount <= 1:
            raise ConfigError(f"need `rate` > 0 and `discount` in (0, 1], got {self.rate} and {self.discount}")
        if self.reduction not in ("sum", "mean"):
            raise ConfigError(f"`reduction` must be 'sum' or 'mean', got {self.reduction!r}")
        if self.advantage_clip is not None and not self.advantage_clip > 0:
            raise ConfigError(f"`advantage_clip` must be above 0 or null, got {self.advantage_clip}")
        if self.log_prob_bounds is not None and not self.log_prob_bounds[0] < self.log_prob_bounds[1]:
            raise ConfigError(f"`log_prob_bounds` must be (low, high) with low < high, got {self.log_prob_bounds}")

    def epsilons(self, n_tuned: int) -> list[float]:
        """Return the clip range of each of `n_tuned` steps, the noisiest first."""
        if self.epsilon_base is None or n_tuned == 1:
            return [self.epsilon] * n_tuned
        grown = [math.expm1(self.rate * i / (n_tuned - 1)) / math.expm1(self.rate) for i in range(n_tuned)]
        return [self.epsilon_base + (self.epsilon - self.epsilon_base) * share for share in grown]

    def discounts(self, n_tuned: int) -> list[float]:
        """Return what the advantage is multiplied by at each of `n_tuned` steps, the noisiest first; the last is 1."""
        return [self.discount ** (n_tuned - 1 - i) for i in range(n_tuned)]


@dataclass(frozen=True)
class Surrogate:
    """The objective at one batch.

    Args:
        loss: Scalar, to be minimised.
        kl: Estimate of KL(old || new) of each tuned step, [T], without gradient: mean of r - 1 - log r, which is never
            negative (Schulman's k3). Of the reduced densities, so under `mean` it is smaller than the joint one.
        clip_fraction: Share of ratios outside their clip range, scalar without gradient.
        ratio_max: Largest ratio, scalar without gradient.
    """

    loss: Tensor
    kl: Tensor
    clip_fraction: Tensor
    ratio_max: Tensor


def surrogate(new: Tensor, old: Tensor, advantage: Tensor, clip: ChainClip) -> Surrogate:
    """Return the clipped objective.

    Args:
        new: Log-density of each element of the executed rows of each tuned step under the policy in training,
            [B, T, n, A]: `transition_log_prob(cond, chain)[:, :, executed_rows(model, n)]`.
        old: The same of the policy that acted, by the same code, without gradient.
        advantage: Of each executed chunk, [B], `normalised` already.
        clip: Constants.

    Raises:
        ConfigError: Shapes that do not fit.
    """
    if new.ndim != 4 or new.shape != old.shape or advantage.shape != new.shape[:1]:
        raise ConfigError(
            f"need `new` and `old` [B, T, n, A] and `advantage` [B], got {tuple(new.shape)}, {tuple(old.shape)} and "
            f"{tuple(advantage.shape)}"
        )
    if clip.log_prob_bounds is not None:
        new, old = new.clamp(*clip.log_prob_bounds), old.clamp(*clip.log_prob_bounds)
    difference = (new - old.detach()).flatten(2)  # [B, T, n A]
    log_ratio = difference.sum(dim=-1) if clip.reduction == "sum" else difference.mean(dim=-1)
    ratio, n_tuned = log_ratio.exp(), new.shape[1]
    epsilon = ratio.new_tensor(clip.epsilons(n_tuned))
    bounded = advantage if clip.advantage_clip is None else advantage.clamp(-clip.advantage_clip, clip.advantage_clip)
    gain = bounded.detach()[:, None] * ratio.new_tensor(clip.discounts(n_tuned))  # [B, T]
    loss = torch.maximum(-gain * ratio, -gain * ratio.clamp(1 - epsilon, 1 + epsilon)).mean()
    with torch.no_grad():
        kl = k3(log_ratio).mean(dim=0)
        outside = ((ratio - 1).abs() > epsilon).to(ratio.dtype).mean()
    return Surrogate(loss, kl, outside, ratio.detach().max())


def k3(log_ratio: Tensor) -> Tensor:
    """Return r - 1 - log r of each log r: an unbiased estimate of the divergence that is never negative."""
    return torch.expm1(log_ratio) - log_ratio


def normalised(advantage: Tensor) -> Tensor:
    """Return advantages [B] with mean 0 and sample standard deviation 1; zeros where they are all equal or only one."""
    if advantage.numel() < 2:
        return torch.zeros_like(advantage)
    std, rounding = advantage.std(), 1e-6 * advantage.abs().max()
    return torch.where(std > rounding, (advantage - advantage.mean()) / (std + 1e-8), torch.zeros_like(advantage))


def executed_rows(model: ChunkModel, n_execute: int) -> slice:
    """Return the rows of a chunk [H, A] that are executed: from the newest observation's tick on.

    Raises:
        ConfigError: The chunk has fewer.
    """
    first, room = -model.action_offset, model.horizon + model.action_offset
    if not 1 <= n_execute <= room:
        raise ConfigError(
            f"`n_execute` must be in [1, {room}] (horizon {model.horizon}, action_offset {model.action_offset}), got "
            f"{n_execute}"
        )
    return slice(first, first + n_execute)


def clipped_value_loss(value: Tensor, target: Tensor, old: Tensor | None = None, epsilon: float = 0.2) -> Tensor:
    """Return the squared error of state values [B], or where it is larger that of the value held near its old one.

    Args:
        value: V of the critic in training.
        target: What it should be.
        old: V of before the update; `None` for the plain error.
        epsilon: How far from `old` the second error looks, in the unit of the values.
    """
    plain = (value - target).square()
    if old is None:
        return plain.mean()
    held = old.detach() + (value - old.detach()).clamp(-epsilon, epsilon)
    return torch.maximum(plain, (held - target).square()).mean()


def adapted_lr(lr: float, kl: float, *, target: float = 0.02, low: float = 5e-7, high: float = 1e-5) -> float:
    """Return the learning rate after an update that moved the policy by `kl`.

    A third off where that was more than twice the target, half as much again where it was less than half of it (the
    rule of rsl_rl and of RL-100's code).

    Raises:
        ConfigError: A target or bounds that make no sense.
    """
    if not target > 0 or not 0 < low <= high:
        raise ConfigError(f"need `target` > 0 and 0 < `low` <= `high`, got {target}, {low} and {high}")
    if kl > 2 * target:
        lr /= 1.5
    elif kl < target / 2:
        lr *= 1.5
    return min(max(lr, low), high)
