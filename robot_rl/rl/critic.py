"""An ensemble of action values as one batched network, what its outputs mean, and what they are fitted to.

Layer norm bounds what a member says of actions it has never seen (Ball et al. 2023, arXiv 2302.02948, section 4.2);
targets take the least of a random subset (REDQ, Chen et al. 2021, arXiv 2101.05982).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robot_rl.errors import ConfigError
from robot_rl.rl.ensemble import EnsembleMLP


@dataclass(frozen=True)
class TdTarget:
    """What values are fitted to.

    Args:
        mean: [B].
        sample: [B], a return drawn at random, where a head learns more than the mean.
    """

    mean: Tensor
    sample: Tensor | None = None


class ValueHead(nn.Module, abc.ABC):
    """What the numbers that a member puts out mean, and how they are learned. Abstract.

    Args:
        n_members: E.
    """

    n_out: int
    """F, numbers for each member and item."""
    draws: bool
    """Whether targets take a standard normal number an item."""

    def __init__(self, n_members: int) -> None:
        super().__init__()
        self.n_members = n_members

    @abc.abstractmethod
    def mean(self, out: Tensor) -> Tensor:
        """Return the values [E, B] that outputs [E, B, F] stand for."""

    @abc.abstractmethod
    def improved(self, out: Tensor) -> Tensor:
        """Return the value [B] that an actor is to climb, for outputs [E, B, F]."""

    @abc.abstractmethod
    def target(
        self,
        next_out: Tensor,
        reward: Tensor,
        bootstrap: Tensor,
        *,
        subset: int,
        cost: Tensor | None = None,
        bounds: tuple[float, float] | None = None,
        noise: Tensor | None = None,
    ) -> TdTarget:
        """Return what to learn.

        Args:
            next_out: [E, B, F], the target members on the next state and action.
            reward: [B], discounted rewards of the segment.
            bootstrap: [B], factor on the next value.
            subset: Members, drawn anew at each call, of which the least counts.
            cost: [B], subtracted from the next value, such as the weighted log-probability of the next action.
            bounds: Least and largest possible value, if known.
            noise: [B] standard normal, for heads that draw.
        """

    @abc.abstractmethod
    def loss(self, out: Tensor, target: TdTarget) -> Tensor:
        """Return the scalar loss of outputs [E, B, F]; running statistics, if any, move with it."""


class MeanHead(ValueHead):
    """One number a member, the value itself, fitted by squares; the actor climbs the members' mean."""

    n_out, draws = 1, False
    always: tuple[float, float] | None = None
    """Bounds of targets that hold whatever the caller says."""

    def mean(self, out: Tensor) -> Tensor:
        """Return the outputs as they are, [E, B]."""
        return out.squeeze(-1)

    def improved(self, out: Tensor) -> Tensor:
        """Return the members' mean [B]."""
        return self.mean(out).mean(0)

    def target(
        self,
        next_out: Tensor,
        reward: Tensor,
        bootstrap: Tensor,
        *,
        subset: int,
        cost: Tensor | None = None,
        bounds: tuple[float, float] | None = None,
        noise: Tensor | None = None,
    ) -> TdTarget:
        """Return R + bootstrap (least of the subset - cost)."""
        value = subset_min(self.mean(next_out), subset)
        value = value if cost is None else value - cost
        return TdTarget(td_target(reward, bootstrap, value, bounds=self.always or bounds))

    def loss(self, out: Tensor, target: TdTarget) -> Tensor:
        """Return the mean square over members and batch."""
        return ensemble_loss(self.mean(out), target.mean)


class QEnsemble(nn.Module):
    """A `robot_rl.interfaces.Critic`: the value of an action, or of a chunk, by E members.

    Args:
        encoder: Maps obs {name: [B, O, ...]} to features [B, C]; shared by the members, trained by this critic's loss.
        n_features: C.
        action_dim: A.
        horizon: H, actions that one value is of; 1 for single actions.
        n_members: E.
        hidden: Widths of the hidden layers.
        layer_norm: Whether there is a layer norm before each activation.
        head: Makes what the members' outputs mean, given E; `None` for plain values.

    Raises:
        ConfigError: A size below 1.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        n_features: int,
        action_dim: int,
        horizon: int = 1,
        n_members: int = 10,
        hidden: Sequence[int] = (256, 256),
        layer_norm: bool = True,
        head: Callable[[int], ValueHead] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("n_members", n_members), ("horizon", horizon), ("action_dim", action_dim)):
            if value < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {value}")
        self.n_members, self.horizon, self.action_dim = n_members, horizon, action_dim
        self.encoder = encoder
        self.head = MeanHead(n_members) if head is None else head(n_members)
        self.members = EnsembleMLP(
            n_members, n_features + horizon * action_dim, self.head.n_out, hidden=hidden, layer_norm=layer_norm
        )

    def check_subset(self, size: int) -> None:
        """Raise unless a target can take the least of `size` members.

        Raises:
            ConfigError: It is outside [1, E].
        """
        if not 1 <= size <= self.n_members:
            raise ConfigError(f"`subset` must be in [1, {self.n_members}], got {size}")

    def q(self, obs: Mapping[str, Tensor], action: Tensor) -> Tensor:
        """Return values [E, B] of `action` [B, H, A] in obs {name: [B, O, ...]}."""
        return self.q_of_features(self.encoder(obs), action)

    def q_of_features(self, features: Tensor, action: Tensor) -> Tensor:
        """Return values [E, B] of `action` [B, H, A], given the features [B, C] of what was seen."""
        return self.head.mean(self.out_of_features(features, action))

    def out_of_features(self, features: Tensor, action: Tensor) -> Tensor:
        """Return what the members put out, [E, B, F], which `head` understands."""
        out: Tensor = self.members(torch.cat([features, action.flatten(1)], dim=1))
        return out


def subset_least(q: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    """Return which member [B] has the least value among `size` of them, drawn anew at each call from q [E, B].

    Raises:
        ConfigError: A size outside [1, E].
    """
    chosen = _drawn(len(q), size, generator).to(q.device)
    return chosen[q.index_select(0, chosen).argmin(0)]


def subset_min(q: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    """Return the least value [B] of `size` members drawn anew at each call from q [E, B].

    Raises:
        ConfigError: A size outside [1, E].
    """
    chosen = _drawn(len(q), size, generator)
    return q.amin(0) if size == len(q) else q.index_select(0, chosen.to(q.device)).amin(0)


def _drawn(n: int, size: int, generator: torch.Generator | None) -> Tensor:
    if not 1 <= size <= n:
        raise ConfigError(f"`size` of the subset must be in [1, {n}], got {size}")
    return torch.arange(n) if size == n else torch.randperm(n, generator=generator, device="cpu")[:size]


def ensemble_loss(q: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean over members and batch of (Q - y)^2, each member against the same target.

    The released ResFiT code squares the mean absolute error over members instead, which couples them.

    Args:
        q: [E, B].
        target: [B].
        weight: [B] weights of the samples; `None` for 1.
    """
    error = (q - target).square()
    return error.mean() if weight is None else (error * weight).mean()


@torch.no_grad()
def polyak_(target: Iterable[Tensor], online: Iterable[Tensor], tau: float) -> None:
    """Move target parameters a share `tau` of the way to the online ones, in place."""
    torch._foreach_lerp_(list(target), list(online), tau)


def td_target(
    reward: Tensor, bootstrap: Tensor, next_q: Tensor, *, bounds: tuple[float, float] | None = None
) -> Tensor:
    """Return y = R + bootstrap * Q' [B], clipped to what a value can be.

    Args:
        reward: [B], discounted rewards of the segment.
        bootstrap: [B], gamma^n', or 0 where the task ended (`robot_rl.rl.returns.Segments`).
        next_q: [B], value of the next state.
        bounds: Least and largest possible value, if known.
    """
    y = reward + bootstrap * next_q
    return y if bounds is None else y.clamp(*bounds)
