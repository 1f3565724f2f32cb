"""The value of a state: what advantages are measured against."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from robot_rl.errors import ConfigError


class StateValue(nn.Module):
    """V(obs): an encoder of its own and a multilayer perceptron with layer norms.

    Args:
        encoder: Maps obs {name: [B, O, ...]} to features [B, C]; it is copied, so that what the critic learns does not
            move the policy.
        hidden: Widths of the hidden layers.
        train_encoder: Whether the copy learns too.

    Raises:
        ConfigError: No hidden layer, or an encoder that does not say its width.
    """

    def __init__(self, encoder: nn.Module, *, hidden: Sequence[int] = (256, 256), train_encoder: bool = True) -> None:
        super().__init__()
        width = getattr(encoder, "out_dim", None)
        if not isinstance(width, int) or not hidden:
            raise ConfigError(f"need an encoder with `out_dim` and `hidden` widths, got {width} and {list(hidden)}")
        self.encoder = copy.deepcopy(encoder).requires_grad_(train_encoder)
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.LayerNorm(size), nn.ReLU(inplace=True)]
            width = size
        last = nn.Linear(width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Return V [B]; zero everywhere before anything is learned."""
        return cast(Tensor, self.layers(self.encoder(obs)).squeeze(-1))

    @torch.no_grad()
    def values(self, obs: Mapping[str, Tensor], *, batch_size: int = 1024) -> Tensor:
        """Return V of many observations [L] without gradient, on the CPU, some at a time."""
        n, device = len(next(iter(obs.values()))), next(self.parameters()).device
        parts = [
            self({name: rows[i : i + batch_size].to(device) for name, rows in obs.items()}).cpu()
            for i in range(0, n, batch_size)
        ]
        return torch.cat(parts)
