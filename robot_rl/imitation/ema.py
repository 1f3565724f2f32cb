"""Exponential moving average of a model's weights; these are the weights that are evaluated and delivered.

The warm-up law 1 - (1 + t)^-power is Diffusion Policy's (Chi et al. 2023, `ema_model.py`; power 0.75, cap 0.9999).
Departure: the released code makes two updates with decay 0 before t counts up, ours makes one (t = 0).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def ema_decay(updates: int, *, max_decay: float, power: float | None) -> float:
    """Return the share of the old average that the next update keeps.

    Args:
        updates: t, how many updates the average has already had.
        max_decay: Cap, and the value itself when `power` is `None`.
        power: Exponent of the warm-up 1 - (1 + t)^-power; `None` means a constant decay.
    """
    return max_decay if power is None else min(max_decay, 1.0 - (1.0 + updates) ** -power)


class Ema:
    """A second copy of a model whose weights trail the trained ones.

    Trained parameters are averaged; frozen parameters and buffers are copied (`sync`), so normalisers stay exact.

    Args:
        model: The model in training, whose present weights are the first average.
        max_decay: Cap of the decay.
        power: Exponent of the warm-up, `None` for a constant decay.
    """

    def __init__(self, model: nn.Module, *, max_decay: float, power: float | None) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.updates = 0
        self.max_decay, self.power = max_decay, power
        own: list[Tensor] = list(self.model.parameters())
        pairs: list[tuple[Tensor, Tensor]] = list(zip(own, model.parameters(), strict=True))
        self._average = [average for average, weight in pairs if weight.requires_grad]
        self._weight = [weight for _, weight in pairs if weight.requires_grad]
        self._fixed = [(average, weight) for average, weight in pairs if not weight.requires_grad]
        self._fixed += list(zip(self.model.buffers(), model.buffers(), strict=True))

    @property
    def decay(self) -> float:
        """Share of the old average that the next update keeps."""
        return ema_decay(self.updates, max_decay=self.max_decay, power=self.power)

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the trained weights as they are now."""
        torch._foreach_lerp_(self._average, self._weight, 1.0 - self.decay)
        self.updates += 1

    @torch.no_grad()
    def sync(self) -> None:
        """Copy what is not averaged. Call before the averaged model is used or saved."""
        for average, value in self._fixed:
            average.copy_(value)
