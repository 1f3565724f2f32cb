"""Point clouds from aligned depth images: numpy only, so that data set, simulation and robot run the same code.

Frames: a camera's optical frame has z forward, x right, y down, and integer pixel coordinates are pixel centres, as in
OpenCV and ROS. Clouds are float32 [M, 3] metres, or [M, 6] with red, green, blue in [0, 1] after the position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robot_rl.errors import ConfigError, SpecError

_ORTHONORMAL = 1e-4


@dataclass(frozen=True, kw_only=True)
class Pinhole:
    """A pinhole camera without distortion: focal lengths and principal point [px].

    Raises:
        ConfigError: A focal length that is not positive, or a number that is not finite.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        values = (self.fx, self.fy, self.cx, self.cy)
        if not (np.isfinite(values).all() and self.fx > 0 and self.fy > 0):
            raise ConfigError(
                f"`fx` and `fy` must be positive and all of fx, fy, cx, cy finite, got {values}; zeros mean a camera "
                "that is not calibrated"
            )

    @classmethod
    def from_matrix(cls, K: Sequence[float]) -> Pinhole:
        """Build from the nine numbers of an intrinsic matrix, row by row, such as `CameraInfo.K`.

        Raises:
            ConfigError: Not nine numbers, a skew, or no camera at all.
        """
        if len(K) != 9 or K[1] != 0 or tuple(K[3:9:3]) != (0.0, 0.0) or K[7] != 0:
            raise ConfigError(f"`K` must be (fx, 0, cx, 0, fy, cy, 0, 0, 1), got {tuple(K)}")
        return cls(fx=float(K[0]), fy=float(K[4]), cx=float(K[2]), cy=float(K[5]))


@dataclass(frozen=True)
class Box:
    """An axis-aligned box: what lies outside is not part of a cloud. `low` and `high` are x, y, z [m].

    Raises:
        ConfigError: Not three numbers each, or `low` not below `high`.
    """

    low: Sequence[float]
    high: Sequence[float]

    def __post_init__(self) -> None:
        for side in ("low", "high"):
            object.__setattr__(self, side, tuple(map(float, getattr(self, side))))
        if (
            len(self.low) != 3
            or len(self.high) != 3
            or not all(a < b for a, b in zip(self.low, self.high, strict=True))
        ):
            raise ConfigError(f"a box needs low < high in x, y, z [m], got low {self.low}, high {self.high}")

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Return which of the points [M, 3+] lie inside, bool [M]."""
        inside = np.ones(len(points), dtype=bool)
        for axis, (low, high) in enumerate(zip(self.low, self.high, strict=True)):  # several times faster than at once
            x = points[:, axis]
            inside &= (x >= x.dtype.type(low)) & (x <= x.dtype.type(high))
        return inside


def depth_in_metres(depth: np.ndarray) -> np.ndarray:
    """Return a depth image [height, width] as float32 metres; uint16 counts millimetres.

    Raises:
        SpecError: Neither uint16 nor float, or not a single picture.
    """
    if depth.ndim != 2 or not (depth.dtype == np.uint16 or depth.dtype.kind == "f"):
        raise SpecError(
            f"a depth image must be uint16[height, width] in mm or float[height, width] in m, got "
            f"{depth.dtype}{depth.shape}"
        )
    metres = depth.astype(np.float32, copy=False)
    return metres * np.float32(1e-3) if depth.dtype == np.uint16 else metres


def deproject(depth: np.ndarray, pinhole: Pinhole, color: np.ndarray | None = None) -> np.ndarray:
    """Return the points of an aligned depth image in the camera's optical frame, row by row, [M, 3] or [M, 6].

    Pixels without depth (0, negative, NaN or infinite) give no point.

    Args:
        depth: uint16 [height, width] in millimetres or float [height, width] in metres: distance along the optical
            axis, not along the ray.
        pinhole: Intrinsics at that size.
        color: uint8 [height, width, 3] of the same pixels.

    Raises:
        SpecError: An image of another dtype or shape.
    """
    z = depth_in_metres(depth)
    if color is not None and (color.dtype != np.uint8 or color.shape != (*z.shape, 3)):
        raise SpecError(f"color must be uint8{(*z.shape, 3)}, aligned to the depth, got {color.dtype}{color.shape}")
    with np.errstate(invalid="ignore"):
        known = np.isfinite(z) & (z > 0)
    rows, columns = np.nonzero(known)
    z = z[known]
    x = (columns - np.float32(pinhole.cx)).astype(np.float32) / np.float32(pinhole.fx) * z
    y = (rows - np.float32(pinhole.cy)).astype(np.float32) / np.float32(pinhole.fy) * z
    parts = [np.stack([x, y, z], axis=1)]
    if color is not None:
        parts.append(color[known].astype(np.float32) / np.float32(255))
    return np.concatenate(parts, axis=1)


def check_transform(T: np.ndarray, name: str) -> np.ndarray:
    """Return a rigid transform as float64 [4, 4].

    Raises:
        ConfigError: Another shape, a rotation that is not orthonormal and right-handed, or a last row that is not
            0 0 0 1.
    """
    matrix = np.asarray(T, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise ConfigError(f"`{name}` must be a transform of shape (4, 4), got {matrix.shape}")
    rotation = matrix[:3, :3]
    error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if not (error < _ORTHONORMAL and np.linalg.det(rotation) > 0 and np.isfinite(matrix).all()):
        raise ConfigError(
            f"the rotation of `{name}` must be orthonormal and right-handed, |R R^T - 1| is {error:.3g} and det R "
            f"{np.linalg.det(rotation):.3g}; check the units and the order of its numbers"
        )
    if not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise ConfigError(f"the last row of `{name}` must be 0 0 0 1, got {matrix[3].tolist()}; is it transposed?")
    return matrix


def pose_matrix(pose: np.ndarray) -> np.ndarray:
    """Return the transform [4, 4] of a pose of 9 numbers: position [m] and rot6d (the rotation's first two columns)."""
    T = np.eye(4)
    T[:3, 3], T[:3, 0], T[:3, 1] = pose[:3], pose[3:6], pose[6:9]
    T[:3, 2] = np.cross(T[:3, 0], T[:3, 1])
    return T


def transform(points: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Return points [M, 3+] after the rigid transform `T` [4, 4]; what follows the position stays."""
    rotation, offset = T[:3, :3].astype(np.float32), T[:3, 3].astype(np.float32)
    moved = points[:, :3] @ rotation.T + offset
    return np.concatenate([moved, points[:, 3:]], axis=1)


def farthest_points(points: np.ndarray, n: int) -> np.ndarray:
    """Return the indices of `n` points [M, 3+], each the farthest from those before it (Gonzalez 1985).

    The first is the one farthest from the cloud's mean, so that nothing is random and the chosen set does not depend
    on the order of the points (but for ties).

    Raises:
        SpecError: Fewer than `n` points, or `n` below 1.
    """
    if not 1 <= n <= len(points):
        raise SpecError(f"farthest_points needs 1 <= n <= {len(points)} points, got n = {n}")
    axes = np.ascontiguousarray(
        points[:, :3].T, dtype=np.float32
    )  # [3, M]: whole axes at a time are several times faster
    chosen = np.empty(n, dtype=np.int64)
    chosen[0] = np.square(axes - axes.mean(axis=1, keepdims=True)).sum(axis=0).argmax()
    nearest = np.full(axes.shape[1], np.inf, dtype=np.float32)
    distance, part = np.empty_like(nearest), np.empty_like(nearest)
    for i in range(1, n):
        last = chosen[i - 1]
        nearest[last] = -1.0  # never again, even among duplicates
        distance.fill(0.0)
        for axis in axes:
            np.subtract(axis, axis[last], out=part)
            np.multiply(part, part, out=part)
            np.add(distance, part, out=distance)
        np.minimum(nearest, distance, out=nearest)
        chosen[i] = nearest.argmax()
    return chosen


def fixed_size(points: np.ndarray, n: int) -> tuple[np.ndarray, int]:
    """Return exactly `n` points [n, 3+] of a cloud, and how many of them are distinct samples.

    More than `n`: farthest-point sampling. Fewer: all, repeated in turn, which a network with a max pool does not see.

    Raises:
        SpecError: The cloud is empty: there is nothing to repeat.
    """
    if len(points) == 0:
        raise SpecError(f"the point cloud is empty, {n} points are needed; check the crop box and the depth camera")
    if len(points) > n:
        return points[farthest_points(points, n)], n
    return points[np.arange(n) % len(points)], len(points)


@dataclass(frozen=True, kw_only=True)
class DepthView:
    """One depth camera as a source of points.

    Args:
        depth: Observation of the depth image.
        pinhole: Intrinsics.
        T_mount_camera: Takes the optical frame to the base, or to the frame that `mount` names.
        mount: Observation of the pose (9 numbers: position and rot6d, in the base frame) that the camera rides on, such
            as `tcp_pose` for a wrist camera; empty for a fixed camera.
        color: Observation of the colour picture; empty for none.

    Raises:
        ConfigError: `T_mount_camera` is not a rigid transform.
    """

    depth: str
    pinhole: Pinhole
    T_mount_camera: np.ndarray
    mount: str = ""
    color: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "T_mount_camera", check_transform(self.T_mount_camera, f"T of {self.depth}"))

    @property
    def reads(self) -> tuple[str, ...]:
        """Observations it needs."""
        return tuple(name for name in (self.depth, self.mount, self.color) if name)

    def points(self, obs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return its points in the base frame, [M, 3] or [M, 6].

        Raises:
            SpecError: An observation is missing or not what it must be.
        """
        if missing := sorted(set(self.reads) - set(obs)):
            raise SpecError(f"the point cloud needs {missing}, the observation has {sorted(obs)}")
        cloud = deproject(obs[self.depth], self.pinhole, obs[self.color] if self.color else None)
        T = pose_matrix(obs[self.mount]) @ self.T_mount_camera if self.mount else self.T_mount_camera
        return transform(cloud, T)
