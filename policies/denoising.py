"""What diffusion and flow policies share: a chunk policy over a Gaussian path. `diffusion` and `flow` configure it.

Loss (padded steps left out): mean || net(x_t, t, O) - target ||^2 with x_t = alpha a + sigma eps; sampling: one of
`robot_rl.samplers`. The encoder runs once per chunk (twice with guidance), the denoiser once per evaluation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from policies.chunk_network import ChunkNetwork, ChunkOptions
from policies.encoders import Stats
from policies.goal import knows_absence, without_goal
from robot_rl.data.normalizer import FieldStats
from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import GaussianPath
from robot_rl.samplers import Denoise, n_step_noise, sampler
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
        noise_scale: Factor on the noise of sampling, 0 or more.
        sampler: How to sample, a name of `robot_rl.samplers.SAMPLERS`.
        guidance: 1 samples towards the goal, 0 without it, more than 1 beyond what it asks: D_u + guidance (D_c - D_u)
            (`policies.goal`). For 1 and 0 the network runs on one half alone, so these are exact.
        clip: Bound of the denoiser's normalised output while sampling; `None` for no bound.
        options: `policies.chunk_network.ChunkOptions`.

    Raises:
        ConfigError: A negative `noise_scale`, a clip that would cut training actions, an unknown sampler, guidance
            for an encoder that has no goals or never misses one, or options that do not fit.
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
        sampler: str = "ddim",
        guidance: float = 1.0,
        **options: Unpack[ChunkOptions],
    ) -> None:
        super().__init__(spec, stats, **options)
        self.path, self.times, self.time_law, self.time_scale = path, list(times), time_law, time_scale
        if not noise_scale >= 0:
            raise ConfigError(f"`noise_scale` must be 0 or more, got {noise_scale}")
        self.noise_scale, self.step_noise_scale, self.clip = noise_scale, noise_scale, clip
        self.sampler, self.n_step_noise = sampler, n_step_noise(sampler, path, self.times)
        self.guidance = guidance
        if guidance != 1.0 and not knows_absence(self.encoder):
            raise ConfigError(f"`guidance` {guidance} needs an encoder with a GoalEncoder whose `drop` is above 0")
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

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Shape of the noise of one sample: H rows to start from, and H more for each step that adds fresh noise."""
        return self.horizon * (1 + self.n_step_noise), self.action_dim

    @property
    def is_guided(self) -> bool:
        """Whether sampling needs the denoiser both with and without the goal."""
        return self.guidance not in (0.0, 1.0)

    def encode(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B C"]:
        """Return the condition for `denoise`: with the goal or without, or where guidance is used both, joined."""
        if self.guidance == 1.0:
            return self.encoder(obs)
        absent = self.encoder(without_goal(obs))
        return torch.cat([self.encoder(obs), absent], dim=1) if self.is_guided else absent

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
        """Return the path's prediction at the normalised noisy chunk `x` and the path's own time `t`.

        Args:
            x: Noisy chunk.
            t: Time.
            cond: From `encode`.
        """
        if not self.is_guided:
            return self.native(x, t, self.denoiser(*self.network_inputs(x, t), cond))
        both_x, both_t = torch.cat([x, x]), torch.cat([t, t])
        both = self.denoiser(*self.network_inputs(both_x, both_t), torch.cat(cond.chunk(2, dim=1)))
        # Every prediction is affine in D with the same coefficients, so mixing it is mixing D.
        with_goal, without = self.native(both_x, both_t, both).unflatten(0, (2, x.shape[0]))  # chunk fixes B on export
        return without + self.guidance * (with_goal - without)

    def denoised(
        self, x: Float[Tensor, "B H A"], t: float | Float[Tensor, "B"], times: Float[Tensor, "B"], cond: Tensor
    ) -> Float[Tensor, "B H A"]:
        """Return the denoiser D at (x, t), bounded by `clip`.

        Args:
            x: Noisy chunk.
            t: Time; a number leaves constants in an exported graph.
            times: The same for each sample.
            cond: From `encode`.
        """
        found = self.path.denoised(x, t, self.denoise(x, times, cond))
        return found if self.clip is None else found.clip(-self.clip, self.clip)

    def noisy(
        self,
        data: Float[Tensor, "B H A"],
        noise: Float[Tensor, "B H A"],
        t: Float[Tensor, "B"],
        counted: Bool[Tensor, "B H"],
    ) -> Float[Tensor, "B H A"]:
        """Return normalised chunks mixed with noise at `t`.

        A step that is not counted is pure noise, so that nothing of its target leaks into the network.
        """
        return torch.where(counted[..., None], self.path.mix(data, noise, t), noise)

    def sample_normalised(self, obs: Mapping[str, Tensor], noise: Float[Tensor, "B M A"]) -> Float[Tensor, "B H A"]:
        """Return the normalised chunk that the sampler reaches from `noise`, [B, *noise_shape]."""
        cond = self.encode(obs)
        return self.run_sampler(noise, lambda x, t: self.denoise(x, x.new_full((x.shape[0],), t), cond))

    def run_sampler(self, noise: Float[Tensor, "B M A"], denoise: Denoise) -> Float[Tensor, "B H A"]:
        """Return what the sampler reaches from `noise` with a denoiser of the path's own prediction at (x, time)."""
        first, *fresh = noise.split(self.horizon, dim=1)
        step_noise = {"step_noise": [self.step_noise_scale * z for z in fresh]} if self.n_step_noise else {}
        return sampler(self.sampler).run(
            self.path,
            denoise,
            self.path.initial(self.noise_scale * first, self.times[0]),
            self.times,
            clip=self.clip,
            **step_noise,
        )

    def loss(
        self,
        obs: Mapping[str, Tensor],
        target: Float[Tensor, "B H A"],
        noise: Float[Tensor, "B H A"],
        u: Float[Tensor, "B"],
        mask: Bool[Tensor, "B H"],
    ) -> Float[Tensor, ""]:
        """Return the network's error over the steps that count and the encoder's own cost; see `ChunkNetwork.loss`."""
        t, counted = self.time_law(u), self.counted(mask)
        data = self.normalised(obs, target)
        x = self.noisy(data, noise, t, counted)
        cond, cost = self.encode_for_loss(obs)
        return self.error(*self.network_inputs(x, t), cond, self.network_target(data, noise, t), counted) + cost
