"""Whether chunk policies may be composed: they must mean the same thing by a number, a step and a noise level."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policies.denoising import DenoisingModel
from policies.encoders import Stats
from robot_rl.errors import ConfigError
from robot_rl.schedules import flow_times, sigma_grid, vp_times
from robot_rl.specs import ArraySpec, RobotSpec

NORMALISER_TOLERANCE = 1e-6  # relative for scales, in normalised units for offsets
ROUNDING = 1e-6  # of a noise level that went through a time and back


@dataclass(frozen=True, eq=False)
class Parent:
    """A trained policy to be composed.

    Args:
        name: What messages and tables call it.
        model: Its model, with the weights to be used.
        spec: The robot, restricted to the observations it reads.
        stats: Statistics it was built with.
    """

    name: str
    model: DenoisingModel
    spec: RobotSpec
    stats: Stats


def check_agreement(parents: Sequence[Parent]) -> None:
    """Raise unless the parents can be composed.

    Raises:
        ConfigError: Fewer than two parents, another action, control rate or reference, an observation that means two
            things, or normalisers that differ; names the parents, the element and both values.
    """
    if len(parents) < 2:
        raise ConfigError(f"a composition needs at least 2 `parents`, got {[parent.name for parent in parents]}")
    first = parents[0]
    for other in parents[1:]:
        _check_specs(first, other)
        if first.model.relative_to != other.model.relative_to:
            raise ConfigError(
                f"`relative_to` is {list(first.model.relative_to)} for `{first.name}` and "
                f"{list(other.model.relative_to)} for `{other.name}`; their chunks start from different zeros, train "
                "both with the same"
            )
    for i, one in enumerate(parents):
        for other in parents[i + 1 :]:
            _check_normalisers(one, other)


def _check_specs(first: Parent, other: Parent) -> None:
    if first.spec.control_hz != other.spec.control_hz:
        raise ConfigError(
            f"`control_hz` is {first.spec.control_hz:g} for `{first.name}` and {other.spec.control_hz:g} for "
            f"`{other.name}`; a step must be the same time for both"
        )
    pairs: list[tuple[ArraySpec, ArraySpec]] = [(first.spec.action, other.spec.action)]
    pairs += [(first.spec.obs[name], other.spec.obs[name]) for name in first.spec.obs if name in other.spec.obs]
    for mine, theirs in pairs:
        a, b = mine.to_dict(), theirs.to_dict()
        if different := [key for key in a if a[key] != b.get(key)]:
            key = different[0]
            raise ConfigError(
                f"`{mine.name}` differs in `{key}`: {a[key]!r} for `{first.name}`, {b.get(key)!r} for `{other.name}`; "
                "composed policies must share the robot"
            )


def _check_normalisers(one: Parent, other: Parent) -> None:
    """Raise unless both map actions alike on every step that both chunks hold."""
    start = max(one.model.action_offset, other.model.action_offset)
    stop = min(end_step(one.model), end_step(other.model))
    for field in ("scale", "offset"):
        a, b = (_rows(parent.model, field, start, stop) for parent in (one, other))
        size = a.abs() if field == "scale" else a.abs().clamp(min=1.0)
        bad = ~((a - b).abs() <= NORMALISER_TOLERANCE * size)  # NaN is bad too
        if bool(bad.any()):
            row, element = (int(i) for i in bad.nonzero()[0])
            where = f"element {element}" + (f" of step {start + row}" if one.model.relative_to else "")
            raise ConfigError(
                f"action normalisers disagree: {field} of {where} is {float(a[row, element]):.7g} for `{one.name}` and "
                f"{float(b[row, element]):.7g} for `{other.name}`; train both with the same `action_norm` on the same "
                "action statistics"
            )


def _rows(model: DenoisingModel, field: str, start: int, stop: int) -> Tensor:
    """Return a field of a model's normaliser [steps, A] for control steps `start` to `stop`, in double precision."""
    values: Tensor = getattr(model.normalizer, field).detach().cpu().double()
    if values.ndim == 1:
        return values[None]
    return values[start - model.action_offset : stop - model.action_offset]


def end_step(model: DenoisingModel) -> int:
    """Return the control step after the chunk's last, relative to the newest observation."""
    return model.action_offset + model.horizon


def joined_normaliser(models: Sequence[DenoisingModel]) -> tuple[Tensor, Tensor]:
    """Return scale and offset of a chunk that covers all the models' steps, each row from the first that has it."""
    first = models[0].normalizer
    if first.scale.ndim == 1:
        return first.scale, first.offset
    start, stop = min(m.action_offset for m in models), max(end_step(m) for m in models)
    owner = [next(m for m in models if m.action_offset <= step < end_step(m)) for step in range(start, stop)]
    steps = list(zip(range(start, stop), owner, strict=True))
    scale, offset = (
        torch.stack([getattr(m.normalizer, field)[step - m.action_offset] for step, m in steps])
        for field in ("scale", "offset")
    )
    return scale, offset


def native_time(model: DenoisingModel, level: float) -> float:
    """Return the model's time of a noise level: its own solver time if it is one, without rounding, else the path's."""
    own = {float(model.path.sigma_e(t)): t for t in model.times}
    return own.get(level, model.path.time(level))


def supported_levels(model: DenoisingModel) -> tuple[float, float]:
    """Return the lowest and highest noise level sigma_e that the model was trained on.

    Flow is trained on all of them; a VP path on those of its steps; of a VE path it is what its own solver times span.
    """
    path = model.path
    if path.kind == "flow":
        return 0.0, math.inf
    if path.kind == "vp":
        return float(path.sigma_e(0)), float(path.sigma_e(path.n_train - 1))
    own = [float(path.sigma_e(t)) for t in model.times if t > 0]
    return min(own), max(own)


def shared_levels(models: Sequence[DenoisingModel], n_steps: int | None = None) -> list[float]:
    """Return a falling grid of noise levels sigma_e, ending in 0, on which every model was trained.

    It is the solver grid of the first model with discrete steps (else of the first VE model, else of the first), so
    that its steps need no rounding; levels outside what the others know are left out.

    Args:
        models: The models.
        n_steps: Steps of that model's grid; `None` keeps its own.

    Raises:
        ConfigError: No level is left.
    """
    ranges = [supported_levels(model) for model in models]
    low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
    guide = min(models, key=lambda model: ("vp", "ve", "flow").index(model.path.kind))
    times = list(guide.times)
    if n_steps is not None:
        if guide.path.kind == "vp":
            times = vp_times(guide.path.n_train, n_steps)
        elif guide.path.kind == "flow":
            times = flow_times(n_steps)
        elif low < high:
            times = sigma_grid(n_steps, low, high, spacing="karras")
    every = [float(guide.path.sigma_e(t)) for t in times]
    inside = [level for level in every if low * (1 - ROUNDING) <= level <= high * (1 + ROUNDING) and level > 0]
    if not inside:
        raise ConfigError(
            f"the parents share no noise level: they were trained on sigma_e within {ranges}, and none of "
            f"{[round(level, 4) for level in every]} lies in all of them; choose other `levels`"
        )
    return [*inside, 0.0]
