"""What a LeRobot checkpoint folder holds: configuration, weights, and how its inputs and outputs are normalised.

Two layouts are read: statistics in `policy_preprocessor*` and `policy_postprocessor*` beside the weights (LeRobot 0.4
and newer), or as buffers of the weights (`normalize_inputs.buffer_...`, before that).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from robot_rl.errors import ConfigError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
KINDS = ("diffusion", "act")
MODES = ("MIN_MAX", "MEAN_STD", "QUANTILES", "IDENTITY")
_NEEDED = {"MIN_MAX": ("min", "max"), "MEAN_STD": ("mean", "std"), "QUANTILES": ("q01", "q99"), "IDENTITY": ()}
_PIPELINES = ("policy_preprocessor.json", "policy_postprocessor.json")
_NORMALISERS = ("normalizer_processor", "unnormalizer_processor")
_HARMLESS = ("to_batch_processor", "device_processor")
_EPS = 1e-8
_BUFFERS = ("normalize_inputs.", "unnormalize_outputs.", "normalize_targets.")


@dataclass(frozen=True)
class Feature:
    """An input or output of the policy.

    Args:
        name: `observation.state`, `action` and so on.
        kind: `STATE`, `ENV`, `VISUAL` or `ACTION`.
        shape: Shape of one; pictures as (channels, height, width).
        mode: How it is normalised, one of `MODES`.
        stats: Statistics by name (`mean`, `std`, `min`, `max`, `q01`, `q99`), as many as there are, flat.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    mode: str
    stats: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder, read.

    Args:
        kind: `diffusion` or `act`.
        config: `config.json`, with only plain values.
        inputs: Features that are read, in the order of the configuration.
        action: The action.
        weights: The network's tensors by LeRobot's names, statistics left out.
        sources: What a feature is called before the policy renames it.
        digest: Hash of the weights file.
    """

    kind: str
    config: Mapping[str, Any]
    inputs: tuple[Feature, ...]
    action: Feature
    weights: Mapping[str, Tensor]
    sources: Mapping[str, str]
    digest: str

    def of_kind(self, kind: str) -> list[Feature]:
        """Return the inputs of a kind."""
        return [feature for feature in self.inputs if feature.kind == kind]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Return what a checkpoint folder holds.

    Raises:
        ConfigError: A file is missing or damaged, the policy is of another kind, or it does with its inputs what is
            not known here.
    """
    root = Path(path)
    config = _json(root / CONFIG)
    kind = config.get("type")
    if kind not in KINDS:
        raise ConfigError(f"{root / CONFIG}: `type` must be one of {KINDS}, got {kind!r}")
    tensors = _tensors(root / WEIGHTS)
    weights = {name: value for name, value in tensors.items() if not name.startswith(_BUFFERS)}
    steps = [_json(root / name).get("steps", []) for name in _PIPELINES] if (root / _PIPELINES[0]).is_file() else None
    _check_steps(root, steps or [])
    entering, leaving = (_side(root, steps, tensors, i) for i in range(2))
    inputs = tuple(
        _feature(root, config, name, entry, entering) for name, entry in config.get("input_features", {}).items()
    )
    outputs = config.get("output_features", {})
    if "action" not in outputs or not inputs:
        raise ConfigError(f"{root / CONFIG} must name `input_features` and an output `action`, got {sorted(outputs)}")
    return Checkpoint(
        kind=str(kind), config=config, inputs=inputs, weights=weights,
        action=_feature(root, config, "action", outputs["action"], leaving),
        sources=_sources(steps or []), digest=hashlib.sha256((root / WEIGHTS).read_bytes()).hexdigest()[:32],
    )  # fmt: skip


@dataclass(frozen=True)
class _Side:
    """Statistics and modes of what goes in, or comes out."""

    stats: Mapping[str, Tensor]
    modes: Mapping[str, str]


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}; give the folder that LeRobot's save_pretrained wrote"
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold an object, got {type(data).__name__}")
    return data


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return {name: tensor for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; copy the checkpoint again") from error


def _check_steps(root: Path, pipelines: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Raise if a policy's processors do anything to its inputs or outputs but rename and normalise them."""
    known = {*_NORMALISERS, *_HARMLESS, "rename_observations_processor"}
    for name, steps in zip(_PIPELINES, pipelines, strict=False):
        found = [str(step.get("registry_name", step.get("class"))) for step in steps]
        if unknown := sorted(set(found) - known):
            raise ConfigError(f"{root / name} has steps {unknown}, which are not known here; known are {sorted(known)}")


def _side(root: Path, steps: Any, tensors: Mapping[str, Tensor], i: int) -> _Side:
    """Return what the preprocessor (0) or the postprocessor (1) normalises by."""
    if steps is None:
        return _Side(_buffers(tensors, _BUFFERS[i]), {})
    for step in steps[i]:
        if step.get("registry_name") == _NORMALISERS[i]:
            file = step.get("state_file")
            stats = _tensors(root / file) if file else {}
            return _Side(stats, step.get("config", {}).get("norm_map", {}))
    return _Side({}, {})


def _buffers(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return statistics by `feature.stat` with the feature's dots as underscores, as buffers have them."""
    start = prefix + "buffer_"
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def _feature(root: Path, config: Mapping[str, Any], name: str, entry: Mapping[str, Any], side: _Side) -> Feature:
    kind = str(entry["type"])
    mode = str(side.modes.get(kind, config.get("normalization_mapping", {}).get(kind, "IDENTITY")))
    if mode not in MODES:
        raise ConfigError(f"{root}: `{name}` is normalised by {mode}, which is not one of {MODES}")
    keys = (f"{name}.", name.replace(".", "_") + ".")
    stats = {
        key.rsplit(".", 1)[1]: value.float().reshape(-1)
        for key, value in side.stats.items()
        if key.startswith(keys) and "." not in key.removeprefix(keys[0]).removeprefix(keys[1])
    }
    missing = [stat for stat in _NEEDED[mode] if stat not in stats]
    if missing and kind != "VISUAL":
        raise ConfigError(f"{root}: `{name}` is normalised by {mode} and its statistics lack {missing}")
    if any(not bool(torch.isfinite(stats[stat]).all()) for stat in _NEEDED[mode] if stat in stats):
        raise ConfigError(f"{root}: the statistics of `{name}` are not finite; the policy was saved without a data set")
    return Feature(name, kind, tuple(int(n) for n in entry["shape"]), "IDENTITY" if missing else mode, stats)


def _sources(pipelines: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """Return what a feature is called before the preprocessor renames it."""
    renamed: dict[str, str] = {}
    for step in pipelines[0] if pipelines else []:
        if step.get("registry_name") == "rename_observations_processor":
            renamed |= step.get("config", {}).get("rename_map", {})
    return {new: old for old, new in renamed.items()}
