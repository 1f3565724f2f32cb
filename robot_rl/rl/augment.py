"""Pictures moved by a few pixels: DrQ's augmentation (Yarats et al. 2021, arXiv 2107.09645)."""

from __future__ import annotations

import torch
from torch import Tensor

from robot_rl.errors import ConfigError


def random_shift(pictures: Tensor, offset: Tensor, *, pad: int = 4) -> Tensor:
    """Return pictures shifted within a border that repeats their edge; all channels of one picture alike.

    Args:
        pictures: [B, H, W, C], any dtype.
        offset: Row and column of the window in the padded picture, int64 [B, 2] in [0, 2 pad]; (pad, pad) is none.
        pad: Width of the border.

    Raises:
        ConfigError: An offset outside the border.
    """
    if offset.numel() and (int(offset.min()) < 0 or int(offset.max()) > 2 * pad):
        raise ConfigError(f"`offset` must be in [0, {2 * pad}], got {int(offset.min())} to {int(offset.max())}")
    b, height, width = pictures.shape[:3]
    rows = (torch.arange(height, device=pictures.device) + offset[:, :1] - pad).clamp(0, height - 1)  # [B, H]
    cols = (torch.arange(width, device=pictures.device) + offset[:, 1:] - pad).clamp(0, width - 1)  # [B, W]
    batch = torch.arange(b, device=pictures.device)[:, None, None]
    return pictures[batch, rows[:, :, None], cols[:, None, :]]


def draw_shift(b: int, generator: torch.Generator, *, pad: int = 4) -> Tensor:
    """Return random offsets, int64 [B, 2] uniform in [0, 2 pad]."""
    return torch.randint(2 * pad + 1, (b, 2), generator=generator)
