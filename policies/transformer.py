"""Chunk transformer denoiser: one token per action, all attending to each other and across to the condition.

After Diffusion Policy's transformer (arXiv 2303.04137), with these departures: self-attention is bidirectional (a
causal mask makes horizons indistinguishable to a mixture of horizons), layers are pre-norm with GELU, and the time is
one of the condition tokens.
"""

from typing import TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from policies.time_embedding import SinusoidalTime
from robot_rl.errors import ConfigError


class _Attention(nn.Module):
    """Multi-head attention of queries over a memory."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, keep: Tensor | None) -> Tensor:
        q = self._split(self.query(x))
        k, v = (self._split(part) for part in self.key_value(memory).chunk(2, dim=-1))
        # Written out: at the few tokens of a chunk, torch's fused kernel trains up to fifteen times slower on a CPU.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # [B, heads, S, M]
        if keep is not None:
            scores = scores.masked_fill(~keep, torch.finfo(scores.dtype).min)
        weights = functional.dropout(scores.softmax(dim=-1), self.dropout, self.training)
        h = weights.to(v.dtype) @ v
        return self.out(h.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # [B, heads, S, width / heads]


class _Layer(nn.Module):
    """Self-attention, cross-attention, feed-forward, each behind a layer norm."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_self, self.norm_cross, self.norm_ff = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention = _Attention(width, n_heads, dropout)
        self.cross_attention = _Attention(width, n_heads, dropout)
        self.ff = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, memory: Tensor, keep: Tensor | None) -> Tensor:
        h = self.norm_self(x)
        x = x + self.self_attention(h, h, keep)
        x = x + self.cross_attention(self.norm_cross(x), memory, None)
        return x + self.ff(self.norm_ff(x))


class TransformerOptions(TypedDict, total=False):
    """Keyword arguments of a `ChunkTransformer`, for denoisers built around one; see there."""

    cond_tokens: int
    width: int
    n_layers: int
    n_heads: int
    dropout: float
    time_dim: int


class ChunkTransformer(nn.Module):
    """Denoises a chunk by attention over its actions.

    Args:
        action_dim: A, action width.
        horizon: H, actions in a chunk.
        cond_dim: Width of the encoder's condition vector.
        cond_tokens: Into how many tokens the condition is cut; `n_obs` gives one per observation step.
        width: Token width.
        n_layers: Layers.
        n_heads: Attention heads; divide `width`.
        dropout: Dropout on attention weights.
        time_dim: Width of the time embedding.

    Raises:
        ConfigError: Heads or condition tokens that do not divide.
    """

    def __init__(
        self,
        action_dim: int,
        horizon: int,
        cond_dim: int,
        *,
        cond_tokens: int = 1,
        width: int = 192,
        n_layers: int = 4,
        n_heads: int = 4,
        dropout: float = 0.0,
        time_dim: int = 128,
    ) -> None:
        super().__init__()
        if width % n_heads:
            raise ConfigError(f"`width` must divide by n_heads {n_heads}, got {width}")
        if cond_tokens < 1 or cond_dim % cond_tokens:
            raise ConfigError(f"`cond_tokens` must divide the condition's width {cond_dim}, got {cond_tokens}")
        self.horizon, self.action_dim, self.cond_tokens, self.width = horizon, action_dim, cond_tokens, width
        self.inp = nn.Linear(action_dim, width)
        # As wide as the tokens themselves; 0.02, the usual choice, takes twice as long to tell the steps apart.
        self.position = nn.Parameter(torch.randn(horizon, width) * 0.5)
        self.cond_position = nn.Parameter(torch.randn(cond_tokens, width) * 0.5)
        self.cond = nn.Sequential(nn.Linear(cond_dim // cond_tokens, width), nn.SiLU(), nn.Linear(width, width))
        self.time = nn.Sequential(
            SinusoidalTime(time_dim), nn.Linear(time_dim, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.layers = nn.ModuleList(_Layer(width, n_heads, dropout) for _ in range(n_layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, action_dim)

    def tokens(self, x: Float[Tensor, "B H A"]) -> Float[Tensor, "B H W"]:
        """Return one token for each action of the noisy chunk."""
        return self.inp(x) + self.position

    def memory(self, t: Float[Tensor, "B"], cond: Float[Tensor, "B C"]) -> Float[Tensor, "B M W"]:
        """Return the tokens that actions attend to besides each other: the time and the condition's."""
        cond_tokens = self.cond(cond.unflatten(1, (self.cond_tokens, -1))) + self.cond_position
        return torch.cat([self.time(t)[:, None], cond_tokens], dim=1)  # [B, 1 + cond_tokens, width]

    def attend(
        self, tokens: Float[Tensor, "B S W"], memory: Float[Tensor, "B M W"], keep: Tensor | None = None
    ) -> Float[Tensor, "B S W"]:
        """Return the last layer's normed tokens, which `out` (or a gate) reads.

        `keep`, bool and broadcast to [B, heads, S, S], is true where a token (row) may attend to another (column); at
        least one in each row. `None` means all.
        """
        for layer in self.layers:
            tokens = layer(tokens, memory, keep)
        return self.norm(tokens)

    def hidden(
        self,
        x: Float[Tensor, "B H A"],
        t: Float[Tensor, "B"],
        cond: Float[Tensor, "B C"],
        valid: Bool[Tensor, "B H"] | None = None,
    ) -> Float[Tensor, "B H W"]:
        """Return the last layer's normed tokens; arguments as of `forward`."""
        keep = None if valid is None else valid[:, None, None, :]  # [B, 1, 1, H]
        return self.attend(self.tokens(x), self.memory(t, cond), keep)

    def forward(
        self,
        x: Float[Tensor, "B H A"],
        t: Float[Tensor, "B"],
        cond: Float[Tensor, "B C"],
        valid: Bool[Tensor, "B H"] | None = None,
    ) -> Float[Tensor, "B H A"]:
        """Return the native prediction for the noisy chunk `x` at time `t` under the condition.

        `valid` is true for the actions that others may attend to; at least one of each sample. `None` means all.
        """
        return self.out(self.hidden(x, t, cond, valid))
