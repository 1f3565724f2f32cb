"""One-step regression policy: the network puts out the chunk itself, trained on the absolute error.

The chunk's tokens start as learned queries, as in ACT (arXiv 2304.13705): the denoiser is called at x = 0 and t = 0,
where nothing of its input is left but what it learned for each step. No latent variable, so that it predicts one chunk
where demonstrators had several ways; the one-step policy that a mixture of horizons is applied to in arXiv 2511.19433.
"""

from collections.abc import Mapping
from typing import Unpack

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from policies.chunk_network import ChunkNetwork, ChunkOptions
from policies.encoders import Stats
from robot_rl.specs import RobotSpec


class RegressionModel(ChunkNetwork):
    """A ChunkModel that predicts in one call; the noise it is given makes no difference.

    Args:
        spec: The robot.
        stats: Statistics of `action` and of the observations that are normalised.
        options: `policies.chunk_network.ChunkOptions`.
    """

    def __init__(self, spec: RobotSpec, stats: Stats, **options: Unpack[ChunkOptions]) -> None:
        super().__init__(spec, stats, measure=torch.abs, **options)

    def queries(self, cond: Float[Tensor, "B C"]) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B"]]:
        """Return the x and t that the denoiser is called with."""
        return cond.new_zeros(cond.shape[0], self.horizon, self.action_dim), cond.new_zeros(cond.shape[0])

    def sample_normalised(self, obs: Mapping[str, Tensor], noise: Float[Tensor, "B M A"]) -> Float[Tensor, "B H A"]:
        """Return the normalised chunk; `noise` is not used."""
        cond = self.encode(obs)
        return self.denoiser(*self.queries(cond), cond)

    def loss(
        self,
        obs: Mapping[str, Tensor],
        target: Float[Tensor, "B H A"],
        noise: Float[Tensor, "B H A"],
        u: Float[Tensor, "B"],
        mask: Bool[Tensor, "B H"],
    ) -> Float[Tensor, ""]:
        """Return the mean absolute error over the steps that count and the encoder's own cost.

        Arguments as of `ChunkNetwork.loss`; `noise` and `u` are not used.
        """
        cond, cost = self.encode_for_loss(obs)
        data = self.normalised(obs, target)
        return self.error(*self.queries(cond), cond, data, self.counted(mask)) + cost
