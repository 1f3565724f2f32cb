"""What every chunk policy shares: window, normaliser, encoder, and the error it is trained on.

Inside a network everything is normalised; `sample` and `loss` are physical on both sides.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, Required, TypedDict, Unpack, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from policies.encoders import AuxiliaryLoss, Encoder, Stats
from policies.normalize import AffineNormalizer
from robot_rl.data.normalizer import NormMode, affine_for
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec

Measure = Callable[[Tensor], Tensor]
"""Maps a difference to an error of its shape: `torch.square` or `torch.abs`."""


@runtime_checkable
class OwnLoss(Protocol):
    """A denoiser that is trained on more than the plain error of its output, such as a mixture of horizons."""

    def loss(self, x: Tensor, t: Tensor, cond: Tensor, *, target: Tensor, counted: Tensor, measure: Measure) -> Tensor:
        """Return the scalar loss.

        `x` [B, H, A], `t` [B] and `cond` [B, C] as of `forward`; `target` [B, H, A] is what `forward` should return
        and `counted` [B, H] bool where that matters.
        """


class ChunkOptions(TypedDict, total=False):
    """Arguments of every chunk policy.

    Keys:
        encoder: Called as encoder(spec, stats, n_obs=...).
        denoiser: Called as denoiser(action_dim=..., horizon=..., cond_dim=...); the module it returns is called with
            (x [B, H, A], t [B], condition [B, C]) and may have a loss of its own (`OwnLoss`).
        n_obs: O, observation steps.
        horizon: H, actions in a chunk.
        action_offset: Control step of the chunk's first action relative to the newest observation; 0 if not given.
        action_norm: How actions are normalised; `min_max` if not given.
        relative_to: Observations that, joined, are the action that holds the present pose (for joint targets, the joint
            positions). If given, chunks are predicted as differences from their newest values and normalised by
            `stats["action_relative"]`, [H, A], one scale per step; both ends stay physical and absolute.
        mask_padding: Leave out of the loss the steps where a window left its episode; true if not given. False trains
            them on the replicated last action, as Diffusion Policy does.
    """

    encoder: Required[Callable[..., Encoder]]
    denoiser: Required[Callable[..., nn.Module]]
    n_obs: Required[int]
    horizon: Required[int]
    action_offset: int
    action_norm: NormMode
    relative_to: Sequence[str]
    mask_padding: bool


class ChunkNetwork(nn.Module, abc.ABC):
    """Abstract chunk policy (a `robot_rl.interfaces.ChunkModel`).

    Args:
        spec: The robot.
        stats: Statistics of `action` and of the observations that are normalised.
        measure: Error of a difference.
        options: See `ChunkOptions`.

    Raises:
        ConfigError: Statistics or observations that are missing, or a window that does not cover the newest tick.
    """

    action_low: Tensor
    action_high: Tensor

    def __init__(
        self, spec: RobotSpec, stats: Stats, *, measure: Measure = torch.square, **options: Unpack[ChunkOptions]
    ) -> None:
        super().__init__()
        self.n_obs, self.horizon = options["n_obs"], options["horizon"]
        self.action_offset = options.get("action_offset", 0)
        _check_window(self.n_obs, self.horizon, self.action_offset)
        self.relative_to = tuple(options.get("relative_to", ()))
        self.action_field = "action_relative" if self.relative_to else "action"
        if missing := sorted({"action", self.action_field} - set(stats)):
            raise ConfigError(f"`stats` lacks {missing}, got {sorted(stats)}")
        _check_reference(spec, self.relative_to)
        self.action_dim = spec.action.size
        self.measure, self.mask_padding = measure, options.get("mask_padding", True)
        affine = affine_for(stats[self.action_field], options.get("action_norm", "min_max"))
        self.normalizer = AffineNormalizer(affine, flat=not self.relative_to)
        for side, bound in (("action_low", stats["action"].min), ("action_high", stats["action"].max)):
            self.register_buffer(side, torch.as_tensor(bound, dtype=torch.float32).reshape(self.action_dim))
        self.encoder = options["encoder"](spec, stats, n_obs=self.n_obs)
        self.denoiser = options["denoiser"](
            action_dim=self.action_dim, horizon=self.horizon, cond_dim=self.encoder.out_dim
        )

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Shape of the noise that one sample takes; [H, A] where the noise is only what sampling starts from."""
        return self.horizon, self.action_dim

    def encode(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B C"]:
        """Return the condition vector for obs {name: [B, O, ...]} in physical units."""
        return self.encoder(obs)

    def encode_for_loss(self, obs: Mapping[str, Tensor]) -> tuple[Float[Tensor, "B C"], Tensor | float]:
        """Return the condition vector to be used in a loss, and what the encoder itself adds to that loss."""
        if isinstance(self.encoder, AuxiliaryLoss):
            steps, cost = self.encoder.steps_for_loss(obs)
            return steps.flatten(1), cost
        return self.encoder(obs), 0.0

    def reference(self, obs: Mapping[str, Tensor]) -> Tensor | float:
        """Return what chunks are relative to, [B, 1, A], or zero."""
        if not self.relative_to:
            return 0.0
        return torch.cat([obs[name][:, -1].flatten(1) for name in self.relative_to], dim=1).unsqueeze(1)

    def physical(self, obs: Mapping[str, Tensor], normalised: Float[Tensor, "B H A"]) -> Float[Tensor, "B H A"]:
        """Return a normalised chunk in physical units."""
        return self.normalizer.inverse(normalised) + self.reference(obs)

    def normalised(self, obs: Mapping[str, Tensor], action: Float[Tensor, "B H A"]) -> Float[Tensor, "B H A"]:
        """Return a physical chunk as the network sees it; the inverse of `physical`."""
        return self.normalizer(action - self.reference(obs))

    @abc.abstractmethod
    def sample_normalised(self, obs: Mapping[str, Tensor], noise: Float[Tensor, "B M A"]) -> Float[Tensor, "B H A"]:
        """Return the normalised chunk for standard normal `noise`, [B, *noise_shape]."""

    def sample(self, obs: Mapping[str, Tensor], noise: Float[Tensor, "B M A"]) -> Float[Tensor, "B H A"]:
        """Return the chunk in physical units for standard normal `noise`, [B, *noise_shape]."""
        return self.physical(obs, self.sample_normalised(obs, noise))

    @abc.abstractmethod
    def loss(
        self,
        obs: Mapping[str, Tensor],
        target: Float[Tensor, "B H A"],
        noise: Float[Tensor, "B H A"],
        u: Float[Tensor, "B"],
        mask: Bool[Tensor, "B H"],
    ) -> Float[Tensor, ""]:
        """Return the training loss.

        Args:
            obs: Observations {name: [B, O, ...]} in physical units.
            target: Actions in physical units.
            noise: Standard normal.
            u: Uniform in [0, 1), which the model maps to its own time law.
            mask: False where the window left the episode.
        """

    def counted(self, mask: Bool[Tensor, "B H"]) -> Bool[Tensor, "B H"]:
        """Return which steps of a window the loss looks at."""
        return mask if self.mask_padding else torch.ones_like(mask)

    def error(
        self,
        x: Float[Tensor, "B H A"],
        t: Float[Tensor, "B"],
        cond: Float[Tensor, "B C"],
        target: Float[Tensor, "B H A"],
        counted: Bool[Tensor, "B H"],
    ) -> Float[Tensor, ""]:
        """Return the denoiser's error against what it should put out, over the steps that count."""
        if isinstance(self.denoiser, OwnLoss):
            return self.denoiser.loss(x, t, cond, target=target, counted=counted, measure=self.measure)
        return counted_mean(self.measure(self.denoiser(x, t, cond).float() - target), counted)


def counted_mean(error: Float[Tensor, "*B H A"], counted: Bool[Tensor, "*B H"]) -> Float[Tensor, ""]:
    """Return the mean of an error over all elements of the steps that count; 0 where none does."""
    kept = counted.sum().clamp(min=1) * error.shape[-1]
    return torch.where(counted[..., None], error, torch.zeros_like(error)).sum() / kept


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
