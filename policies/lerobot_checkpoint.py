"""A LeRobot checkpoint folder as a chunk model of ours: a base for residual learning, a parent, or a bundle.

The pictures are the robot's own, uint8; everything from there on is in the model. Departures from LeRobot: whoever
executes the model clamps actions to the range of its training data, and a pipeline that does more than rename and
normalise is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policies.chunk_network import ChunkNetwork
from policies.diffusion import DiffusionModel
from policies.lerobot_act import act_weights, build_act
from policies.lerobot_diffusion import build_diffusion, diffusion_weights
from policies.lerobot_files import Checkpoint, Feature, read_checkpoint
from policies.regression import RegressionModel
from robot_rl.data.normalizer import FieldStats
from robot_rl.errors import ConfigError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec

_RANGE = 5.0
"""Standard deviations of the action range, where a checkpoint has neither bounds nor a robot to tell them."""


@dataclass(frozen=True)
class LeRobotPolicy:
    """A policy of LeRobot's and what is needed to run it.

    Args:
        model: The chunk model, in evaluation mode.
        spec: The robot, with the observations that it reads.
        stats: Statistics of `action` and of the observations, as far as the checkpoint has them.
        n_execute: Actions to execute before asking again.
        recipe: Config node that builds the model again, without weights, when called with (spec, stats).
        digest: Hash of its weights.
    """

    model: ChunkNetwork
    spec: RobotSpec
    stats: Mapping[str, FieldStats]
    n_execute: int
    recipe: Mapping[str, Any]
    digest: str


def load_lerobot_policy(
    path: str | Path,
    *,
    robot: RobotSpec | None = None,
    control_hz: float | None = None,
    names: Mapping[str, Sequence[str] | str] | None = None,
    n_steps: int | None = None,
    sampler: str | None = None,
) -> LeRobotPolicy:
    """Open a checkpoint folder of LeRobot's DiffusionPolicy or ACTPolicy.

    Args:
        path: What `save_pretrained` wrote: `config.json`, `model.safetensors`, and in newer versions the processors.
        robot: The robot it shall drive; `None` makes one up from the checkpoint, observations named as the features.
        control_hz: Its control rate in hertz, if there is no `robot`; a checkpoint does not hold it.
        names: The robot's observations that, joined, make up a feature; a feature is its own name if not given.
        n_steps: Diffusion: steps when sampling; `None` leaves them as they were saved.
        sampler: Diffusion: how to sample, a name of `robot_rl.samplers.SAMPLERS`; `None` leaves it so too.

    Raises:
        ConfigError: A file that cannot be read, a policy that is not known here, a rate that lacks, or a robot whose
            observations do not make up the features.
    """
    checkpoint = read_checkpoint(path)
    placed = _placed(checkpoint, names or {})
    spec = _spec(checkpoint, placed, robot, control_hz)
    stats = _stats(checkpoint, placed, spec)
    recipe = {
        "_target_": "policies.lerobot_checkpoint.rebuild", "config": dict(checkpoint.config), "names": placed,
        "features": [_plain(f) for f in (*checkpoint.inputs, checkpoint.action)], "n_steps": n_steps,
        "sampler": sampler,
    }  # fmt: skip
    model = _build(checkpoint.config, checkpoint.inputs, checkpoint.action, placed, spec, stats, n_steps, sampler)
    _load(model, checkpoint, path)
    n_execute = min(int(checkpoint.config["n_action_steps"]), model.horizon + model.action_offset)
    return LeRobotPolicy(model.eval(), spec, stats, n_execute, recipe, checkpoint.digest)


def rebuild(
    spec: RobotSpec,
    stats: Mapping[str, FieldStats],
    *,
    config: Mapping[str, Any],
    features: Sequence[Mapping[str, Any]],
    names: Mapping[str, Sequence[str]],
    n_steps: int | None = None,
    sampler: str | None = None,
) -> ChunkNetwork:
    """Return a checkpoint's model without its weights: what a bundle's `config.yaml` builds it from."""
    known = [Feature(f["name"], f["kind"], tuple(f["shape"]), f["mode"], _neutral(f)) for f in features]
    *inputs, action = known
    return _build(config, inputs, action, names, spec, stats, n_steps, sampler)


def _build(
    config: Mapping[str, Any], inputs: Sequence[Feature], action: Feature, names: Mapping[str, Sequence[str]],
    spec: RobotSpec, stats: Mapping[str, FieldStats], n_steps: int | None, sampler: str | None,
) -> ChunkNetwork:  # fmt: skip
    if config["type"] == "act":
        return build_act(config, inputs, action, names=names, spec=spec, stats=stats)
    return build_diffusion(
        config, inputs, action, names=names, spec=spec, stats=stats, n_steps=n_steps, sampler=sampler
    )


def _load(model: ChunkNetwork, checkpoint: Checkpoint, path: str | Path) -> None:
    """Put the checkpoint's weights into the model; every tensor of it that is not a statistic must come from there."""
    try:
        if isinstance(model, DiffusionModel):
            renamed = diffusion_weights(checkpoint.weights, model)
        else:
            assert isinstance(model, RegressionModel)
            renamed = act_weights(checkpoint.weights, model)
    except KeyError as error:
        raise ConfigError(f"{path}: the weights lack {error}; the checkpoint is incomplete") from error
    own = {"action_low", "action_high", *(n for n in model.state_dict() if "normalizer" in n)}
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items() if name not in own}
    missing, superfluous = sorted(set(wanted) - set(renamed)), sorted(set(renamed) - set(wanted))
    wrong = [n for n in wanted if n in renamed and renamed[n].shape != wanted[n]]
    if missing or superfluous or wrong:
        raise ConfigError(
            f"{path}: its weights are not those of its config.json: {len(missing)} missing {missing[:3]}, "
            f"{len(superfluous)} superfluous {superfluous[:3]}, {len(wrong)} of another shape {wrong[:3]}"
        )
    model.load_state_dict(renamed, strict=False)


def _placed(checkpoint: Checkpoint, names: Mapping[str, Sequence[str] | str]) -> dict[str, list[str]]:
    """Return the observations that make up each feature."""
    known = [feature.name for feature in checkpoint.inputs]
    if unknown := sorted(set(names) - set(known)):
        raise ConfigError(f"`names` says what {unknown} are made of, but the policy reads {known}")
    placed = {}
    for name in known:
        given = names.get(name, checkpoint.sources.get(name, name))
        placed[name] = [given] if isinstance(given, str) else list(given)
    return placed


def _spec(
    checkpoint: Checkpoint, placed: Mapping[str, Sequence[str]], robot: RobotSpec | None, control_hz: float | None
) -> RobotSpec:
    if robot is None:
        return _own_spec(checkpoint, placed, control_hz)
    needed = [name for parts in placed.values() for name in parts]
    if missing := sorted(set(needed) - set(robot.obs)):
        raise ConfigError(
            f"the policy reads {missing}, robot `{robot.name}` has {sorted(robot.obs)}; say with `names` which of them "
            f"make up {[feature.name for feature in checkpoint.inputs]}"
        )
    for feature in checkpoint.inputs:
        parts = [robot.obs[name] for name in placed[feature.name]]
        shape = (*feature.shape[1:], feature.shape[0])
        fits = (
            [p.shape for p in parts] == [shape]
            if feature.kind == "VISUAL"
            else sum(p.size for p in parts) == feature.shape[0]
        )
        if not fits or (feature.kind == "VISUAL") != parts[0].is_image:
            raise ConfigError(
                f"`{feature.name}` of the policy is {feature.kind} of shape {feature.shape}, the robot's "
                f"{list(placed[feature.name])} are {[p.describe() for p in parts]}"
            )
    if robot.action.shape != checkpoint.action.shape:
        raise ConfigError(f"the policy's action is {checkpoint.action.shape}, the robot's {robot.action.shape}")
    return robot.select(needed)


def _own_spec(checkpoint: Checkpoint, placed: Mapping[str, Sequence[str]], control_hz: float | None) -> RobotSpec:
    """Return a robot made up from the checkpoint."""
    if control_hz is None:
        raise ConfigError("a LeRobot checkpoint does not hold its control rate; give it (lerobot.control_hz=...)")
    obs = {}
    for feature in checkpoint.inputs:
        if len(placed[feature.name]) > 1:
            raise ConfigError(f"`names` splits {feature.name}, for which the robot's own spec is needed")
        name = placed[feature.name][0]
        if feature.kind == "VISUAL":
            obs[name] = ArraySpec(name=name, shape=(*feature.shape[1:], feature.shape[0]), dtype="uint8")
        else:
            obs[name] = ArraySpec(name=name, shape=feature.shape)
    return RobotSpec(
        name="lerobot", obs=obs, action=ActionSpec(name="action", shape=checkpoint.action.shape), control_hz=control_hz
    )


def _stats(checkpoint: Checkpoint, placed: Mapping[str, Sequence[str]], spec: RobotSpec) -> dict[str, FieldStats]:
    """Return statistics as ours are; of what a checkpoint lacks, what follows from what it has."""
    stats = {"action": _field(checkpoint.action, (spec.action.low, spec.action.high))}
    for feature in checkpoint.inputs:
        if feature.kind == "VISUAL":
            continue
        whole, first = _field(feature, (None, None)), 0
        for name in placed[feature.name]:
            shape, last = spec.obs[name].shape, first + spec.obs[name].size
            cut = {n: getattr(whole, n)[first:last].reshape(shape) for n in ("min", "max", "mean", "std", "q01", "q99")}
            stats[name] = replace(whole, **cut)
            first = last
    return stats


def _field(feature: Feature, bounds: tuple[Any, Any]) -> FieldStats:
    size = feature.shape[0]
    given = {name: value.double().numpy() for name, value in feature.stats.items()}
    mean = given.get("mean")
    low, high = given.get("min"), given.get("max")
    if low is None or high is None:
        low, high = (given.get("q01"), given.get("q99")) if mean is None else (
            mean - _RANGE * given["std"], mean + _RANGE * given["std"])  # fmt: skip
        if bounds[0] is not None and bounds[1] is not None:
            low, high = (np.broadcast_to(np.asarray(bound, np.float64), (size,)) for bound in bounds)
    if low is None or high is None:
        low, high = np.full(size, -1.0), np.full(size, 1.0)
    mean = (low + high) / 2 if mean is None else mean
    std = given.get("std", (high - low) / 4)
    return FieldStats(
        min=low, max=high, mean=mean, std=std, q01=given.get("q01", low), q99=given.get("q99", high),
        count=int(given["count"][0]) if "count" in given else 1,
    )  # fmt: skip


def _plain(feature: Feature) -> dict[str, Any]:
    return {"name": feature.name, "kind": feature.kind, "shape": list(feature.shape), "mode": feature.mode}


def _neutral(feature: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return statistics that stand in until the weights, which hold the real ones, are loaded."""
    width = int(feature["shape"][0])
    one = torch.ones(width)
    return {"mean": 0 * one, "std": one, "min": -one, "max": one, "q01": -one, "q99": one}
