"""Simulated depth cameras and the point cloud they give, by the same code as a real camera's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from robot_rl.cloud_transform import PointCloudTransform
from robot_rl.errors import ConfigError
from robot_rl.pointcloud import Box, DepthView, Pinhole
from robot_rl.specs import ArraySpec
from sim.arm import pose9
from sim.rendering import Renderer

_OPTICAL = np.diag([1.0, -1.0, -1.0])  # MuJoCo's cameras look along -z with y up, optical frames along z with y down


def camera_pinhole(model: mujoco.MjModel, camera: str, height: int, width: int) -> Pinhole:
    """Return a camera's intrinsics at a picture size, pixel centres at whole numbers."""
    focal = 0.5 * height / np.tan(np.deg2rad(float(model.camera(camera).fovy[0])) / 2)
    return Pinhole(fx=focal, fy=focal, cx=(width - 1) / 2, cy=(height - 1) / 2)


def optical_pose(data: mujoco.MjData, camera: str) -> np.ndarray:
    """Return the present pose of a camera's optical frame in the base frame: position and rot6d, float32 [9]."""
    seen = data.camera(camera)
    return pose9(seen.xpos, seen.xmat.reshape(3, 3) @ _OPTICAL)


@dataclass(frozen=True, kw_only=True)
class CloudSettings:
    """How `ArmEnv` observes `point_cloud`.

    Args:
        cameras: Whose points are fused.
        image_size: Height and width of the depth images [px].
        low: Lower corner of the workspace in the base frame [m].
        high: Upper corner.
        n_points: P, points of the cloud.
        color: Add the colour of each point.
        every: Render at every so many control steps only; between, the last cloud stands, as it does with a slower
            camera. A policy with one observation step that replans every `every` steps never sees an old one.

    Raises:
        ConfigError: No camera, or `every` below 1.
    """

    cameras: Sequence[str] = ("front",)
    image_size: Sequence[int] = (120, 160)
    low: Sequence[float] = (0.3, -0.3, 0.004)
    high: Sequence[float] = (0.75, 0.3, 0.35)
    n_points: int = 256
    color: bool = False
    every: int = 1

    def __post_init__(self) -> None:
        if not self.cameras or self.every < 1:
            raise ConfigError(
                f"`point_cloud` needs a camera and `every` >= 1, got {list(self.cameras)} and {self.every}"
            )


class SimCloud:
    """Point clouds of one model; the renderer opens at the first one.

    Args:
        model: The model.
        settings: What to observe.
        names: The model's name of each camera.
    """

    def __init__(self, model: mujoco.MjModel, settings: CloudSettings, names: Mapping[str, str]) -> None:
        self._model, self._names = model, {camera: names[camera] for camera in settings.cameras}
        self._size, self._every = (int(settings.image_size[0]), int(settings.image_size[1])), settings.every
        views = [
            DepthView(
                depth=f"{camera}/depth",
                pinhole=camera_pinhole(model, name, *self._size),
                T_mount_camera=np.eye(4),
                mount=f"{camera}/pose",
                color=f"{camera}/color" if settings.color else "",
            )
            for camera, name in self._names.items()
        ]
        box = Box(settings.low, settings.high)
        self._transform = PointCloudTransform(views, box=box, n_points=settings.n_points)
        self._renderer: Renderer | None = None
        self._last: np.ndarray | None = None

    @property
    def spec(self) -> ArraySpec:
        """The cloud: float32 [P, 3 or 6]."""
        return self._transform.spec

    def observe(self, data: mujoco.MjData, step: int) -> np.ndarray:
        """Return the cloud at a control step; step 0 is always a fresh one.

        Raises:
            SpecError: Nothing in the workspace is seen.
            SimulationError: No OpenGL back end works.
        """
        if self._last is None or step % self._every == 0:
            self._last, _ = self._transform.cloud(self._look(data))
        return self._last.copy()

    def close(self) -> None:
        """Free the renderer. Calling it twice is allowed."""
        if self._renderer is not None:
            self._renderer.close()
        self._renderer, self._last = None, None

    def _look(self, data: mujoco.MjData) -> dict[str, np.ndarray]:
        if self._renderer is None:
            self._renderer = Renderer(self._model, *self._size)
        seen = {}
        for camera, name in self._names.items():
            seen[f"{camera}/depth"] = self._renderer.depth(data, name)
            seen[f"{camera}/pose"] = optical_pose(data, name)
            if f"{camera}/color" in self._transform.reads:
                seen[f"{camera}/color"] = self._renderer.render(data, name)
        return seen
