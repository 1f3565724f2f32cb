"""Pictures to features: resize and crop, a ResNet-18 with group norm, spatial softmax or average pooling.

Chi et al. 2023 (arXiv 2303.04137): trained from scratch, batch norm replaced by group norm (so that averaged weights
are sound), random crop in training and centre crop otherwise. Everything from the uint8 picture on is in the graph.
A frozen pretrained trunk can stand in for the one trained from scratch: `policies.pretrained`.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from policies.encoders import Encoder, Stats, lookup
from policies.pretrained import FrozenResNet18
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec

Size = tuple[int, int]
"""Height and width in pixels."""
Norm = Callable[[int], nn.Module]
"""Makes the norm of a feature map with so many channels."""
_STRIDE = 32  # of a ResNet-18's last feature map


def _norm(channels: int) -> nn.GroupNorm:
    """Return a group norm with channels / 16 groups."""
    return nn.GroupNorm(max(1, channels // 16), channels)


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, with torchvision's parameter names."""

    def __init__(self, c_in: int, c_out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = norm(c_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), norm(c_out))

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(h)) + self.downsample(x))


def resnet18(channels: int, width: int = 64, norm: Norm = _norm) -> nn.Sequential:
    """Return a ResNet-18 (He et al. 2016), by default with group norm, without pooling and classifier, stride 32.

    Its children are numbered as in LeRobot's `backbone`; the last feature map has 8 * width channels.
    """
    stages, c_in = [], width
    for i in range(4):
        c_out = width * 2**i
        first = _BasicBlock(c_in, c_out, 1 if i == 0 else 2, norm)
        stages.append(nn.Sequential(first, _BasicBlock(c_out, c_out, 1, norm)))
        c_in = c_out
    stem = (nn.Conv2d(channels, width, 7, 2, 3, bias=False), norm(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *stages)


class SpatialSoftmax(nn.Module):
    """The expected image position of each of K learned keypoints, in [-1, 1] (Levine et al. 2016, arXiv 1504.00702)."""

    pos_grid: Tensor

    def __init__(self, channels: int, size: Size, n_keypoints: int) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, n_keypoints, 1)
        y, x = torch.meshgrid(torch.linspace(-1, 1, size[0]), torch.linspace(-1, 1, size[1]), indexing="ij")
        self.register_buffer("pos_grid", torch.stack([x.flatten(), y.flatten()], dim=-1))  # [h w, 2]

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B K2"]:
        """Return x, y of each keypoint, one after another."""
        attention = self.nets(x).flatten(2).softmax(dim=-1)  # [B, K, h w]
        return (attention @ self.pos_grid).flatten(1)


class RgbEncoder(nn.Module):
    """Trunk, pooling and one linear layer, with LeRobot's parameter names `backbone`, `pool`, `out`."""

    def __init__(self, backbone: nn.Module, width: int, size: Size, *, pool: str, n_keypoints: int, dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool: nn.Module
        if pool == "spatial_softmax":
            grid = (-(-size[0] // _STRIDE), -(-size[1] // _STRIDE))
            if grid == (1, 1):
                raise ConfigError(
                    f"spatial softmax needs a picture larger than {_STRIDE} px to find positions in, got {size} after "
                    "resize and crop; use larger pictures or `pool: average`"
                )
            self.pool, pooled = SpatialSoftmax(8 * width, grid, n_keypoints), 2 * n_keypoints
        else:
            self.pool, pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 8 * width
        self.out = nn.Linear(pooled, dim)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B F"]:
        """Return the features of pictures in [-1, 1]."""
        return functional.relu(self.out(self.pool(self.backbone(x))))


class Crop(nn.Module):
    """Cuts a window out of each picture: anywhere in training, the middle in evaluation.

    All steps of a sample are cut alike, so that a crop never looks like motion. Draws from torch's global generator,
    which a trainer's checkpoint holds.
    """

    def __init__(self, size: Size, window: Size) -> None:
        super().__init__()
        if window[0] > size[0] or window[1] > size[1]:
            raise ConfigError(f"`crop` must fit into the (resized) picture of {size}, got {window}")
        self.size, self.window = size, window

    def forward(self, x: Float[Tensor, "B O C H W"]) -> Float[Tensor, "B O C h w"]:
        """Return the windows."""
        (h, w), free = self.window, (self.size[0] - self.window[0], self.size[1] - self.window[1])
        if not self.training:
            top, left = free[0] // 2, free[1] // 2
            return x[..., top : top + h, left : left + w]
        b = x.shape[0]
        rows = torch.randint(free[0] + 1, (b, 1), device=x.device) + torch.arange(h, device=x.device)  # [B, h]
        cols = torch.randint(free[1] + 1, (b, 1), device=x.device) + torch.arange(w, device=x.device)  # [B, w]
        batch = torch.arange(b, device=x.device)[:, None, None]
        picked = x.permute(0, 3, 4, 1, 2)[batch, rows[:, :, None], cols[:, None, :]]  # [B, h, w, O, C]
        return picked.permute(0, 3, 4, 1, 2)


class ImageEncoder(Encoder):
    """Cameras to features: uint8 [B, O, H, W, C] in, resize, crop, [-1, 1], ResNet-18, pooling, linear.

    Args:
        spec: The robot.
        stats: Not used: a picture's range is known.
        n_obs: O, observation steps.
        names: Which cameras, in this order; all of the robot's when `None`.
        resize: Height and width to scale to first, bilinear; `None` keeps the picture's.
        crop: Height and width of the window cut after that; `None` for none.
        pool: `spatial_softmax` (keypoints) or `average`.
        shared: One network for all cameras, which must then agree in channels and size.
        n_keypoints: Keypoints per camera of the spatial softmax.
        feature_dim: Features per camera and step.
        width: Channels of the first stage; 64 is a ResNet-18. Not read with `pretrained`, whose file has its own.
        pretrained: File of a torchvision ResNet-18, whose trunk is used frozen (`policies.pretrained`); pooling and
            linear layer are still trained. Pictures must then have three channels.

    Raises:
        ConfigError: No camera, an observation that is no picture, a crop that does not fit, cameras that differ but
            share a network, an unknown pooling, or a pretrained file that does not fit.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        n_obs: int,
        names: Sequence[str] | None = None,
        resize: Sequence[int] | None = None,
        crop: Sequence[int] | None = None,
        pool: str = "spatial_softmax",
        shared: bool = False,
        n_keypoints: int = 32,
        feature_dim: int = 64,
        width: int = 64,
        pretrained: str | None = None,
    ) -> None:
        if names is None:
            names = [name for name, array in spec.obs.items() if array.is_image]
        if pool not in ("spatial_softmax", "average"):
            raise ConfigError(f"`pool` must be spatial_softmax or average, got {pool!r}")
        shapes = [_picture_shape(spec, name) for name in names]
        if not shapes:
            raise ConfigError(f"ImageEncoder needs a camera; robot `{spec.name}` has {sorted(spec.obs)}")
        if shared and len({s[2] if resize else s for s in shapes}) > 1:
            raise ConfigError(f"cameras that share a network must agree in shape (or be resized), got {shapes}")
        super().__init__(n_obs, feature_dim * len(names))
        self.names = tuple(names)
        self.resize = None if resize is None else (int(resize[0]), int(resize[1]))
        crops: list[Crop] = []
        nets: list[RgbEncoder] = []
        for shape in shapes:
            size = shape[:2] if self.resize is None else self.resize
            window = size if crop is None else (int(crop[0]), int(crop[1]))
            crops.append(Crop(size, window))
            if not (shared and nets):
                trunk, channels = _trunk(shape[2], width, pretrained)
                nets.append(RgbEncoder(trunk, channels, window, pool=pool, n_keypoints=n_keypoints, dim=feature_dim))
        self.crops = nn.ModuleList(crops)
        self.nets = nn.ModuleList(nets)

    def steps(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B O F"]:
        """Return the features of every camera, side by side."""
        features = []
        for i, name in enumerate(self.names):
            x = self.crops[i](self._scale(obs[name]))
            net = self.nets[min(i, len(self.nets) - 1)]
            features.append(net(x.flatten(0, 1)).unflatten(0, (-1, self.n_obs)))
        return torch.cat(features, dim=-1)

    def _scale(self, picture: UInt8[Tensor, "B O H W C"]) -> Float[Tensor, "B O C h w"]:
        """Return channels first, in [-1, 1], resized."""
        x = picture.permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0
        if self.resize is None or self.resize == tuple(x.shape[-2:]):
            return x
        x = functional.interpolate(x.flatten(0, 1), size=self.resize, mode="bilinear", align_corners=False)
        return x.unflatten(0, (-1, self.n_obs))


def _trunk(channels: int, width: int, pretrained: str | None) -> tuple[nn.Module, int]:
    """Return a trunk for pictures in [-1, 1] and the channels of its first stage."""
    if pretrained is None:
        return resnet18(channels, width), width
    if channels != 3:
        raise ConfigError(f"a pretrained trunk needs pictures with 3 channels, got {channels}")
    trunk = FrozenResNet18(pretrained)
    return trunk, trunk.width


def _picture_shape(spec: RobotSpec, name: str) -> tuple[int, int, int]:
    array = lookup(spec, name, "ImageEncoder")
    if not array.is_image:
        raise ConfigError(f"`{name}` must be a picture, uint8 (height, width, 1 or 3), got {array.describe()}")
    height, width, channels = array.shape
    return height, width, channels
