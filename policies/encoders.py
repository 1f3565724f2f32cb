"""Encoders: what the policy sees, as one vector; low-dimensional observations, task ids, and any mixture.

Every encoder makes F features for each of the O observation steps and flattens them step by step, oldest first, the
order of Diffusion Policy and LeRobot (state, images, environment state per step, then the steps one after another).
Observations come in physical units; each encoder normalises its own. Pictures are in `policies.vision`.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policies.normalize import AffineNormalizer
from robot_rl.data.normalizer import Affine, FieldStats, NormMode, affine_for
from robot_rl.errors import ConfigError
from robot_rl.specs import ArraySpec, RobotSpec

Stats = Mapping[str, FieldStats]


class Encoder(nn.Module, abc.ABC):
    """Abstract encoder: `steps` gives F features per observation step, `forward` the flat [B, O * F] condition.

    Args:
        n_obs: O, observation steps.
        step_dim: F, features of one step.
    """

    def __init__(self, n_obs: int, step_dim: int) -> None:
        super().__init__()
        self.n_obs = n_obs
        self.step_dim = step_dim
        self.out_dim = n_obs * step_dim

    @abc.abstractmethod
    def steps(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B O F"]:
        """Return the features of each observation step, obs being {name: [B, O, ...]}."""

    def forward(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B C"]:
        """Return the condition vector."""
        return self.steps(obs).flatten(1)


@runtime_checkable
class AuxiliaryLoss(Protocol):
    """An encoder that adds a cost of its own to the policy's loss: a bottleneck, a reconstruction."""

    def steps_for_loss(self, obs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the features [B, O, F] to be used in a loss and the weighted scalar to be added to it.

        Unlike those of `steps`, the features may be drawn at random in training, from torch's global generator.
        """


def steps_for_loss(encoder: Encoder, obs: Mapping[str, Tensor]) -> tuple[Float[Tensor, "B O F"], Float[Tensor, ""]]:
    """Return an encoder's features for a loss, and what they cost: 0 unless it has an `AuxiliaryLoss`."""
    if isinstance(encoder, AuxiliaryLoss):
        return encoder.steps_for_loss(obs)
    features = encoder.steps(obs)
    return features, torch.zeros((), device=features.device)


def lookup(spec: RobotSpec, name: str, needed_by: str) -> ArraySpec:
    """Return the spec of an observation.

    Raises:
        ConfigError: The robot has no such observation.
    """
    if name not in spec.obs:
        raise ConfigError(f"{needed_by} needs the observation `{name}`, robot `{spec.name}` has {sorted(spec.obs)}")
    return spec.obs[name]


class _Field(nn.Module):
    """One low-dimensional observation: its angles as sine and cosine, the other elements normalised."""

    angle: Tensor
    rest: Tensor

    def __init__(self, spec: ArraySpec, affine: Affine, angles: Sequence[int]) -> None:
        super().__init__()
        wrong = [i for i in angles if not 0 <= i < spec.size]
        if wrong or len(set(angles)) != len(angles):
            raise ConfigError(
                f"`angles` of `{spec.name}` must be distinct indices below {spec.size}, got {list(angles)}"
            )
        self.normalizer = AffineNormalizer(affine)
        rest = [i for i in range(spec.size) if i not in angles]
        self.register_buffer("angle", torch.tensor(list(angles), dtype=torch.int64), persistent=False)
        self.register_buffer("rest", torch.tensor(rest, dtype=torch.int64), persistent=False)
        self.has_angle, self.has_rest = bool(angles), bool(rest)
        self.out_dim = len(rest) + 2 * len(angles)

    def forward(self, value: Tensor) -> Float[Tensor, "B O F"]:
        flat = value.float().flatten(2)  # [B, O, D]
        parts = []
        if self.has_rest:
            normalised = self.normalizer(flat)
            parts.append(normalised.index_select(2, self.rest) if self.has_angle else normalised)
        if self.has_angle:
            angle = flat.index_select(2, self.angle)
            parts += [angle.sin(), angle.cos()]
        return torch.cat(parts, dim=-1)


class StateEncoder(Encoder):
    """Low-dimensional observations (joints, poses, keypoints, each flattened), normalised, without parameters.

    Keypoints are this encoder with `names=["keypoint"]`.

    Args:
        spec: The robot.
        stats: Statistics by observation name.
        n_obs: O, observation steps.
        names: Which observations, in this order; all float ones when `None`.
        angles: Elements that are angles [rad], by name: each is replaced by its sine and cosine, after the rest.
        norm: How the other elements are normalised (`robot_rl.data.normalizer.affine_for`).

    Raises:
        ConfigError: A name without spec or statistics, a picture, or no observation at all.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        n_obs: int,
        names: Sequence[str] | None = None,
        angles: Mapping[str, Sequence[int]] | None = None,
        norm: NormMode = "min_max",
    ) -> None:
        angles = {} if angles is None else angles
        if names is None:
            names = [name for name, field in spec.obs.items() if field.dtype.startswith("float")]
        if not names:
            raise ConfigError(f"StateEncoder needs an observation; robot `{spec.name}` has {sorted(spec.obs)}")
        unknown = sorted(set(angles) - set(names))
        if unknown:
            raise ConfigError(f"`angles` names {unknown}, which is not among the encoded observations {list(names)}")
        fields = [_field(spec, stats, name, angles.get(name, ()), norm) for name in names]
        super().__init__(n_obs, sum(field.out_dim for field in fields))
        self.names = tuple(names)
        self.fields = nn.ModuleList(fields)

    def steps(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B O F"]:
        """Return the normalised observations, side by side."""
        return torch.cat([field(obs[name]) for name, field in zip(self.names, self.fields, strict=True)], dim=-1)


def _field(spec: RobotSpec, stats: Stats, name: str, angles: Sequence[int], norm: NormMode) -> _Field:
    """Build the part of a StateEncoder that reads one observation."""
    array = lookup(spec, name, "StateEncoder")
    if array.is_image:
        raise ConfigError(f"`{name}` is a picture, {array.describe()}; give it to an ImageEncoder")
    if name not in stats:
        raise ConfigError(f"no statistics for the observation `{name}`; there are some for {sorted(stats)}")
    return _Field(array, affine_for(stats[name], norm), angles)


class TaskEmbedding(Encoder):
    """A learned vector for an integer task id, so that one policy serves several tasks.

    Args:
        spec: The robot; it must have the observation `name`, one integer.
        stats: Not used; encoders share one signature.
        n_obs: O, observation steps.
        n_tasks: How many ids there are; a valid id lies in [0, n_tasks).
        name: The observation that carries the id.
        dim: Width of the embedding.

    Raises:
        ConfigError: The observation is missing or not one integer.
    """

    def __init__(
        self, spec: RobotSpec, stats: Stats, *, n_obs: int, n_tasks: int, name: str = "task_id", dim: int = 32
    ) -> None:
        super().__init__(n_obs, dim)
        array = lookup(spec, name, "TaskEmbedding")
        if array.size != 1 or not array.dtype.startswith(("int", "uint")):
            raise ConfigError(f"`{name}` must be one integer to be a task id, got {array.describe()}")
        self.name = name
        self.embedding = nn.Embedding(n_tasks, dim)

    def steps(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B O F"]:
        """Return the embedding of each step's id."""
        return self.embedding(obs[self.name].long().flatten(1))


class CompositeEncoder(Encoder):
    """Several encoders side by side, concatenated within each observation step.

    Args:
        spec: The robot.
        stats: Statistics by observation name.
        n_obs: O, observation steps.
        parts: Encoder constructors, in the order of concatenation.

    Raises:
        ConfigError: No parts, or one that is not there.
    """

    def __init__(
        self, spec: RobotSpec, stats: Stats, *, n_obs: int, parts: Sequence[Callable[..., Encoder] | None]
    ) -> None:
        if not parts:
            raise ConfigError("`parts` of a CompositeEncoder must name at least one encoder, got none")
        if missing := [i for i, part in enumerate(parts) if part is None]:
            raise ConfigError(
                f"`parts` {missing} of a CompositeEncoder are null; what they stand for is not set for this task, as "
                "`task.relative` for encoder=state_relative: set it, or choose another encoder"
            )
        built = [part(spec, stats, n_obs=n_obs) for part in parts if part is not None]
        super().__init__(n_obs, sum(part.step_dim for part in built))
        self.parts = nn.ModuleList(built)

    def steps(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B O F"]:
        """Return every part's features, side by side."""
        return torch.cat([cast(Encoder, part).steps(obs) for part in self.parts], dim=-1)

    def steps_for_loss(self, obs: Mapping[str, Tensor]) -> tuple[Float[Tensor, "B O F"], Float[Tensor, ""]]:
        """Return every part's features for a loss, side by side, and the sum of what they cost."""
        features, costs = zip(*(steps_for_loss(cast(Encoder, part), obs) for part in self.parts), strict=True)
        return torch.cat(features, dim=-1), torch.stack(costs).sum()
