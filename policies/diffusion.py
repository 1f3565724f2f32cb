"""Diffusion policy: discrete variance-preserving steps, trained on epsilon, the sample or v, sampled by DDIM.

Chi et al. 2023 (arXiv 2303.04137); schedules by their diffusers names. Departures: sampling is deterministic DDIM (no
ancestral noise), and the denoiser's output is clipped whatever is predicted.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

from policies.denoising import DenoisingModel
from policies.encoders import Encoder, Stats
from robot_rl.data.normalizer import NormMode
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
    """A diffusion ChunkModel; `DenoisingModel` explains the arguments not listed here.

    Args:
        spec: The robot.
        stats: Statistics of `action` and of the observations that are normalised.
        encoder: Called as encoder(spec, stats, n_obs=...).
        denoiser: Called as denoiser(action_dim=..., horizon=..., cond_dim=...).
        n_obs: O, observation steps.
        horizon: H, actions in a chunk.
        action_offset: Control step of the chunk's first action relative to the newest observation.
        prediction: What the network puts out: `epsilon`, `sample` or `v`.
        schedule: Beta schedule by its diffusers name.
        n_train: T, diffusion steps trained on.
        n_steps: DDIM steps when sampling.
        spacing: How those are spread over the schedule (`robot_rl.schedules.vp_times`).
        action_norm: How actions are normalised.
        relative_to: Observations that chunks are predicted relative to.
        noise_scale: Factor on the noise that sampling starts from; see `FlowModel`.
        clip: Bound of the denoiser's normalised output while sampling.
        mask_padding: Leave padded steps out of the loss.

    Raises:
        ConfigError: A setting the path, the time grid or `DenoisingModel` refuses.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        encoder: Callable[..., Encoder],
        denoiser: Callable[..., nn.Module],
        n_obs: int,
        horizon: int,
        action_offset: int = 0,
        prediction: Literal["epsilon", "sample", "v"] = "epsilon",
        schedule: str = "squaredcos_cap_v2",
        n_train: int = 100,
        n_steps: int = 10,
        spacing: str = "leading",
        action_norm: NormMode = "min_max",
        relative_to: Sequence[str] = (),
        noise_scale: float = 1.0,
        clip: float | None = 1.0,
        mask_padding: bool = True,
    ) -> None:
        super().__init__(
            spec, stats, encoder=encoder, denoiser=denoiser, n_obs=n_obs, horizon=horizon, action_offset=action_offset,
            path=GaussianPath.vp(schedule, n_train, prediction), times=vp_times(n_train, n_steps, spacing),
            time_law=_DiscreteTime(n_train), time_scale=1.0,
            action_norm=action_norm, relative_to=relative_to, noise_scale=noise_scale, clip=clip,
            mask_padding=mask_padding,
        )  # fmt: skip
