"""Diffusion policy: discrete variance-preserving steps, trained on epsilon, the sample or v, sampled by DDIM.

Chi et al. 2023 (arXiv 2303.04137); schedules by their diffusers names. Departures: sampling is deterministic DDIM
unless another sampler is asked for, and the denoiser's output is clipped whatever is predicted.
"""

from typing import Literal, Unpack

from torch import Tensor

from policies.chunk_network import ChunkOptions
from policies.denoising import DenoisingModel
from policies.encoders import Stats
from robot_rl.gaussian_path import GaussianPath
from robot_rl.schedules import vp_times
from robot_rl.specs import RobotSpec


class _DiscreteTime:
    """Time law of a discrete schedule: every step k of 0 ... T-1 is equally likely."""

    def __init__(self, n_train: int) -> None:
        self.n_train = n_train

    def __call__(self, u: Tensor) -> Tensor:
        return (u * self.n_train).floor().clamp(max=self.n_train - 1)


class DiffusionModel(DenoisingModel):
    """A diffusion ChunkModel.

    Args:
        spec: The robot.
        stats: Statistics of `action` and of the observations that are normalised.
        prediction: What the network puts out: `epsilon`, `sample` or `v`.
        schedule: Beta schedule by its diffusers name.
        n_train: T, diffusion steps trained on.
        n_steps: Steps when sampling.
        spacing: How those are spread over the schedule (`robot_rl.schedules.vp_times`).
        noise_scale: Factor on the noise that sampling starts from; see `FlowModel`.
        clip: Bound of the denoiser's normalised output while sampling.
        sampler: How to sample, a name of `robot_rl.samplers.SAMPLERS`.
        guidance: How much a goal counts; see `DenoisingModel`.
        options: `policies.chunk_network.ChunkOptions`.

    Raises:
        ConfigError: A setting the path, the time grid or `DenoisingModel` refuses.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        prediction: Literal["epsilon", "sample", "v"] = "epsilon",
        schedule: str = "squaredcos_cap_v2",
        n_train: int = 100,
        n_steps: int = 10,
        spacing: str = "leading",
        noise_scale: float = 1.0,
        clip: float | None = 1.0,
        sampler: str = "ddim",
        guidance: float = 1.0,
        **options: Unpack[ChunkOptions],
    ) -> None:
        super().__init__(
            spec, stats, path=GaussianPath.vp(schedule, n_train, prediction),
            times=vp_times(n_train, n_steps, spacing), time_law=_DiscreteTime(n_train), time_scale=1.0,
            noise_scale=noise_scale, clip=clip, sampler=sampler, guidance=guidance, **options,
        )  # fmt: skip
