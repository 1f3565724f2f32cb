"""What diffusion and flow policies share: a chunk policy over a Gaussian path. `diffusion` and `flow` configure it.

Loss (padded steps left out): mean || net(x_t, t, O) - target ||^2 with x_t = alpha a + sigma eps; sampling: the
deterministic solver of `robot_rl.gaussian_path`. The encoder runs once per chunk, the denoiser once per step.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from policies.chunk_network import ChunkNetwork, ChunkOptions
from policies.encoders import Stats
from robot_rl.data.normalizer import FieldStats
from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import GaussianPath, solve
from robot_rl.specs import RobotSpec

TimeLaw = Callable[[Tensor], Tensor]
"""Maps u, uniform in [0, 1), to the path's own time by an inverse distribution function."""


class DenoisingModel(ChunkNetwork):
    """A ChunkModel that denoises action chunks along a Gaussian path.

    A subclass whose network does not see x and t as they are (preconditioning) overrides `network_inputs`,
    `network_target` and `native` together.

    Args:
        spec: The robot.
        stats: Statistics of `action` and of the observations that are normalised.
        path: The Gaussian path and what the network predicts.
        times: Solver times, falling from noise to data.
        time_law: Where in time to train.
        time_scale: Factor on t before the network, for time embeddings made for 0 to 100.
        noise_scale: Factor on the noise that sampling starts from, 0 or more.
        clip: Bound of the denoiser's normalised output while sampling; `None` for no bound.
        options: `policies.chunk_network.ChunkOptions`.

    Raises:
        ConfigError: A negative `noise_scale`, a clip that would cut training actions, or options that do not fit.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        path: GaussianPath,
        times: Sequence[float],
        time_law: TimeLaw,
        time_scale: float,
        noise_scale: float = 1.0,
        clip: float | None = None,
        **options: Unpack[ChunkOptions],
    ) -> None:
        super().__init__(spec, stats, **options)
        self.path, self.times, self.time_law, self.time_scale = path, list(times), time_law, time_scale
        if not noise_scale >= 0:
            raise ConfigError(f"`noise_scale` must be 0 or more, got {noise_scale}")
        self.noise_scale, self.clip = noise_scale, clip
        if clip is not None:
            self._check_clip(stats[self.action_field], clip)

    def _check_clip(self, stats: FieldStats, clip: float) -> None:
        """Raise if clipping would cut off actions of the training data."""
        ends = torch.as_tensor(np.stack([stats.min, stats.max]), dtype=torch.float32).reshape(
            2, *self.normalizer.scale.shape
        )
        reach = float(self.normalizer(ends).abs().max())
        if reach > clip * 1.001:
            raise ConfigError(
                f"`clip` {clip} would cut normalised actions, which reach {reach:.3g} in the training data; "
                "use `action_norm: min_max`, a larger clip, or none"
            )

    def network_inputs(
        self, x: Float[Tensor, "B H A"], t: Float[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B"]]:
        """Return chunk and time as the network is given them at the noisy chunk `x` and the path's own time `t`."""
        return x, t * self.time_scale

    def network_target(
        self, data: Float[Tensor, "B H A"], noise: Float[Tensor, "B H A"], t: Float[Tensor, "B"]
    ) -> Float[Tensor, "B H A"]:
        """Return what the network should put out at path.mix(data, noise, t)."""
        return self.path.target(data, noise, t)

    def native(
        self, x: Float[Tensor, "B H A"], t: Float[Tensor, "B"], output: Float[Tensor, "B H A"]
    ) -> Float[Tensor, "B H A"]:
        """Return the path's prediction that the network's `output` stands for."""
        return output

    def denoise(
        self, x: Float[Tensor, "B H A"], t: Float[Tensor, "B"], cond: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B H A"]:
        """Return the path's prediction at the normalised noisy chunk `x` and the path's own time `t`."""
        return self.native(x, t, self.denoiser(*self.network_inputs(x, t), cond))

    def sample_normalised(self, obs: Mapping[str, Tensor], noise: Float[Tensor, "B H A"]) -> Float[Tensor, "B H A"]:
        """Return the normalised chunk that the solver reaches from `noise`."""
        cond = self.encode(obs)
        start = self.path.initial(self.noise_scale * noise, self.times[0])
        return solve(
            self.path,
            lambda x, t: self.denoise(x, x.new_full((x.shape[0],), t), cond),
            start,
            self.times,
            clip=self.clip,
        )

    def loss(
        self,
        obs: Mapping[str, Tensor],
        target: Float[Tensor, "B H A"],
        noise: Float[Tensor, "B H A"],
        u: Float[Tensor, "B"],
        mask: Bool[Tensor, "B H"],
    ) -> Float[Tensor, ""]:
        """Return the error of the network's output over the steps that count; arguments as of `ChunkNetwork.loss`.

        A step that `mask` leaves out enters the network as pure noise, so that nothing of its target leaks into it.
        """
        t, counted = self.time_law(u), self.counted(mask)
        data = self.normalised(obs, target)
        x = torch.where(counted[..., None], self.path.mix(data, noise, t), noise)
        return self.error(*self.network_inputs(x, t), self.encode(obs), self.network_target(data, noise, t), counted)
