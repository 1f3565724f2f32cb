"""Checkpoint folders as LeRobot writes them, made without LeRobot: every number follows from the tensor's name.

`lerobot_shapes.json` has the names and shapes of two small policies of LeRobot 0.6.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

SHAPES = json.loads((Path(__file__).parent / "lerobot_shapes.json").read_text())
STATE, ENV, CAMERA = "observation.state", "observation.environment_state", "observation.images.cam0"
PICTURES = {"diffusion": (3, 70, 64), "act": (3, 64, 40)}
MODES = {
    "diffusion": {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"},
    "act": {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "diffusion": {
        "n_obs_steps": 2, "horizon": 8, "n_action_steps": 4, "vision_backbone": "resnet18", "resize_shape": None,
        "crop_shape": [64, 40], "use_group_norm": False, "spatial_softmax_num_keypoints": 4,
        "use_separate_rgb_encoder_per_camera": True, "down_dims": [8, 16], "kernel_size": 5, "n_groups": 4,
        "diffusion_step_embed_dim": 8, "use_film_scale_modulation": True, "noise_scheduler_type": "DDIM",
        "num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2", "beta_start": 0.0001, "beta_end": 0.02,
        "prediction_type": "epsilon", "clip_sample": True, "clip_sample_range": 1.0, "num_inference_steps": 4,
    },
    "act": {
        "n_obs_steps": 1, "chunk_size": 6, "n_action_steps": 5, "vision_backbone": "resnet18", "dim_model": 16,
        "n_heads": 2, "dim_feedforward": 24, "n_encoder_layers": 1, "n_decoder_layers": 1, "n_vae_encoder_layers": 1,
        "latent_dim": 4, "pre_norm": False, "feedforward_activation": "relu", "dropout": 0.1, "use_vae": True,
        "replace_final_stride_with_dilation": False,
    },
}  # fmt: skip
SIZES = {STATE: 5, ENV: 3, "action": 4}
_OF_PICTURES = ("rgb_encoder.", ".backbone.", "img_feat")
_TAKES_ACTIONS = ("0.0.conv1.block.0.weight", "0.0.residual_conv.weight")


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def shapes(kind: str, *, camera: bool = True, sizes: Mapping[str, int] = SIZES) -> dict[str, list[int]]:
    """Return the shape of every tensor; other `sizes` than the usual ones only of a diffusion policy."""
    found = {n: list(s) for n, s in SHAPES[kind].items() if camera or not any(part in n for part in _OF_PICTURES)}
    width = sizes[STATE] + sizes[ENV] + (8 if camera else 0)
    for name, shape in found.items() if kind == "diffusion" else ():
        if name.endswith("cond_encoder.1.weight"):
            shape[1] = 8 + 2 * width
        elif name.startswith("diffusion.unet.down_modules.0") and name.endswith(_TAKES_ACTIONS):
            shape[1] = sizes["action"]
        elif name.startswith("diffusion.unet.final_conv.1"):
            shape[0] = sizes["action"]
    return found


def tensor(name: str, shape: list[int], seed: str = "") -> np.ndarray:
    """Return a tensor that is drawn by its name, sized so that signals neither die nor blow up."""
    rng, size = _rng(seed + name), tuple(shape)
    if name.endswith("num_batches_tracked"):
        return np.zeros(size, np.int64)
    if name.endswith("pos_grid"):
        y, x = np.meshgrid(np.linspace(-1, 1, 2), np.linspace(-1, 1, 2), indexing="ij")
        return np.stack([x.ravel(), y.ravel()], -1).astype(np.float32)
    if name.endswith("running_var"):
        return (0.5 + rng.random(size)).astype(np.float32)
    if len(size) == 1:
        return ((1.0 if name.endswith("weight") else 0.0) + 0.2 * rng.standard_normal(size)).astype(np.float32)
    return (rng.standard_normal(size) / np.sqrt(np.prod(size[1:]))).astype(np.float32)


def statistics(sizes: Mapping[str, int] = SIZES) -> dict[str, dict[str, np.ndarray]]:
    """Return the statistics of every feature by name."""
    stats = {}
    for name, shape in {CAMERA: (3, 1, 1), **{name: (size,) for name, size in sizes.items()}}.items():
        low = -_rng(name + "low").random(shape)
        high = low + 0.5 + _rng(name + "high").random(shape)
        found = {"min": low, "max": high, "mean": (low + high) / 2, "std": (high - low) / 4, "q01": low, "q99": high}
        stats[name] = {k: v.astype(np.float32) for k, v in found.items()}
    return stats


def config(kind: str, *, camera: bool = True, sizes: Mapping[str, int] = SIZES, **changes: Any) -> dict[str, Any]:
    """Return `config.json` of a policy."""
    inputs: dict[str, Any] = {STATE: {"type": "STATE", "shape": [sizes[STATE]]}}
    if camera:
        inputs[CAMERA] = {"type": "VISUAL", "shape": list(PICTURES[kind])}
    inputs[ENV] = {"type": "ENV", "shape": [sizes[ENV]]}
    return {
        "type": kind, "input_features": inputs,
        "output_features": {"action": {"type": "ACTION", "shape": [sizes["action"]]}},
        "normalization_mapping": MODES[kind], "device": "cpu", "pretrained_backbone_weights": None,
        **SETTINGS[kind], **changes,
    }  # fmt: skip


def write(
    path: Path, kind: str, *, old: bool = False, camera: bool = True, sizes: Mapping[str, int] = SIZES,
    renamed: Mapping[str, str] | None = None, seed: str = "", **changes: Any,
) -> Path:  # fmt: skip
    """Write a checkpoint folder.

    Args:
        path: The folder to make.
        kind: `diffusion` or `act`.
        old: Keep the statistics in the weights, as LeRobot did before 0.4.
        camera: Whether it reads pictures.
        sizes: Of the features that are vectors.
        renamed: What the robot calls a feature -> the feature.
        seed: Of the weights.
        changes: Settings of `config.json`.
    """
    path.mkdir(parents=True)
    weights = {name: tensor(name, shape, seed) for name, shape in shapes(kind, camera=camera, sizes=sizes).items()}
    stats = statistics(sizes)
    if not camera:
        del stats[CAMERA]
    if old:
        for name, found in stats.items():
            sides = ("unnormalize_outputs", "normalize_targets") if name == "action" else ("normalize_inputs",)
            kept = ("min", "max") if MODES[kind].get("STATE") == "MIN_MAX" and name != CAMERA else ("mean", "std")
            weights |= {f"{s}.buffer_{name.replace('.', '_')}.{k}": found[k] for s in sides for k in kept}
    settings = config(kind, camera=camera, sizes=sizes, **changes)
    if not old:
        _write_processors(path, settings, stats, renamed or {})
    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(settings))
    return path


def _write_processors(
    path: Path, settings: Mapping[str, Any], stats: Mapping[str, Mapping[str, np.ndarray]], renamed: Mapping[str, str]
) -> None:
    flat = {f"{name}.{k}": np.ascontiguousarray(v) for name, found in stats.items() for k, v in found.items()}
    features = settings["input_features"] | settings["output_features"]
    before, after = "policy_preprocessor", "policy_postprocessor"
    files = {before: f"{before}_step_3_normalizer_processor.safetensors",
             after: f"{after}_step_0_unnormalizer_processor.safetensors"}  # fmt: skip

    def normaliser(name: str, pipeline: str) -> dict[str, Any]:
        own = {"eps": 1e-8, "features": features, "norm_map": settings["normalization_mapping"]}
        return {"registry_name": name, "config": own, "state_file": files[pipeline]}

    device = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}
    steps = {
        before: [
            {"registry_name": "rename_observations_processor", "config": {"rename_map": dict(renamed)}},
            {"registry_name": "to_batch_processor", "config": {}}, device,
            normaliser("normalizer_processor", before),
        ],
        after: [normaliser("unnormalizer_processor", after), device],
    }  # fmt: skip
    for name, pipeline in steps.items():
        save_file(flat, path / files[name])
        (path / f"{name}.json").write_text(json.dumps({"name": name, "steps": pipeline}))


def observations(kind: str, batch: int = 2) -> dict[str, np.ndarray]:
    """Return observations as a robot gives them, {name: [B, O, ...]}."""
    n_obs, (channels, height, width) = SETTINGS[kind]["n_obs_steps"], PICTURES[kind]
    rng = np.random.default_rng(5)
    return {
        STATE: rng.standard_normal((batch, n_obs, 5), dtype=np.float32),
        CAMERA: rng.integers(0, 256, (batch, n_obs, height, width, channels), dtype=np.uint8),
        ENV: rng.standard_normal((batch, n_obs, 3), dtype=np.float32),
    }


def noise(kind: str, batch: int = 2) -> np.ndarray:
    """Return the noise that sampling starts from, [B, H, A]."""
    horizon = SETTINGS[kind].get("horizon", SETTINGS[kind].get("chunk_size"))
    return np.random.default_rng(6).standard_normal((batch, horizon, 4), dtype=np.float32)
