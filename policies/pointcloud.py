"""Point clouds to features: the encoder of DP3 (Ze et al. 2024, arXiv 2403.03954, section III), a small PointNet.

Each point goes alone through the same layers and a maximum over points joins them, so neither the order of the points
nor repeated ones change anything.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from policies.encoders import Encoder, Stats, lookup
from policies.normalize import AffineNormalizer
from robot_rl.data.normalizer import Affine
from robot_rl.errors import ConfigError
from robot_rl.specs import ArraySpec, RobotSpec

Corners = Sequence[Sequence[float]]
"""Two corners of a box: low and high, x, y, z each [m]."""


def layers_with_norm(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layer, layer norm and ReLU for each pair of neighbouring widths."""
    pairs = itertools.pairwise(widths)
    return nn.Sequential(*(layer for a, b in pairs for layer in (nn.Linear(a, b), nn.LayerNorm(b), nn.ReLU())))


class PointCloudEncoder(Encoder):
    """One cloud [P, 3] or [P, 6] per step: per point 64-128-256 with layer norm, maximum, projection.

    The two augmentations act in training only and draw from torch's global generator, which a trainer's checkpoint
    holds. They are alike for all observation steps of a sample, so that they never look like motion.

    Args:
        spec: The robot; `name` is float32 [P, 3] metres, or [P, 6] with colours in [0, 1].
        stats: Statistics of the cloud; read only without `box`.
        n_obs: O, observation steps.
        name: Observation that holds the cloud.
        box: Corners that are mapped to [-1, 1]; the data's own extent along each axis when `None`.
        channels: Widths of the layers that each point passes.
        feature_dim: F, width of the projection.
        jitter_m: Standard deviation of a shift of each point [m]; 0 for none.
        dropout: Largest share of points left out; each sample draws its own share up to it (PointNet++, arXiv
            1706.02413, section 3.3). 0 for none.

    Raises:
        ConfigError: The observation is missing or no cloud, neither `box` nor statistics, or a setting out of range.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        n_obs: int,
        name: str = "point_cloud",
        box: Corners | None = None,
        channels: Sequence[int] = (64, 128, 256),
        feature_dim: int = 64,
        jitter_m: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        array = lookup(spec, name, "PointCloudEncoder")
        if len(array.shape) != 2 or array.shape[1] not in (3, 6) or not array.dtype.startswith("float"):
            raise ConfigError(f"`{name}` must be a point cloud, float (P, 3) or (P, 6), got {array.describe()}")
        if jitter_m < 0 or not 0 <= dropout < 1:
            raise ConfigError(f"need `jitter_m` >= 0 and `dropout` in [0, 1), got {jitter_m} and {dropout}")
        super().__init__(n_obs, feature_dim)
        self.name, self.jitter_m, self.dropout = name, jitter_m, dropout
        self.normalizer = AffineNormalizer(cloud_affine(array, stats, box))
        widths = [array.shape[1], *channels]
        self.points = layers_with_norm(widths)
        self.project = nn.Sequential(nn.Linear(widths[-1], feature_dim), nn.LayerNorm(feature_dim))

    def steps(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B O F"]:
        """Return the features of each step's cloud."""
        cloud = obs[self.name].float()
        if self.training:
            cloud = self._augment(cloud)
        features = self.points(self.normalizer(cloud))  # [B, O, P, C]
        return self.project(features.amax(dim=2))

    def _augment(self, cloud: Float[Tensor, "B O P D"]) -> Float[Tensor, "B O P D"]:
        """Return jittered clouds in which left-out points have become copies of the first one."""
        b, _, p, _ = cloud.shape
        if self.jitter_m > 0:
            shift = self.jitter_m * torch.randn(b, 1, p, 3, device=cloud.device)
            cloud = torch.cat([cloud[..., :3] + shift, cloud[..., 3:]], dim=-1)
        if self.dropout > 0:
            share = self.dropout * torch.rand(b, 1, device=cloud.device)
            left_out = torch.rand(b, p, device=cloud.device) < share
            cloud = torch.where(left_out[:, None, :, None], cloud[:, :, :1], cloud)
        return cloud


def cloud_affine(array: ArraySpec, stats: Stats, box: Corners | None) -> Affine:
    """Return the map of one point [3 or 6] to [-1, 1]: colours from [0, 1], positions from a box or the data's extent.

    Raises:
        ConfigError: Neither, or a box without extent.
    """
    if box is None:
        if array.name not in stats:
            raise ConfigError(
                f"the cloud `{array.name}` needs a `box` or statistics; there are some for {sorted(stats)}"
            )
        field = stats[array.name]
        corners = np.stack([field.min.min(axis=0)[:3], field.max.max(axis=0)[:3]])
    else:
        corners = np.asarray(box, dtype=np.float64)
    if corners.shape != (2, 3) or not (corners[0] < corners[1]).all():
        raise ConfigError(f"`box` of `{array.name}` must be low < high in x, y, z, got {corners.tolist()}")
    colours = array.shape[1] - 3
    low, high = np.append(corners[0], np.zeros(colours)), np.append(corners[1], np.ones(colours))
    half = (high - low) / 2
    return Affine(1 / half, -(low + high) / 2 / half)
