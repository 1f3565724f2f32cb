"""Flow-matching policy: the straight path from noise (t = 1) to actions (t = 0), velocity prediction, Euler steps.

Lipman et al. 2023 (arXiv 2210.02747); the time law and ten Euler steps are pi0's (arXiv 2410.24164, section IV).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policies.denoising import DenoisingModel, TimeLaw
from policies.encoders import Encoder, Stats
from robot_rl.data.normalizer import NormMode
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
    """A flow-matching ChunkModel; `DenoisingModel` explains the arguments not listed here.

    Args:
        spec: The robot.
        stats: Statistics of `action` and of the observations that are normalised.
        encoder: Called as encoder(spec, stats, n_obs=...).
        denoiser: Called as denoiser(action_dim=..., horizon=..., cond_dim=...).
        n_obs: O, observation steps.
        horizon: H, actions in a chunk.
        action_offset: Control step of the chunk's first action relative to the newest observation.
        n_steps: Euler steps.
        time_law: Where in time to train: `uniform`, `beta` (pi0's, more noise) or `logit_normal` (the middle).
        action_norm: How actions are normalised.
        relative_to: Observations that chunks are predicted relative to.
        noise_scale: Factor on the noise that sampling starts from. 1 samples the demonstrators' whole variety, 0
            follows the flow from its centre: less variety, more precision. A departure from flow matching.
        clip: Bound of the denoiser's normalised output while sampling; flow policies use none.
        mask_padding: Leave padded steps out of the loss.

    Raises:
        ConfigError: An unknown time law, or a setting `DenoisingModel` refuses.
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
        n_steps: int = 10,
        time_law: str = "beta",
        action_norm: NormMode = "min_max",
        relative_to: Sequence[str] = (),
        noise_scale: float = 1.0,
        clip: float | None = None,
        mask_padding: bool = True,
    ) -> None:
        if time_law not in TIME_LAWS:
            raise ConfigError(f"`time_law` must be one of {sorted(TIME_LAWS)}, got {time_law!r}")
        super().__init__(
            spec, stats, encoder=encoder, denoiser=denoiser, n_obs=n_obs, horizon=horizon, action_offset=action_offset,
            path=GaussianPath.flow(), times=flow_times(n_steps), time_law=TIME_LAWS[time_law], time_scale=100.0,
            action_norm=action_norm, relative_to=relative_to, noise_scale=noise_scale, clip=clip,
            mask_padding=mask_padding,
        )  # fmt: skip
