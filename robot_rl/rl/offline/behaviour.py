"""The behaviour ensemble of Uni-O4 (Lei et al. 2023, arXiv 2311.03351): Gaussian imitators that are kept apart.

    L = sum over members i of  E_D[-log pi_i(a|s)] - alpha E_D[min(cap, KL(pi_i || sg pi_j))]

with pi_j the other member that likes the recorded action best. A member is a chain of one step from a start without
noise, which is a Gaussian with the step's std around one network call; Uni-O4 learns the std as well.

Departure: the released code (`heuristic`) estimates the distance on the data's actions as log pi_i - sg log pi_j, whose
gradient is that of imitation times 1 + alpha, so nothing drives its members apart. The divergence here is analytic.

A limit of both: with one fixed std imitation pulls a member to the mean with weight 1 and the divergence away from
another member with weight alpha, so where the data have one mode only alpha above 1 keeps members apart, up to the cap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from robot_rl.errors import ConfigError
from robot_rl.rl.offline.data import OfflineData
from robot_rl.rl.offline.iql import OnStep
from robot_rl.rl.offline.policy import OfflinePolicy
from robot_rl.rl.offline.stage import Stage
from robot_rl.rl.optimise import step

Disagreement = Literal["kl", "heuristic"]


@dataclass(frozen=True, kw_only=True)
class BehaviourSettings:
    """How the ensemble imitates.

    Args:
        n_members: Members; 1 for plain imitation.
        steps: Updates.
        batch_size: Transitions of an update.
        lr: Learning rate.
        alpha: Weight of the disagreement.
        cap: Divergence of a sample, in nats, beyond which it is not rewarded any more.
        disagreement: `kl`, or `heuristic` as released.
        checkpoint_every: Updates between checkpoints.
    """

    n_members: int = 4
    steps: int = 3000
    batch_size: int = 256
    lr: float = 3e-4
    alpha: float = 0.1
    cap: float = 1.0
    disagreement: Disagreement = "kl"
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("n_members", "steps", "batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.alpha < 0 or not self.cap > 0 or self.disagreement not in ("kl", "heuristic"):
            raise ConfigError(
                f"need `alpha` >= 0, `cap` > 0 and `disagreement` kl or heuristic, got {self.alpha}, {self.cap}, "
                f"{self.disagreement!r}"
            )


def best_other(log_prob: Tensor) -> Tensor:
    """Return for each member and sample which other member has the highest log-density, int64 [E, B], of [E, B].

    Raises:
        ConfigError: Only one member.
    """
    e = len(log_prob)
    if e < 2:
        raise ConfigError(f"disagreement needs at least 2 members, got {e}")
    own = torch.eye(e, dtype=torch.bool, device=log_prob.device)[:, :, None]
    return log_prob.expand(e, *log_prob.shape).masked_fill(own, -torch.inf).argmax(dim=1)


def gaussian_kl(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """Return KL(N(mean, std^2) || N(other_mean, other_std^2)) of each element."""
    ratio = (std / other_std).square()
    return 0.5 * (ratio + ((mean - other_mean) / other_std).square() - 1 - ratio.log())


def behaviour_loss(
    mean: Tensor,
    std: Tensor,
    target: Tensor,
    *,
    alpha: float,
    cap: float = math.inf,
    disagreement: Disagreement = "kl",
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the scalar loss, and the mean divergence from the best other member without gradient.

    Args:
        mean: [E, B, D], of each member.
        std: [E, B, D], or what broadcasts to it.
        target: [B, D], recorded actions.
        alpha: Weight of the disagreement.
        cap: Largest divergence of a sample that is rewarded.
        disagreement: `kl` or `heuristic`.
        mask: [B, D], false for elements that do not count; `None` for all.
    """
    std = std.expand_as(mean)
    counted = torch.ones_like(target) if mask is None else mask.to(target.dtype)
    z = (target - mean) / std
    log_prob = ((-0.5 * z.square() - std.log() - 0.5 * math.log(2 * math.pi)) * counted).sum(-1)  # [E, B]
    loss = -log_prob.mean(dim=1).sum()
    if len(mean) < 2:
        return loss, loss.new_zeros(())
    other = best_other(log_prob.detach())[..., None].expand_as(mean)
    kl = (gaussian_kl(mean, std, mean.detach().gather(0, other), std.detach().gather(0, other)) * counted).sum(-1)
    apart = kl.clamp(max=cap)
    if disagreement == "heuristic":
        apart = log_prob - log_prob.detach().gather(0, other[..., 0])
    return loss - alpha * apart.mean(dim=1).sum(), kl.detach().mean()


def gaussian(policy: OfflinePolicy, cond: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean [B, n A] and std (a number) of a one-step member's executed rows."""
    chain = policy.chain
    rest = cond.new_zeros(len(cond), chain.horizon, chain.action_dim)
    return policy.executed(chain.states(cond, rest, rest[:, None])).flatten(1), cond.new_tensor(chain.std[0])


def check_gaussian(policy: OfflinePolicy, cond: Tensor) -> None:
    """Raise unless a policy is a Gaussian around one network call.

    Raises:
        ConfigError: A chain of more than one step, or one that starts from noise.
    """
    chain = policy.chain
    noise = cond.new_ones(1, chain.horizon, chain.action_dim)
    starts_at = 0.0
    if chain.n_steps == 1:
        with torch.no_grad():
            starts_at = float(chain.states(cond[:1], noise, 0 * noise[:, None])[:, 0].abs().max())
    if chain.n_steps != 1 or starts_at != 0.0:
        raise ConfigError(
            f"a Gaussian member is a chain of 1 step from a start without noise, got {chain.n_steps} steps and noise "
            f"of {starts_at:g} at the start; set n_steps=1 and noise_scale=0 of a flow, or of a diffusion of samples"
        )


class _Members(nn.Module):
    """The members' modules, for one checkpoint."""

    def __init__(self, members: Sequence[OfflinePolicy]) -> None:
        super().__init__()
        self.members = nn.ModuleList(cast(nn.Module, member.chain) for member in members)


def fit_behaviour(
    members: Sequence[OfflinePolicy],
    data: OfflineData,
    settings: BehaviourSettings,
    *,
    seed: int,
    folder: str | Path | None = None,
    belongs_to: Mapping[str, Any] | None = None,
    on_step: OnStep | None = None,
) -> None:
    """Train the members' denoisers on the data, together; rows of a chunk that are not executed are not trained.

    Args:
        members: One-step policies with different weights.
        data: What to imitate.
        settings: How.
        seed: Of the batches.
        folder: For checkpoints, from the last of which it goes on; `None` for none.
        belongs_to: What else must be the same when it goes on, plain JSON.
        on_step: Called after every update with how many there were, and what to log.

    Raises:
        ConfigError: A member that is not Gaussian.
        TrainingError: The loss is not finite; the last checkpoint stands.
    """
    for member in members:
        check_gaussian(member, data.cond)
    trained = [p for member in members for p in member.chain.denoiser.parameters()]
    for p in trained:
        p.requires_grad_(True)
    optimiser = torch.optim.Adam(trained, lr=settings.lr)
    generator = torch.Generator().manual_seed(seed)
    constants = {**asdict(settings), "seed": seed, "transitions": len(data), **(belongs_to or {})}
    stage = Stage(folder, _Members(members), optimiser, generator, constants=constants)
    found = stage.restore()
    for update in range(1 if found is None else found[0] + 1, settings.steps + 1):
        batch = data.rows(torch.randint(len(data), (settings.batch_size,), generator=generator))
        parts = [gaussian(member, batch.cond) for member in members]
        mean, std = torch.stack([p[0] for p in parts]), torch.stack([p[1] for p in parts])[:, None, None]
        mask = batch.mask[..., None].expand_as(batch.action).flatten(1)
        loss, apart = behaviour_loss(
            mean, std, batch.action.flatten(1), alpha=settings.alpha, cap=settings.cap,
            disagreement=settings.disagreement, mask=mask,
        )  # fmt: skip
        value = step(optimiser, loss, trained, what="behaviour ensemble", max_norm=10.0)
        if on_step is not None:
            on_step(update, {"behaviour/loss": value, "behaviour/apart": float(apart)})
        if update % settings.checkpoint_every == 0 or update == settings.steps:
            stage.save(update)
