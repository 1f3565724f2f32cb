"""Inputs of a LeRobot policy: normalised as LeRobot normalises them, its pictures resized and cropped as there.

LeRobot normalises a range that is zero by 1e-8 and a deviation plus 1e-8; so that the same input gives the same number,
the maps here subtract before they scale, where `policies.normalize` scales and then adds.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from policies.lerobot_files import Feature
from robot_rl.data.normalizer import Affine

_EPS = 1e-8


def _scales(feature: Feature) -> tuple[Tensor, Tensor, float]:
    """Return centre, scale and shift of (x - centre) * scale + shift, in double precision."""
    stats = {name: value.double() for name, value in feature.stats.items()}
    if feature.mode == "MEAN_STD":
        return stats["mean"], 1.0 / (stats["std"] + _EPS), 0.0
    if feature.mode == "IDENTITY":
        one = torch.ones(1, dtype=torch.float64)
        return torch.zeros_like(one), one, 0.0
    low, high = (stats[name] for name in (("min", "max") if feature.mode == "MIN_MAX" else ("q01", "q99")))
    return low, 2.0 / torch.where(high == low, _EPS, high - low), -1.0


def action_affine(feature: Feature) -> Affine:
    """Return the map of physical actions to normalised ones whose inverse is LeRobot's unnormaliser."""
    centre, scale, shift = _scales(feature)
    if feature.mode == "MEAN_STD":  # LeRobot's way back leaves out what its way there adds to the deviation
        scale = 1.0 / feature.stats["std"].double().clamp(min=_EPS)
    size = feature.shape[0]
    return Affine((scale * torch.ones(size)).numpy(), ((shift - centre * scale) * torch.ones(size)).numpy())


class InputNormalizer(nn.Module):
    """(x - centre) * scale + shift over the last axis, or over the channels of a picture.

    Args:
        feature: The feature.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, feature: Feature) -> None:
        super().__init__()
        centre, scale, self.shift = _scales(feature)
        shape = (-1, 1, 1) if feature.kind == "VISUAL" else (-1,)
        width = feature.shape[0]
        self.register_buffer("centre", (centre * torch.ones(width)).reshape(shape).float())
        self.register_buffer("scale", (scale * torch.ones(width)).reshape(shape).float())

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the normalised input."""
        return (x - self.centre) * self.scale + self.shift


class Picture(nn.Module):
    """A camera's pictures, uint8 HWC in, normalised, resized and cropped CHW out.

    Args:
        feature: The feature.
        resize: Height and width to scale to, bilinear with antialiasing (torchvision's); `None` keeps the picture's.
        crop: Height and width of the window cut out of the middle after that; `None` for none.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, feature: Feature, *, resize: Sequence[int] | None, crop: Sequence[int] | None) -> None:
        super().__init__()
        self.normalizer = InputNormalizer(feature)
        height, width = feature.shape[1:]
        self.resized = resize is not None
        if resize is not None:
            # Antialiased bilinear scaling is a matrix on each axis, which every ONNX runtime has.
            self.register_buffer("rows", _resampling(height, int(resize[0])), persistent=False)
            self.register_buffer("columns", _resampling(width, int(resize[1])), persistent=False)
            height, width = int(resize[0]), int(resize[1])
        window = (height, width) if crop is None else (int(crop[0]), int(crop[1]))
        # torchvision's CenterCrop rounds a half to the even number.
        self.top, self.left = round((height - window[0]) / 2.0), round((width - window[1]) / 2.0)
        self.size = window

    def forward(self, picture: UInt8[Tensor, "B H W C"]) -> Float[Tensor, "B C h w"]:
        """Return what the network sees."""
        x = self.normalizer(picture.permute(0, 3, 1, 2).float() / 255.0)
        if self.resized:
            x = self.rows @ x @ self.columns.transpose(0, 1)
        return x[..., self.top : self.top + self.size[0], self.left : self.left + self.size[1]]


def _resampling(before: int, after: int) -> Tensor:
    """Return the matrix [after, before] of antialiased bilinear scaling."""
    eye = torch.eye(before)[None, None]
    return functional.interpolate(eye, size=(after, before), mode="bilinear", antialias=True, align_corners=False)[0, 0]


class FrozenNorm(nn.Module):
    """Batch norm with fixed statistics, torchvision's names; fine-tuning leaves its statistics as they are.

    Args:
        channels: Channels.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Return the normalised feature map."""
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]
