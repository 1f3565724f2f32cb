"""LeRobot's ACTPolicy as a one-step `RegressionModel`: transformer over camera and state tokens, chunk queries.

Source: LeRobot's implementation of Zhao et al. 2023 (arXiv 2304.13705). At inference its latent variable is zero, so
the variational encoder is left out here; training goes on with the absolute error alone.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policies.encoders import Encoder, Stats
from policies.lerobot_files import Feature
from policies.lerobot_inputs import FrozenNorm, InputNormalizer, Picture, action_affine
from policies.normalize import AffineNormalizer
from policies.regression import RegressionModel
from policies.vision import resnet18
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec

_FIXED: Mapping[str, tuple[Any, ...]] = {
    "vision_backbone": ("resnet18",), "replace_final_stride_with_dilation": (False, 0), "n_obs_steps": (1,),
    "feedforward_activation": ("relu", "gelu"),
}  # fmt: skip
_STRIDE, _FEATURES = 32, 512


def _activation(config: Mapping[str, Any]) -> nn.Module:
    return nn.ReLU() if config.get("feedforward_activation", "relu") == "relu" else nn.GELU()


class _Layer(nn.Module):
    """One transformer layer, with cross-attention in the decoder; LeRobot's names."""

    def __init__(self, config: Mapping[str, Any], *, crosses: bool) -> None:
        super().__init__()
        width, heads, drop = int(config["dim_model"]), int(config["n_heads"]), float(config.get("dropout", 0.0))
        self.pre_norm, self.crosses = bool(config["pre_norm"]), crosses
        self.self_attn = nn.MultiheadAttention(width, heads, dropout=drop, batch_first=True)
        if crosses:
            self.multihead_attn = nn.MultiheadAttention(width, heads, dropout=drop, batch_first=True)
            self.norm3 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, int(config["dim_feedforward"]))
        self.linear2 = nn.Linear(int(config["dim_feedforward"]), width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop, self.act = nn.Dropout(drop), _activation(config)

    def forward(
        self, x: Tensor, position: Tensor, memory: Tensor | None = None, memory_position: Tensor | None = None
    ) -> Tensor:
        def attend(y: Tensor) -> Tensor:
            q = y + position
            return self.self_attn(q, q, y, need_weights=False)[0]

        def cross(y: Tensor) -> Tensor:
            assert memory is not None
            assert memory_position is not None
            return self.multihead_attn(y + position, memory + memory_position, memory, need_weights=False)[0]

        def feed(y: Tensor) -> Tensor:
            return self.linear2(self.drop(self.act(self.linear1(y))))

        parts = [(attend, self.norm1), (cross, self.norm2), (feed, self.norm3)] if self.crosses else [
            (attend, self.norm1), (feed, self.norm2)]  # fmt: skip
        for part, norm in parts:
            x = x + self.drop(part(norm(x))) if self.pre_norm else norm(x + self.drop(part(x)))
        return x


class _Stack(nn.Module):
    """Layers one after another; a norm at the end if there is one."""

    def __init__(self, config: Mapping[str, Any], n_layers: int, *, crosses: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config, crosses=crosses) for _ in range(n_layers))
        self.norm = nn.LayerNorm(int(config["dim_model"])) if crosses or config["pre_norm"] else nn.Identity()

    def forward(self, x: Tensor, position: Tensor, *memory: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, position, *memory)
        return self.norm(x)


class ActInputs(Encoder):
    """State, environment and camera tokens, each seeing all others; the condition is those tokens, joined.

    Args:
        features: The policy's inputs.
        names: Observations that make up each feature, joined.
        config: The policy's configuration.
    """

    positions: Tensor

    def __init__(
        self, features: Sequence[Feature], names: Mapping[str, Sequence[str]], config: Mapping[str, Any]
    ) -> None:
        width = int(config["dim_model"])
        vectors = [f for kind in ("STATE", "ENV") for f in features if f.kind == kind]
        cameras = [f for f in features if f.kind == "VISUAL"]
        grids = [(-(-f.shape[1] // _STRIDE), -(-f.shape[2] // _STRIDE)) for f in cameras]
        self_tokens = 1 + len(vectors) + sum(h * w for h, w in grids)
        super().__init__(1, self_tokens * width)
        self.names = {f.name: tuple(names[f.name]) for f in features}
        self.vectors, self.cameras = [f.name for f in vectors], [f.name for f in cameras]
        self.latent = nn.Parameter(torch.zeros(width))  # what a latent of zero is projected to
        self.normalizers = nn.ModuleList(InputNormalizer(f) for f in vectors)
        self.projections = nn.ModuleList(nn.Linear(f.shape[0], width) for f in vectors)
        self.pictures = nn.ModuleList(Picture(f, resize=None, crop=None) for f in cameras)
        if cameras:
            self.backbone = resnet18(cameras[0].shape[0], norm=FrozenNorm)
            self.image_projection = nn.Conv2d(_FEATURES, width, 1)
        self.stack = _Stack(config, int(config["n_encoder_layers"]), crosses=False)
        self.token_positions = nn.Parameter(torch.zeros(1 + len(vectors), width))
        fixed = [_grid_positions(*grid, width) for grid in grids]
        self.register_buffer("positions", torch.cat([torch.zeros(0, width), *fixed]), persistent=False)

    def all_positions(self) -> Float[Tensor, "S D"]:
        """Return the position of every token."""
        return torch.cat([self.token_positions, self.positions])

    def steps(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B 1 F"]:
        """Return the tokens, joined."""
        tokens = []
        for name, normalizer, project in zip(self.vectors, self.normalizers, self.projections, strict=True):
            joined = torch.cat([obs[part][:, -1].float().flatten(1) for part in self.names[name]], dim=-1)
            tokens.append(project(normalizer(joined))[:, None])
        for name, picture in zip(self.cameras, self.pictures, strict=True):
            features = self.image_projection(self.backbone(picture(obs[self.names[name][0]][:, -1])))
            tokens.append(features.flatten(2).transpose(1, 2))  # [B, h w, D]
        rest = torch.cat(tokens, dim=1)
        latent = torch.zeros_like(rest[:, :1]) + self.latent
        return self.stack(torch.cat([latent, rest], dim=1), self.all_positions()).flatten(1)[:, None]


class ActDecoder(nn.Module):
    """Chunk queries that look at the tokens; its noisy input and its time are not used.

    Args:
        config: The policy's configuration.
        action_dim: A.
        horizon: H.
        cond_dim: Width of the joined tokens.
    """

    def __init__(self, config: Mapping[str, Any], *, action_dim: int, horizon: int, cond_dim: int) -> None:
        super().__init__()
        self.width = int(config["dim_model"])
        self.stack = _Stack(config, int(config["n_decoder_layers"]), crosses=True)
        self.queries = nn.Parameter(torch.zeros(horizon, self.width))
        self.memory_positions = nn.Parameter(torch.zeros(cond_dim // self.width, self.width))
        self.action_head = nn.Linear(self.width, action_dim)

    def forward(
        self, x: Float[Tensor, "B H A"], t: Float[Tensor, "B"], cond: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B H A"]:
        """Return the normalised chunk."""
        memory = cond.unflatten(1, (-1, self.width))
        start = torch.zeros_like(x[..., :1]) + torch.zeros_like(self.queries)  # [B, H, D]
        return self.action_head(self.stack(start, self.queries, memory, self.memory_positions))


def _grid_positions(height: int, width: int, dim: int) -> Float[Tensor, "S D"]:
    """Return the sinusoidal positions of a feature map's cells, row by row (DETR's, arXiv 2005.12872, normalised)."""
    half = dim // 2
    rate = 10000.0 ** (2 * (torch.arange(half) // 2) / half)

    def wave(n: int) -> Tensor:
        angle = (torch.arange(1, n + 1) / (n + 1e-6) * 2 * math.pi)[:, None] / rate  # [n, D/2]
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=-1).flatten(1)

    rows, columns = wave(height)[:, None].expand(-1, width, -1), wave(width)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def build_act(
    config: Mapping[str, Any],
    inputs: Sequence[Feature],
    action: Feature,
    *,
    names: Mapping[str, Sequence[str]],
    spec: RobotSpec,
    stats: Stats,
) -> RegressionModel:
    """Return the model, its weights not loaded; arguments as of `policies.lerobot_diffusion.build_diffusion`.

    Raises:
        ConfigError: A setting that is not known here.
    """
    for key, known in _FIXED.items():
        if config.get(key, known[0]) not in known:
            raise ConfigError(f"`{key}` of the policy must be one of {known}, got {config[key]!r}")
    model = RegressionModel(
        spec, stats, encoder=partial(_inputs, inputs, names, config), denoiser=partial(ActDecoder, config), n_obs=1,
        horizon=int(config["chunk_size"]),
    )  # fmt: skip
    model.normalizer = AffineNormalizer(action_affine(action))
    return model


def _inputs(
    features: Sequence[Feature], names: Mapping[str, Sequence[str]], config: Mapping[str, Any],
    spec: RobotSpec, stats: Stats, *, n_obs: int,
) -> ActInputs:  # fmt: skip
    return ActInputs(features, names, config)


_PLACES = {
    "encoder.": "encoder.stack.",
    "decoder.": "denoiser.stack.",
    "encoder_img_feat_input_proj.": "encoder.image_projection.",
    "action_head.": "denoiser.action_head.",
}


def act_weights(weights: Mapping[str, Tensor], model: RegressionModel) -> dict[str, Tensor]:
    """Return LeRobot's tensors under the model's names; the variational encoder is left out.

    Raises:
        KeyError: A tensor is missing.
    """
    given = {name.removeprefix("model."): value for name, value in weights.items()}
    renamed: dict[str, Tensor] = {}
    for name, value in given.items():
        for old, new in _PLACES.items():
            if name.startswith(old):
                renamed[new + name.removeprefix(old)] = value
        if name.startswith("backbone.") and not name.endswith("num_batches_tracked"):
            renamed["encoder.backbone." + _numbered(name.removeprefix("backbone."))] = value
    projections = [f"encoder_{kind}_input_proj" for kind in ("robot_state", "env_state")]
    for i, name in enumerate(p for p in projections if f"{p}.weight" in given):
        renamed |= {f"encoder.projections.{i}.{part}": given[f"{name}.{part}"] for part in ("weight", "bias")}
    renamed["encoder.latent"] = given["encoder_latent_input_proj.bias"]
    renamed["encoder.token_positions"] = given["encoder_1d_feature_pos_embed.weight"]
    renamed["denoiser.queries"] = given["decoder_pos_embed.weight"]
    encoder = model.encoder
    assert isinstance(encoder, ActInputs)
    renamed["denoiser.memory_positions"] = torch.cat([renamed["encoder.token_positions"], encoder.positions])
    return renamed


def _numbered(name: str) -> str:
    """Return torchvision's name of a trunk's tensor as that of `policies.vision.resnet18`, whose parts are numbered."""
    first, rest = name.split(".", 1)
    number = {"conv1": 0, "bn1": 1}.get(first)
    return f"{int(first[-1]) + 3 if number is None else number}.{rest}"
