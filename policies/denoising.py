"""What diffusion and flow policies share: a chunk model over a Gaussian path. `diffusion` and `flow` configure it.

Loss (padded steps left out): mean || net(x_t, t, O) - target ||^2 with x_t = alpha a + sigma eps; sampling: the
deterministic solver of `robot_rl.gaussian_path`. The encoder runs once per chunk, the denoiser once per step.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from policies.encoders import Encoder, Stats
from policies.normalize import AffineNormalizer
from robot_rl.data.normalizer import FieldStats, NormMode, affine_for
from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import GaussianPath, solve
from robot_rl.specs import RobotSpec

TimeLaw = Callable[[Tensor], Tensor]
"""Maps u, uniform in [0, 1), to the path's own time by an inverse distribution function."""


class DenoisingModel(nn.Module):
    """A ChunkModel that denoises action chunks along a Gaussian path.

    Args:
        spec: The robot.
        stats: Statistics of `action` and of the observations that are normalised.
        encoder: Called as encoder(spec, stats, n_obs=...).
        denoiser: Called as denoiser(action_dim=..., horizon=..., cond_dim=...); the module it returns is called with
            (x [B, H, A], time_scale * t [B], condition [B, C]).
        path: The Gaussian path and what the network predicts.
        times: Solver times, falling from noise to data.
        time_law: Where in time to train.
        time_scale: Factor on t before the network, for time embeddings made for 0 to 100.
        n_obs: O, observation steps.
        horizon: H, actions in a chunk.
        action_offset: Control step of the chunk's first action relative to the newest observation.
        action_norm: How actions are normalised.
        relative_to: Observations that, joined, are the action that holds the present pose (for joint targets, the joint
            positions). If given, chunks are predicted as differences from their newest values and normalised by
            `stats["action_relative"]`, [H, A], one scale per step; both ends stay physical and absolute.
        noise_scale: Factor on the noise that sampling starts from, 0 or more.
        clip: Bound of the denoiser's normalised output while sampling; `None` for no bound.
        mask_padding: Leave out of the loss the steps where a window left its episode. False trains them on the
            replicated last action, as Diffusion Policy does.
    """

    action_low: Tensor
    action_high: Tensor

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        encoder: Callable[..., Encoder],
        denoiser: Callable[..., nn.Module],
        path: GaussianPath,
        times: Sequence[float],
        time_law: TimeLaw,
        time_scale: float,
        n_obs: int,
        horizon: int,
        action_offset: int,
        action_norm: NormMode,
        relative_to: Sequence[str],
        noise_scale: float,
        clip: float | None,
        mask_padding: bool,
    ) -> None:
        super().__init__()
        _check_window(n_obs, horizon, action_offset)
        self.relative_to = tuple(relative_to)
        field = "action_relative" if self.relative_to else "action"
        if missing := sorted({"action", field} - set(stats)):
            raise ConfigError(f"`stats` lacks {missing}, got {sorted(stats)}")
        _check_reference(spec, self.relative_to)
        self.n_obs, self.horizon, self.action_offset = n_obs, horizon, action_offset
        self.action_dim = spec.action.size
        self.path, self.times, self.time_law, self.time_scale = path, list(times), time_law, time_scale
        if not noise_scale >= 0:
            raise ConfigError(f"`noise_scale` must be 0 or more, got {noise_scale}")
        self.noise_scale, self.clip, self.mask_padding = noise_scale, clip, mask_padding
        self.normalizer = AffineNormalizer(affine_for(stats[field], action_norm), flat=not self.relative_to)
        for side, bound in (("action_low", stats["action"].min), ("action_high", stats["action"].max)):
            self.register_buffer(side, torch.as_tensor(bound, dtype=torch.float32).reshape(self.action_dim))
        if clip is not None:
            self._check_clip(stats[field], clip)
        self.encoder = encoder(spec, stats, n_obs=n_obs)
        self.denoiser = denoiser(action_dim=self.action_dim, horizon=horizon, cond_dim=self.encoder.out_dim)

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

    def encode(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B C"]:
        """Return the condition vector for obs {name: [B, O, ...]} in physical units."""
        return self.encoder(obs)

    def denoise(
        self, x: Float[Tensor, "B H A"], t: Float[Tensor, "B"], cond: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B H A"]:
        """Return the network's native output at the normalised noisy chunk `x` and the path's own time `t`."""
        return self.denoiser(x, t * self.time_scale, cond)

    def reference(self, obs: Mapping[str, Tensor]) -> Tensor | float:
        """Return what chunks are relative to, [B, 1, A], or zero."""
        if not self.relative_to:
            return 0.0
        return torch.cat([obs[name][:, -1].flatten(1) for name in self.relative_to], dim=1).unsqueeze(1)

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

    def sample(self, obs: Mapping[str, Tensor], noise: Float[Tensor, "B H A"]) -> Float[Tensor, "B H A"]:
        """Return the chunk in physical units that the solver reaches from standard normal `noise`."""
        return self.normalizer.inverse(self.sample_normalised(obs, noise)) + self.reference(obs)

    def loss(
        self,
        obs: Mapping[str, Tensor],
        target: Float[Tensor, "B H A"],
        noise: Float[Tensor, "B H A"],
        u: Float[Tensor, "B"],
        mask: Bool[Tensor, "B H"],
    ) -> Float[Tensor, ""]:
        """Return the mean squared error of the network's native output over the steps that count.

        A step that `mask` leaves out enters the network as pure noise, so that nothing of its target leaks into it.

        Args:
            obs: Observations {name: [B, O, ...]} in physical units.
            target: Actions in physical units.
            noise: Standard normal.
            u: Uniform in [0, 1); `time_law` makes it a time.
            mask: False where the window left the episode.
        """
        t = self.time_law(u)
        data = self.normalizer(target - self.reference(obs))
        x = self.path.mix(data, noise, t)
        if self.mask_padding:
            x = torch.where(mask[..., None], x, noise)
        error = self.denoise(x, t, self.encode(obs)).float() - self.path.target(data, noise, t)
        if not self.mask_padding:
            return error.square().mean()
        kept = mask.sum().clamp(min=1) * self.action_dim
        return torch.where(mask[..., None], error.square(), torch.zeros_like(error)).sum() / kept


def _check_window(n_obs: int, horizon: int, action_offset: int) -> None:
    if n_obs < 1 or horizon < 1:
        raise ConfigError(f"`n_obs` and `horizon` must be at least 1, got {n_obs} and {horizon}")
    if not -horizon < action_offset <= 0:
        raise ConfigError(
            f"`action_offset` must be in (-horizon, 0] = (-{horizon}, 0], so that the chunk covers the newest "
            f"observation's tick, got {action_offset}"
        )


def _check_reference(spec: RobotSpec, names: Sequence[str]) -> None:
    if unknown := sorted(set(names) - set(spec.obs)):
        raise ConfigError(f"`relative_to` names {unknown}, robot `{spec.name}` has {sorted(spec.obs)}")
    width = sum(spec.obs[name].size for name in names)
    if names and width != spec.action.size:
        raise ConfigError(
            f"`relative_to` {list(names)} joins to {width} elements, the action has {spec.action.size}; name the "
            "observations that make up the action holding the present pose"
        )
