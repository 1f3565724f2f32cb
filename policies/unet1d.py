"""Conditional U-Net denoiser over time, with LeRobot's parameter names, so that its checkpoints load by key.

The temporal U-Net of Janner et al. 2022 (arXiv 2205.09991) with FiLM conditioning, as Diffusion Policy uses it. A
checkpoint's keys are ours behind the prefix `diffusion.unet.` (LeRobot 0.6).
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policies.time_embedding import SinusoidalTime
from robot_rl.errors import ConfigError


class _ConvBlock(nn.Module):
    """Convolution, group norm, Mish."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int, n_groups: int) -> None:
        super().__init__()
        conv = nn.Conv1d(c_in, c_out, kernel_size, padding=kernel_size // 2)
        self.block = nn.Sequential(conv, nn.GroupNorm(n_groups, c_out), nn.Mish())

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class _ResidualBlock(nn.Module):
    """Two convolution blocks with FiLM between them and a shortcut."""

    def __init__(
        self, c_in: int, c_out: int, cond_dim: int, *, kernel_size: int, n_groups: int, film_scale: bool
    ) -> None:
        super().__init__()
        self.film_scale = film_scale
        self.conv1 = _ConvBlock(c_in, c_out, kernel_size, n_groups)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(cond_dim, c_out * (2 if film_scale else 1)))
        self.conv2 = _ConvBlock(c_out, c_out, kernel_size, n_groups)
        self.residual_conv = nn.Conv1d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        h = self.conv1(x)
        film = self.cond_encoder(cond)[..., None]  # [B, C or 2C, 1]
        if self.film_scale:
            scale, shift = film.chunk(2, dim=1)
            h = scale * h + shift
        else:
            h = h + film
        return self.conv2(h) + self.residual_conv(x)


class ConditionalUnet1d(nn.Module):
    """Denoises a chunk by convolutions along time.

    Args:
        action_dim: A, action width.
        horizon: H, actions in a chunk; divisible by 2 ** (levels - 1).
        cond_dim: Width of the encoder's condition vector.
        down_dims: Channels of each level; (512, 1024, 2048) are LeRobot's, about 256 M parameters.
        kernel_size: Odd width of the convolutions.
        n_groups: Groups of the group norms; divides every channel number.
        time_dim: Width of the time embedding.
        film_scale: Whether the condition scales as well as shifts.

    Raises:
        ConfigError: A horizon or channels that do not divide, or an even kernel.
    """

    def __init__(
        self,
        action_dim: int,
        horizon: int,
        cond_dim: int,
        *,
        down_dims: Sequence[int] = (256, 512, 1024),
        kernel_size: int = 5,
        n_groups: int = 8,
        time_dim: int = 128,
        film_scale: bool = True,
    ) -> None:
        super().__init__()
        _check(horizon, down_dims, kernel_size, n_groups)
        self.horizon, self.action_dim = horizon, action_dim
        self.diffusion_step_encoder = nn.Sequential(
            SinusoidalTime(time_dim), nn.Linear(time_dim, 4 * time_dim), nn.Mish(), nn.Linear(4 * time_dim, time_dim)
        )

        def residual(c_in: int, c_out: int) -> _ResidualBlock:
            return _ResidualBlock(
                c_in, c_out, time_dim + cond_dim, kernel_size=kernel_size, n_groups=n_groups, film_scale=film_scale
            )

        dims = list(down_dims)
        last = len(dims) - 1
        self.down_modules = nn.ModuleList(
            nn.ModuleList([
                residual(c_in, c_out), residual(c_out, c_out),
                nn.Conv1d(c_out, c_out, 3, 2, 1) if level < last else nn.Identity(),
            ])
            for level, (c_in, c_out) in enumerate(zip([action_dim, *dims[:-1]], dims, strict=True))
        )  # fmt: skip
        self.mid_modules = nn.ModuleList([residual(dims[-1], dims[-1]) for _ in range(2)])
        self.up_modules = nn.ModuleList(
            nn.ModuleList([
                residual(2 * c_in, c_out), residual(c_out, c_out), nn.ConvTranspose1d(c_out, c_out, 4, 2, 1),
            ])
            for c_in, c_out in zip(dims[:0:-1], dims[-2::-1], strict=True)
        )  # fmt: skip
        self.final_conv = nn.Sequential(
            _ConvBlock(dims[0], dims[0], kernel_size, n_groups), nn.Conv1d(dims[0], action_dim, 1)
        )

    def forward(
        self, x: Float[Tensor, "B H A"], t: Float[Tensor, "B"], cond: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B H A"]:
        """Return the native prediction for the noisy chunk `x` at time `t` under the condition."""
        context = torch.cat([self.diffusion_step_encoder(t), cond], dim=-1)
        h = x.transpose(1, 2)  # [B, A, H]
        skips = []
        for level in self.down_modules:
            first, second, shrink = cast(nn.ModuleList, level)
            h = second(first(h, context), context)
            skips.append(h)
            h = shrink(h)
        for block in self.mid_modules:
            h = block(h, context)
        for level in self.up_modules:
            first, second, grow = cast(nn.ModuleList, level)
            h = torch.cat([h, skips.pop()], dim=1)
            h = grow(second(first(h, context), context))
        return self.final_conv(h).transpose(1, 2)


def _check(horizon: int, down_dims: Sequence[int], kernel_size: int, n_groups: int) -> None:
    if not down_dims or any(c % n_groups for c in down_dims):
        raise ConfigError(
            f"every channel number of `down_dims` must divide by n_groups {n_groups}, got {list(down_dims)}"
        )
    if kernel_size % 2 == 0:
        raise ConfigError(f"`kernel_size` must be odd, so that the length is kept, got {kernel_size}")
    factor = 2 ** (len(down_dims) - 1)
    if horizon % factor:
        raise ConfigError(
            f"`horizon` must divide by {factor} (2 ** (levels - 1), {len(down_dims)} levels), got {horizon}; "
            f"use {horizon - horizon % factor + factor}"
        )
