"""A small convolutional encoder, for tasks where a ResNet would be more than is needed: success classifiers, tests."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policies.encoders import Encoder, Stats, lookup
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec

_KERNEL, _STRIDE = 3, 2


class SmallImageEncoder(Encoder):
    """Cameras to features: uint8 [B, O, H, W, C] in, strided convolutions with group norm, average pooling, linear.

    Args:
        spec: The robot.
        stats: Not used: a picture's range is known.
        n_obs: O, observation steps.
        names: Which cameras, in this order; all of the robot's when `None`.
        channels: Of the convolutions, each of which halves the picture; multiples of 8.
        feature_dim: Features per camera and step.

    Raises:
        ConfigError: No camera, an observation that is no picture, or channels that are no multiples of 8.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        n_obs: int,
        names: Sequence[str] | None = None,
        channels: Sequence[int] = (16, 32, 64, 64),
        feature_dim: int = 64,
    ) -> None:
        if names is None:
            names = [name for name, array in spec.obs.items() if array.is_image]
        arrays = [lookup(spec, name, "SmallImageEncoder") for name in names]
        if not arrays or not all(array.is_image for array in arrays):
            raise ConfigError(f"SmallImageEncoder needs cameras, got {list(names)}; there is {sorted(spec.obs)}")
        if not channels or any(c < 8 or c % 8 for c in channels):
            raise ConfigError(f"`channels` must be multiples of 8, got {list(channels)}")
        super().__init__(n_obs, feature_dim * len(names))
        self.names = tuple(names)
        self.nets = nn.ModuleList(_network(array.shape[2], channels, feature_dim) for array in arrays)

    def steps(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B O F"]:
        """Return the features of every camera, side by side."""
        features = []
        for name, net in zip(self.names, self.nets, strict=True):
            x = obs[name]
            b, o = x.shape[:2]
            flat = x.flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1.0
            features.append(net(flat).reshape(b, o, -1))
        return torch.cat(features, dim=-1)


def _network(n_in: int, channels: Sequence[int], n_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in channels:
        layers += [nn.Conv2d(n_in, width, _KERNEL, _STRIDE, 1), nn.GroupNorm(width // 8, width), nn.ReLU()]
        n_in = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, n_out))
