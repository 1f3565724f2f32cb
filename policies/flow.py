"""Flow-matching policy: the straight path from noise (t = 1) to actions (t = 0), velocity prediction, Euler steps.

Lipman et al. 2023 (arXiv 2210.02747); the time law and ten Euler steps are pi0's (arXiv 2410.24164, section IV).
"""

from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from policies.chunk_network import ChunkOptions
from policies.denoising import DenoisingModel, TimeLaw
from policies.encoders import Stats
from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import GaussianPath
from robot_rl.schedules import flow_times
from robot_rl.specs import RobotSpec


def uniform_time(u: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Return t = u."""
    return u


def beta_time(u: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Return pi0's t = 0.001 + 0.999 b with b of law Beta(1.5, 1), whose distribution function is b^1.5."""
    return 0.001 + 0.999 * u ** (1 / 1.5)


def logit_normal_time(u: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Return t = sigmoid(z) with z standard normal (Esser et al. 2024, arXiv 2403.03206): emphasises the middle."""
    return torch.sigmoid(torch.special.ndtri(u))


TIME_LAWS: dict[str, TimeLaw] = {"uniform": uniform_time, "beta": beta_time, "logit_normal": logit_normal_time}


class FlowModel(DenoisingModel):
    """A flow-matching ChunkModel.

    Args:
        spec: The robot.
        stats: Statistics of `action` and of the observations that are normalised.
        n_steps: Steps of the sampler; of `ddim`, which on a flow is Euler's rule, ten are pi0's.
        time_law: Where in time to train: `uniform`, `beta` (pi0's, more noise) or `logit_normal` (the middle).
        noise_scale: Factor on the noise that sampling starts from. 1 samples the demonstrators' whole variety, 0
            follows the flow from its centre: less variety, more precision. A departure from flow matching.
        clip: Bound of the denoiser's normalised output while sampling; flow policies use none.
        sampler: How to sample, a name of `robot_rl.samplers.SAMPLERS`.
        guidance: How much a goal counts; see `DenoisingModel`.
        options: `policies.chunk_network.ChunkOptions`.

    Raises:
        ConfigError: An unknown time law, or a setting `DenoisingModel` refuses.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        n_steps: int = 10,
        time_law: str = "beta",
        noise_scale: float = 1.0,
        clip: float | None = None,
        sampler: str = "ddim",
        guidance: float = 1.0,
        **options: Unpack[ChunkOptions],
    ) -> None:
        if time_law not in TIME_LAWS:
            raise ConfigError(f"`time_law` must be one of {sorted(TIME_LAWS)}, got {time_law!r}")
        super().__init__(
            spec, stats, path=GaussianPath.flow(), times=flow_times(n_steps), time_law=TIME_LAWS[time_law],
            time_scale=100.0, noise_scale=noise_scale, clip=clip, sampler=sampler, guidance=guidance, **options,
        )  # fmt: skip
