"""Reconstruction heads: what must be found again in an encoder's features. Used in training, never exported.

The shapes of the decoders are RL-100's (arXiv 2510.14830, released code): state F-128-q, cloud F-512-1024-3 P.
"""

import abc
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from policies.encoders import Encoder, StateEncoder, Stats, lookup
from policies.normalize import AffineNormalizer
from policies.pointcloud import Corners, cloud_affine, layers_with_norm
from robot_rl.data.normalizer import NormMode
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec

_STAGES = 3  # of the picture decoder, each doubling the size


class Reconstruction(nn.Module, abc.ABC):
    """Abstract head: called with features [B, O, F] and the observations, it returns the mean error."""

    @abc.abstractmethod
    def forward(self, features: Float[Tensor, "B O F"], obs: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the error of what the features say against what was observed, normalised on both sides."""


class StateReconstruction(Reconstruction):
    """Mean squared error of low-dimensional observations, normalised as `StateEncoder` does.

    Args:
        spec: The robot.
        stats: Statistics by observation name.
        n_obs: O, observation steps.
        in_dim: F, width of the features.
        names: Observations.
        angles: Elements that are angles, by name.
        norm: How the others are normalised.
        width: Of the hidden layer.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        n_obs: int,
        in_dim: int,
        names: Sequence[str],
        angles: Mapping[str, Sequence[int]] | None = None,
        norm: NormMode = "min_max",
        width: int = 128,
    ) -> None:
        super().__init__()
        self.target: Encoder = StateEncoder(spec, stats, n_obs=n_obs, names=names, angles=angles, norm=norm)
        self.decoder = nn.Sequential(nn.Linear(in_dim, width), nn.ReLU(), nn.Linear(width, self.target.step_dim))

    def forward(self, features: Float[Tensor, "B O F"], obs: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the mean squared error."""
        return functional.mse_loss(self.decoder(features).float(), self.target.steps(obs))


def chamfer(a: Float[Tensor, "B P 3"], b: Float[Tensor, "B Q 3"]) -> Float[Tensor, ""]:
    """Return the Chamfer distance: mean squared distance to the nearest point of the other cloud, both ways summed.

    The nearest points are found without gradient and their distances with it, which is the same gradient and keeps no
    [B, P, Q] matrix.
    """
    with torch.no_grad():
        gaps = torch.cdist(a.float(), b.float())  # [B, P, Q]
        nearest_b, nearest_a = gaps.argmin(dim=2), gaps.argmin(dim=1)
    there = torch.take_along_dim(b, nearest_b[..., None], dim=1)
    back = torch.take_along_dim(a, nearest_a[..., None], dim=1)
    return (a - there).square().sum(dim=-1).mean() + (b - back).square().sum(dim=-1).mean()


class CloudReconstruction(Reconstruction):
    """Chamfer distance of a decoded cloud to the observed one, positions only, in units of half the box.

    The decoder gives fewer points than were observed (RL-100: as many), since the distance grows with their product.

    Args:
        spec: The robot.
        stats: Statistics of the cloud; read only without `box`.
        n_obs: O, observation steps.
        in_dim: F, width of the features.
        name: Observation that holds the cloud.
        box: Corners that are mapped to [-1, 1]; the data's own extent when `None`.
        n_points: Points decoded.
        channels: Widths of the hidden layers.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        n_obs: int,
        in_dim: int,
        name: str = "point_cloud",
        box: Corners | None = None,
        n_points: int = 128,
        channels: Sequence[int] = (512, 1024),
    ) -> None:
        super().__init__()
        self.name, self.n_points = name, n_points
        array = lookup(spec, name, "CloudReconstruction")
        self.normalizer = AffineNormalizer(cloud_affine(array, stats, box))
        widths = [in_dim, *channels]
        self.decoder = nn.Sequential(layers_with_norm(widths), nn.Linear(widths[-1], 3 * n_points))

    def forward(self, features: Float[Tensor, "B O F"], obs: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the Chamfer distance."""
        seen = self.normalizer(obs[self.name].float())[..., :3].flatten(0, 1)  # [B O, P, 3]
        decoded = self.decoder(features).float().unflatten(-1, (self.n_points, 3)).flatten(0, 1)
        return chamfer(decoded, seen)


class ImageReconstruction(Reconstruction):
    """Mean squared error of a small picture in [-1, 1]: the whole one, averaged down, whatever crop the encoder saw.

    Args:
        spec: The robot.
        stats: Not used: a picture's range is known.
        n_obs: O, observation steps.
        in_dim: F, width of the features.
        name: Observation that holds the picture.
        size: Height and width of the small picture, multiples of 8.
        channels: Of the decoder's first map.

    Raises:
        ConfigError: The observation is no picture, or a size that is not a multiple of 8 or larger than the picture.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        n_obs: int,
        in_dim: int,
        name: str,
        size: Sequence[int] = (32, 32),
        channels: int = 64,
    ) -> None:
        super().__init__()
        array = lookup(spec, name, "ImageReconstruction")
        if not array.is_image:
            raise ConfigError(f"`{name}` must be a picture, uint8 (height, width, 1 or 3), got {array.describe()}")
        self.name, self.size = name, (int(size[0]), int(size[1]))
        if any(
            side < 8 or side % 2**_STAGES or side > full for side, full in zip(self.size, array.shape, strict=False)
        ):
            raise ConfigError(f"`size` must be multiples of 8 within the picture's {array.shape[:2]}, got {self.size}")
        rows, columns = (side // 2**_STAGES for side in self.size)
        layers: list[nn.Module] = [
            nn.Linear(in_dim, channels * rows * columns),
            nn.Unflatten(1, (channels, rows, columns)),
        ]
        for _ in range(_STAGES):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
        self.decoder = nn.Sequential(*layers, nn.Conv2d(channels, array.shape[2], 1))

    def forward(self, features: Float[Tensor, "B O F"], obs: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the mean squared error."""
        picture = obs[self.name].flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1.0  # [B O, C, H, W]
        small = functional.interpolate(picture, size=self.size, mode="area")
        return functional.mse_loss(self.decoder(features.flatten(0, 1)).float(), small)
