"""The normaliser inside a model: an affine map held in buffers, so that it travels with the weights and the graph."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from robot_rl.data.normalizer import Affine


class AffineNormalizer(nn.Module):
    """Normalises by x * scale + offset over the last axes; `inverse` undoes it.

    Args:
        affine: The map, in double precision; its arrays are flattened when `flat`.
        flat: Treat one sample as a vector whatever its shape.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, affine: Affine, *, flat: bool = True) -> None:
        super().__init__()
        shape = (-1,) if flat else np.shape(affine.scale)
        self.register_buffer("scale", torch.as_tensor(np.reshape(affine.scale, shape), dtype=torch.float32))
        self.register_buffer("offset", torch.as_tensor(np.reshape(affine.offset, shape), dtype=torch.float32))

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return physical values as normalised ones."""
        return x * self.scale + self.offset

    def inverse(self, y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return normalised values as physical ones."""
        return (y - self.offset) / self.scale
