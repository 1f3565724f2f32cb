"""How far the chunks that two models draw for the same observations lie apart, as distributions.

Energy distance (Szekely and Rizzo 2013, doi 10.1016/j.jspi.2013.03.018) of chunks as vectors of H A normalised actions,

    D(X, Y) = 2 E |x - y| - E |x - x'| - E |y - y'|,

divided by sqrt(H A), so that it is in the unit of one normalised action. It is 0 only for equal distributions and needs
no density. The estimate is unbiased and so may be slightly negative.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from policies.chunk_network import ChunkNetwork
from policies.one_step import chunk_from


def energy_distance(first: Float[Tensor, "B M H A"], second: Float[Tensor, "B M H A"]) -> Float[Tensor, "B"]:
    """Return the energy distance for each of B observations between M >= 2 draws of two models."""
    x, y = (draws.flatten(2).double() for draws in (first, second))
    m = x.shape[1]

    def within(draws: Tensor) -> Tensor:
        return torch.cdist(draws, draws).sum(dim=(1, 2)) / (m * (m - 1))

    apart = 2 * torch.cdist(x, y).mean(dim=(1, 2)) - within(x) - within(y)
    return apart / x.shape[2] ** 0.5


@torch.no_grad()
def draw_chunks(
    model: ChunkNetwork, obs: Mapping[str, Tensor], noise: Float[Tensor, "B M H A"]
) -> Float[Tensor, "B M H A"]:
    """Return normalised chunks for M noises of each observation {name: [B, O, ...]}."""
    b, m = noise.shape[:2]
    cond = model.encode(obs).repeat_interleave(m, dim=0)
    return chunk_from(model, cond, noise.flatten(0, 1)).unflatten(0, (b, m))
