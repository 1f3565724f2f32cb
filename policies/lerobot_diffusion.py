"""LeRobot's DiffusionPolicy as a `DiffusionModel`: its encoder, its settings, its weights by name.

Source: LeRobot's implementation of Chi et al. 2023 (arXiv 2303.04137). Its vision trunk is a ResNet-18 with batch or
group norm, then spatial softmax; a batch norm's statistics are fixed here, also when training goes on.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policies.diffusion import DiffusionModel
from policies.encoders import Encoder, Stats
from policies.lerobot_files import Feature
from policies.lerobot_inputs import FrozenNorm, InputNormalizer, Picture, action_affine
from policies.normalize import AffineNormalizer
from policies.unet1d import ConditionalUnet1d
from policies.vision import RgbEncoder, resnet18
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec

_FIXED: Mapping[str, tuple[Any, ...]] = {"vision_backbone": ("resnet18",), "beta_start": (1e-4,), "beta_end": (0.02,)}
_HEAD_GROUPS = 8
"""Groups of the group norm in LeRobot's last block, whatever `n_groups` is."""


class DiffusionInputs(Encoder):
    """State, cameras and environment state of each step, side by side in LeRobot's order.

    Args:
        features: The policy's inputs.
        names: Observations that make up each feature, joined.
        config: The policy's configuration.
        n_obs: O, observation steps.
    """

    def __init__(
        self, features: Sequence[Feature], names: Mapping[str, Sequence[str]], config: Mapping[str, Any], *, n_obs: int
    ) -> None:
        kinds = {kind: [f for f in features if f.kind == kind] for kind in ("STATE", "VISUAL", "ENV")}
        points = int(config["spatial_softmax_num_keypoints"])
        vectors = kinds["STATE"] + kinds["ENV"]
        super().__init__(n_obs, sum(f.shape[0] for f in vectors) + 2 * points * len(kinds["VISUAL"]))
        self.names = {f.name: tuple(names[f.name]) for f in features}
        self.state, self.env = ([f.name for f in kinds[kind]] for kind in ("STATE", "ENV"))
        self.cameras = [f.name for f in kinds["VISUAL"]]
        self.normalizers = nn.ModuleDict({_key(f.name): InputNormalizer(f) for f in vectors})
        crop, resize = config.get("crop_shape"), config.get("resize_shape")
        self.pictures = nn.ModuleList(Picture(f, resize=resize, crop=crop) for f in kinds["VISUAL"])
        trunk = resnet18 if config.get("use_group_norm", True) else partial(resnet18, norm=FrozenNorm)
        separate = bool(config.get("use_separate_rgb_encoder_per_camera", False))
        self.nets = nn.ModuleList(
            RgbEncoder(
                trunk(f.shape[0]), 64, cast(Picture, self.pictures[i]).size, pool="spatial_softmax",
                n_keypoints=points, dim=2 * points,
            )
            for i, f in enumerate(kinds["VISUAL"][: None if separate else 1])
        )  # fmt: skip

    def steps(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B O F"]:
        """Return the features of each step."""
        parts = [self._vector(name, obs) for name in self.state]
        for i, name in enumerate(self.cameras):
            picture = obs[self.names[name][0]]
            features = self.nets[min(i, len(self.nets) - 1)](self.pictures[i](picture.flatten(0, 1)))
            parts.append(features.unflatten(0, (-1, self.n_obs)))
        return torch.cat([*parts, *(self._vector(name, obs) for name in self.env)], dim=-1)

    def _vector(self, name: str, obs: Mapping[str, Tensor]) -> Float[Tensor, "B O D"]:
        joined = torch.cat([obs[part].float().flatten(2) for part in self.names[name]], dim=-1)
        return self.normalizers[_key(name)](joined)


def _key(name: str) -> str:
    return name.replace(".", "_")  # a module's name has no dots


def build_diffusion(
    config: Mapping[str, Any],
    inputs: Sequence[Feature],
    action: Feature,
    *,
    names: Mapping[str, Sequence[str]],
    spec: RobotSpec,
    stats: Stats,
    n_steps: int | None = None,
    sampler: str | None = None,
) -> DiffusionModel:
    """Return the model, its weights not loaded.

    Args:
        config: The policy's configuration.
        inputs: Its inputs.
        action: Its action.
        names: Observations that make up each input, joined.
        spec: The robot.
        stats: Statistics of `action`.
        n_steps: Steps when sampling; `None` is the configuration's.
        sampler: How to sample; `None` is the configuration's: DDPM or DDIM.

    Raises:
        ConfigError: A setting that is not known here.
    """
    for key, known in _FIXED.items():
        if config.get(key, known[0]) not in known:
            raise ConfigError(f"`{key}` of the policy must be one of {known}, got {config[key]!r}")
    n_obs, n_train = int(config["n_obs_steps"]), int(config["num_train_timesteps"])
    scheduler = {"DDPM": "ancestral", "DDIM": "ddim_raw_noise"}[config["noise_scheduler_type"]]
    steps = n_steps if n_steps is not None else config.get("num_inference_steps")
    model = DiffusionModel(
        spec, stats, prediction=config["prediction_type"], schedule=config["beta_schedule"], n_train=n_train,
        n_steps=n_train if steps is None else int(steps), clip=None,
        sampler=scheduler if sampler is None else sampler,
        encoder=partial(_inputs, inputs, names, config), denoiser=partial(_unet, config),
        n_obs=n_obs, horizon=int(config["horizon"]), action_offset=1 - n_obs,
        mask_padding=bool(config.get("do_mask_loss_for_padding", False)),
    )  # fmt: skip
    model.normalizer = AffineNormalizer(action_affine(action))
    model.clip = _clip(config)  # whatever of the training data it cuts off: so it was trained
    return model


def _clip(config: Mapping[str, Any]) -> float | None:
    return float(config.get("clip_sample_range", 1.0)) if config.get("clip_sample", True) else None


def _inputs(
    features: Sequence[Feature], names: Mapping[str, Sequence[str]], config: Mapping[str, Any],
    spec: RobotSpec, stats: Stats, *, n_obs: int,
) -> DiffusionInputs:  # fmt: skip
    return DiffusionInputs(features, names, config, n_obs=n_obs)


def _unet(config: Mapping[str, Any], *, action_dim: int, horizon: int, cond_dim: int) -> ConditionalUnet1d:
    unet = ConditionalUnet1d(
        action_dim, horizon, cond_dim, down_dims=config["down_dims"], kernel_size=int(config["kernel_size"]),
        n_groups=int(config["n_groups"]), time_dim=int(config["diffusion_step_embed_dim"]),
        film_scale=bool(config["use_film_scale_modulation"]),
    )  # fmt: skip
    for module in unet.final_conv.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = _HEAD_GROUPS
    return unet


def diffusion_weights(weights: Mapping[str, Tensor], model: DiffusionModel) -> dict[str, Tensor]:
    """Return LeRobot's tensors under the model's names; what only training needs is left out."""
    shared = len(cast(DiffusionInputs, model.encoder).nets) == 1
    renamed = {}
    for name, value in weights.items():
        short = name.removeprefix("diffusion.")
        if short.startswith("unet."):
            renamed[f"denoiser.{short.removeprefix('unet.')}"] = value
        elif short.startswith("rgb_encoder.") and not short.endswith("num_batches_tracked"):
            rest = short.removeprefix("rgb_encoder.")
            place = f"0.{rest}" if shared and not rest[0].isdigit() else rest
            renamed[f"encoder.nets.{place}"] = value
    return renamed
