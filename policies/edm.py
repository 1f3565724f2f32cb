"""EDM policy: noise levels sigma in place of times, a preconditioned denoiser, few sampling steps.

Karras et al. 2022 (arXiv 2206.00364, table 1) as BESO uses it for actions (Reuss et al. 2023, arXiv 2304.02532): with
s = sigma_data,

    D(y, sigma) = c_skip y + c_out F(c_in y, ln(sigma) / 4),    y = a + sigma eps
    c_skip = s^2 / (sigma^2 + s^2)    c_out = sigma s / sqrt(sigma^2 + s^2)    c_in = 1 / sqrt(sigma^2 + s^2)

so that input and target of F have variance 1 at every level, and F = 0 is the best linear denoiser. Training levels are
log-logistic around s, cut off at the ends.

Departures. sigma_data is measured and the levels default to multiples of it (BESO: 0.5, 0.005 and 1 for its data).
Sampling starts from sqrt(sigma_max^2 + s^2) eps, the marginal of the data at sigma_max; BESO starts from sigma_max eps,
which is narrower. c_noise is multiplied by 100, for embeddings made for times of 0 to 100. The policy denoises a chunk
of actions where BESO denoises the newest one of a window.
"""

import math
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from policies.chunk_network import ChunkOptions
from policies.denoising import DenoisingModel
from policies.encoders import Stats
from robot_rl.data.normalizer import affine_for
from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import GaussianPath
from robot_rl.schedules import sigma_grid
from robot_rl.specs import RobotSpec

SPREAD = 0.5
"""Scale of the log-logistic law of ln sigma."""


class LogLogistic:
    """Time law of EDM's levels: ln sigma is logistic around ln `middle`, truncated to [low, high].

    Args:
        middle: Median of the law before truncation.
        low: Smallest level.
        high: Largest level.
    """

    def __init__(self, middle: float, low: float, high: float) -> None:
        self.middle = middle
        self.ends = [1.0 / (1.0 + (level / middle) ** (-1.0 / SPREAD)) for level in (low, high)]

    def __call__(self, u: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """Return the levels at which the distribution function is `u`, uniform in [0, 1)."""
        low, high = self.ends
        return self.middle * torch.exp(SPREAD * torch.logit(low + u * (high - low)))


class EDMModel(DenoisingModel):
    """An EDM ChunkModel.

    Args:
        spec: The robot.
        stats: Statistics of `action` and of the observations that are normalised.
        n_steps: Sampling steps.
        sigma_data: Spread of normalised actions; `None` measures it: the root mean square of all of a chunk's elements,
            from their mean and standard deviation in `stats`. About zero and not about the mean, since that is where
            the preconditioner pulls to.
        sigma_min: Smallest noise level before data; `None` for sigma_data / 100.
        sigma_max: Largest noise level; `None` for 2 sigma_data.
        spacing: How sampling levels are spread: `exponential`, `karras` or `linear`.
        rho: Exponent of `karras`.
        noise_scale: Factor on the noise of sampling; see `FlowModel`.
        clip: Bound of the denoiser's normalised output while sampling.
        sampler: How to sample, a name of `robot_rl.samplers.SAMPLERS`.
        guidance: How much a goal counts; see `DenoisingModel`.
        options: `policies.chunk_network.ChunkOptions`.

    Raises:
        ConfigError: A `sigma_data` that is not positive, levels out of order, or a setting `DenoisingModel` refuses.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        n_steps: int = 3,
        sigma_data: float | None = None,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        spacing: str = "exponential",
        rho: float = 7.0,
        noise_scale: float = 1.0,
        clip: float | None = None,
        sampler: str = "ddim",
        guidance: float = 1.0,
        **options: Unpack[ChunkOptions],
    ) -> None:
        s = measured_sigma_data(stats, options) if sigma_data is None else sigma_data
        if not 0 < s < math.inf:
            raise ConfigError(f"`sigma_data` must be positive, got {s}")
        low = s / 100 if sigma_min is None else sigma_min
        high = 2 * s if sigma_max is None else sigma_max
        times = sigma_grid(n_steps, low, high, spacing=spacing, rho=rho)
        # The path starts from sqrt(1 + sigma^2) eps, as for data of unit variance.
        wider = math.sqrt((s * s + high * high) / (1 + high * high))
        super().__init__(
            spec, stats, path=GaussianPath.ve(), times=times, time_law=LogLogistic(s, low, high), time_scale=100.0,
            noise_scale=wider * noise_scale, clip=clip, sampler=sampler, guidance=guidance, **options,
        )  # fmt: skip
        self.step_noise_scale = noise_scale
        self.sigma_data = float(s)

    def network_inputs(
        self, x: Float[Tensor, "B H A"], t: Float[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B"]]:
        """Return c_in y and c_noise."""
        return x / self._total(t), self.time_scale * torch.log(t) / 4

    def network_target(
        self, data: Float[Tensor, "B H A"], noise: Float[Tensor, "B H A"], t: Float[Tensor, "B"]
    ) -> Float[Tensor, "B H A"]:
        """Return (a - c_skip y) / c_out, written so that nothing cancels at small sigma."""
        s, sigma = self.sigma_data, t[:, None, None]
        return (sigma * data - s * s * noise) / (s * self._total(t))

    def native(
        self, x: Float[Tensor, "B H A"], t: Float[Tensor, "B"], output: Float[Tensor, "B H A"]
    ) -> Float[Tensor, "B H A"]:
        """Return the denoiser c_skip y + c_out F."""
        s, sigma, total = self.sigma_data, t[:, None, None], self._total(t)
        return (s / total) ** 2 * x + (sigma * s / total) * output

    def _total(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B 1 1"]:
        """Return sqrt(sigma^2 + sigma_data^2), the spread of noisy actions."""
        return (t * t + self.sigma_data**2).sqrt()[:, None, None]


def measured_sigma_data(stats: Stats, options: ChunkOptions) -> float:
    """Return the root mean square of normalised actions.

    Raises:
        ConfigError: No statistics of the actions.
    """
    name = "action_relative" if options.get("relative_to") else "action"
    if name not in stats:
        raise ConfigError(f"`stats` lacks ['{name}'], got {sorted(stats)}")
    field, affine = stats[name], affine_for(stats[name], options.get("action_norm", "min_max"))
    mean, std = field.mean * affine.scale + affine.offset, field.std * affine.scale
    return float(np.sqrt(np.mean(mean**2 + std**2)))
