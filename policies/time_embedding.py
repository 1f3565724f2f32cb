"""The sinusoidal embedding of a denoising time."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robot_rl.errors import ConfigError


class SinusoidalTime(nn.Module):
    """Embeds times as sines and cosines of falling frequencies, 1 down to 1e-4 radians per unit of time.

    The form of Vaswani et al. (2017) as Diffusion Policy uses it, made for times of 0 to 100; without parameters or
    buffers, so that LeRobot's state dict fits.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 4 or dim % 2:
            raise ConfigError(f"`time_dim` must be even and at least 4, got {dim}")
        self.dim = dim

    def forward(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B D"]:
        """Return the embedding of each time."""
        half = self.dim // 2
        rate = torch.exp(torch.arange(half, device=t.device, dtype=t.dtype) * (-math.log(10000.0) / (half - 1)))
        angle = t[:, None] * rate[None, :]  # [B, D/2]
        return torch.cat([angle.sin(), angle.cos()], dim=-1)
