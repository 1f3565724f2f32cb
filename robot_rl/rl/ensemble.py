"""E multilayer perceptrons as one batched network: no Python loop over members.

Each layer holds the weights of all E members and multiplies them in one call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
