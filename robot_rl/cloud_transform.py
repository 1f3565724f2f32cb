"""The observation `point_cloud` from depth images: the same lines in simulation, on the robot and over a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from robot_rl.errors import ConfigError, SpecError
from robot_rl.pointcloud import Box, DepthView, fixed_size
from robot_rl.specs import ArraySpec, RobotSpec
from robot_rl.values import Episode, Obs


class PointCloudTransform:
    """Adds a point cloud of fixed size to an observation: deproject, to the base frame, fuse, crop, farthest points.

    Args:
        views: The depth cameras; their points are fused before sampling.
        box: Workspace in the base frame [m].
        n_points: P, points of the cloud.
        name: Name of the new observation, float32 [P, 3], or [P, 6] with colour.
        min_points: Fewest points in the box; fewer is an error, since a policy must not act on a blind camera.

    Raises:
        ConfigError: No view, views that differ in having colour, or a count below 1.
    """

    def __init__(
        self,
        views: Sequence[DepthView],
        *,
        box: Box,
        n_points: int = 512,
        name: str = "point_cloud",
        min_points: int = 1,
    ) -> None:
        if not views or len({bool(view.color) for view in views}) > 1:
            raise ConfigError(
                f"a point cloud needs at least one view, and all with colour or none, got {[v.reads for v in views]}"
            )
        if n_points < 1 or min_points < 1:
            raise ConfigError(f"`n_points` and `min_points` must be at least 1, got {n_points} and {min_points}")
        self.views, self.box, self.n_points, self.min_points = tuple(views), box, n_points, min_points
        width = 6 if views[0].color else 3
        self.spec = ArraySpec(name=name, shape=(n_points, width), unit="m" if width == 3 else "m, rgb")

    @property
    def reads(self) -> tuple[str, ...]:
        """Observations it needs."""
        return tuple(dict.fromkeys(name for view in self.views for name in view.reads))

    def cloud(self, obs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, int]:
        """Return the cloud float32 [P, 3 or 6] in the base frame, and how many of its points are distinct samples.

        Raises:
            SpecError: Fewer than `min_points` in the box, or an observation that is missing or wrong.
        """
        points = np.concatenate([view.points(obs) for view in self.views])
        inside = points[self.box.holds(points)]
        if len(inside) < self.min_points:
            raise SpecError(
                f"`{self.spec.name}` needs at least {self.min_points} points, {len(points)} pixels have depth and "
                f"{len(inside)} of them lie in the box {self.box.low} .. {self.box.high} m; the camera may be covered, "
                "or the box or the camera's pose wrong"
            )
        return fixed_size(inside, self.n_points)

    def __call__(self, obs: Obs) -> Obs:
        """Return the observation with the cloud added."""
        return {**obs, self.spec.name: self.cloud(obs)[0]}

    def robot(self, spec: RobotSpec) -> RobotSpec:
        """Return the robot with the cloud among its observations.

        Raises:
            ConfigError: The robot lacks an observation that is read, or has one of the cloud's name.
        """
        if missing := sorted(set(self.reads) - set(spec.obs)):
            raise ConfigError(f"the point cloud reads {missing}, robot `{spec.name}` has {sorted(spec.obs)}")
        if self.spec.name in spec.obs:
            raise ConfigError(f"robot `{spec.name}` has an observation `{self.spec.name}` already; choose another name")
        return replace(spec, obs={**spec.obs, self.spec.name: self.spec})

    def episode(self, episode: Episode) -> Episode:
        """Return a recorded episode with the cloud of every step, float32 [N, P, 3 or 6]."""
        clouds = [self.cloud({name: episode.obs[name][n] for name in self.reads})[0] for n in range(len(episode))]
        final = None if episode.final_obs is None else self(episode.final_obs)
        rows = np.stack(clouds) if clouds else np.empty((0, *self.spec.shape), dtype=np.float32)
        return replace(episode, obs={**episode.obs, self.spec.name: rows}, final_obs=final)
