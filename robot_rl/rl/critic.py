"""An ensemble of action values as one batched network: no Python loop over members.

Each layer holds the weights of all E members and multiplies them in one call. Layer norm bounds what a member says of
actions it has never seen (Ball et al. 2023, arXiv 2302.02948, section 4.2); targets take the least of a random subset
(REDQ, Chen et al. 2021, arXiv 2101.05982).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from robot_rl.errors import ConfigError


class EnsembleLinear(nn.Module):
    """E linear layers side by side: [E, B, I] to [E, B, O], each member drawn as `nn.Linear` draws its own.

    Args:
        n_members: E.
        n_in: I.
        n_out: O.
    """

    def __init__(self, n_members: int, n_in: int, n_out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(n_in)
        self.weight = nn.Parameter(torch.empty(n_members, n_in, n_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_members, 1, n_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Return x W + b for each member."""
        if self.weight.shape[-1] == 1:  # a product with one column is six times slower as a matrix product
            return (x * self.weight.mT).sum(-1, keepdim=True) + self.bias
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleLayerNorm(nn.Module):
    """Layer norm over the last axis, with scale and shift of each member's own.

    Args:
        n_members: E.
        width: W.
    """

    def __init__(self, n_members: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_members, 1, width))
        self.bias = nn.Parameter(torch.zeros(n_members, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised [E, B, W]."""
        return torch.addcmul(self.bias, nn.functional.layer_norm(x, x.shape[-1:]), self.weight)


class EnsembleMLP(nn.Module):
    """E multilayer perceptrons side by side: linear, layer norm, ReLU for each hidden layer, then linear.

    Args:
        n_members: E.
        n_in: Width of the input.
        n_out: Width of the output.
        hidden: Widths of the hidden layers.
        layer_norm: Whether there is a layer norm before each activation.
    """

    def __init__(
        self, n_members: int, n_in: int, n_out: int, *, hidden: Sequence[int] = (256, 256), layer_norm: bool = True
    ) -> None:
        super().__init__()
        self.n_members = n_members
        layers: list[nn.Module] = []
        for width in hidden:
            layers.append(EnsembleLinear(n_members, n_in, width))
            layers += [EnsembleLayerNorm(n_members, width)] if layer_norm else []
            layers.append(nn.ReLU(inplace=True))
            n_in = width
        self.layers = nn.Sequential(*layers, EnsembleLinear(n_members, n_in, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Return [E, B, O] for inputs [B, I] that all members share."""
        out: Tensor = self.layers(x.expand(self.n_members, *x.shape))
        return out


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
    ) -> None:
        super().__init__()
        for name, value in (("n_members", n_members), ("horizon", horizon), ("action_dim", action_dim)):
            if value < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {value}")
        self.n_members, self.horizon, self.action_dim = n_members, horizon, action_dim
        self.encoder = encoder
        self.members = EnsembleMLP(
            n_members, n_features + horizon * action_dim, 1, hidden=hidden, layer_norm=layer_norm
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
        out: Tensor = self.members(torch.cat([features, action.flatten(1)], dim=1))
        return out.squeeze(-1)


def subset_min(q: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    """Return the least value [B] of `size` members drawn anew at each call from q [E, B].

    Raises:
        ConfigError: A size outside [1, E].
    """
    if not 1 <= size <= len(q):
        raise ConfigError(f"`size` of the subset must be in [1, {len(q)}], got {size}")
    if size == len(q):
        return q.amin(0)
    chosen = torch.randperm(len(q), generator=generator, device="cpu")[:size].to(q.device)
    return q.index_select(0, chosen).amin(0)


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
