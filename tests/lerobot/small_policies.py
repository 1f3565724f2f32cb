"""Small random policies of LeRobot, saved as LeRobot saves them."""

from pathlib import Path
from typing import Any

import torch
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.factory import make_pre_post_processors

STATE, ENV, ACTION = 5, 3, 4


def features(cameras: int, size: tuple[int, int], *, state: bool, env: bool) -> dict[str, PolicyFeature]:
    found = {"observation.state": PolicyFeature(FeatureType.STATE, (STATE,))} if state else {}
    for i in range(cameras):
        found[f"observation.images.cam{i}"] = PolicyFeature(FeatureType.VISUAL, (3, *size))
    return found | ({"observation.environment_state": PolicyFeature(FeatureType.ENV, (ENV,))} if env else {})


def statistics(inputs: dict[str, PolicyFeature], seed: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    stats = {}
    for name, feature in {**inputs, "action": PolicyFeature(FeatureType.ACTION, (ACTION,))}.items():
        shape = (3, 1, 1) if feature.type is FeatureType.VISUAL else feature.shape
        low = torch.rand(shape, generator=generator) - 1.0
        high = low + 0.5 + torch.rand(shape, generator=generator)
        stats[name] = {"min": low, "max": high, "mean": (low + high) / 2, "std": (high - low) / 4}
        stats[name] |= {"q01": low, "q99": high, "count": torch.tensor([100.0])}
    return stats


def save(kind: str, path: Path, **settings: Any) -> tuple[Any, Any, Any]:
    """Save a policy of random weights and return it with its processors."""
    inputs = settings.pop("inputs")
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (ACTION,))}
    common = {
        "input_features": inputs,
        "output_features": outputs,
        "device": "cpu",
        "pretrained_backbone_weights": None,
    }
    torch.manual_seed(1)
    if kind == "act":
        small = {"dim_model": 32, "n_heads": 4, "dim_feedforward": 48, "n_encoder_layers": 2, "n_decoder_layers": 2}
        policy: Any = ACTPolicy(ACTConfig(**common, **{**small, **settings}))
    else:
        policy = DiffusionPolicy(DiffusionConfig(**common, **{"down_dims": (16, 32), **settings}))
    _shake(policy)
    before, after = make_pre_post_processors(policy.config, dataset_stats=statistics(inputs))
    for part in (policy, before, after):
        part.save_pretrained(path)
    return policy.eval(), before, after


def _shake(policy: Any) -> None:
    """Give every tensor that starts out neutral a value, so that one which is forgotten shows."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, tensor in policy.state_dict().items():
            if not tensor.is_floating_point() or "pos_grid" in name or "pos_enc" in name:
                continue
            noise = torch.rand(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise)
            elif tensor.ndim == 1:
                tensor.add_(0.2 * (noise - 0.5))


IDENTITY = {
    "VISUAL": NormalizationMode.IDENTITY,
    "STATE": NormalizationMode.MEAN_STD,
    "ACTION": NormalizationMode.MIN_MAX,
}
