"""Residual MLP denoiser: the whole chunk as one vector. Small and fast, the one to train on a CPU.

Layer norm and SiLU, pre-activation residual blocks; the condition and the time enter every block by FiLM
(Perez et al. 2018, arXiv 1709.07871), or once, beside the chunk, when `conditioning` is `concat`.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policies.time_embedding import SinusoidalTime
from robot_rl.errors import ConfigError


class _Block(nn.Module):
    """x + W2 silu(W1 film(norm(x)))."""

    def __init__(self, width: int, hidden: int, film_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.film = nn.Linear(film_dim, 2 * width) if film_dim else None
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.act = nn.SiLU()

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.norm(x)
        if self.film is not None:
            scale, shift = self.film(context).chunk(2, dim=-1)
            h = h * (1 + scale) + shift
        return x + self.down(self.act(self.up(h)))


class ResidualMLP(nn.Module):
    """Denoises a chunk with a residual MLP; about 2 M parameters at its defaults on small tasks.

    Args:
        action_dim: A, action width.
        horizon: H, actions in a chunk.
        cond_dim: Width of the encoder's condition vector.
        width: Width of the residual stream.
        n_blocks: Residual blocks.
        expansion: Hidden width of a block over `width`.
        time_dim: Width of the time embedding.
        context_dim: Width of the vector that the condition and the time are joined into.
        conditioning: `film` or `concat`.

    Raises:
        ConfigError: An unknown `conditioning`.
    """

    def __init__(
        self,
        action_dim: int,
        horizon: int,
        cond_dim: int,
        *,
        width: int = 512,
        n_blocks: int = 3,
        expansion: int = 1,
        time_dim: int = 64,
        context_dim: int = 128,
        conditioning: str = "film",
    ) -> None:
        super().__init__()
        if conditioning not in ("film", "concat"):
            raise ConfigError(f"`conditioning` must be film or concat, got {conditioning!r}")
        chunk, context = horizon * action_dim, context_dim
        self.horizon, self.action_dim = horizon, action_dim
        self.time = nn.Sequential(SinusoidalTime(time_dim), nn.Linear(time_dim, context), nn.SiLU())
        self.cond = nn.Sequential(nn.Linear(cond_dim, context), nn.SiLU())
        self.mix = nn.Sequential(nn.Linear(2 * context, context), nn.SiLU())
        film = conditioning == "film"
        self.inp = nn.Linear(chunk + context, width)
        self.blocks = nn.ModuleList(_Block(width, expansion * width, context * film) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, chunk)

    def forward(
        self, x: Float[Tensor, "B H A"], t: Float[Tensor, "B"], cond: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B H A"]:
        """Return the native prediction for the noisy chunk `x` at time `t` under the condition."""
        context = self.mix(torch.cat([self.time(t), self.cond(cond)], dim=-1))
        h = self.inp(torch.cat([x.flatten(1), context], dim=-1))
        for block in self.blocks:
            h = block(h, context)
        return self.out(self.norm(h)).unflatten(1, (self.horizon, self.action_dim))
