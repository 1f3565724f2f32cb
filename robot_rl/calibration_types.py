"""What a calibration is made of: rigid poses, camera models, and the file that carries a result with its provenance.

Frames read left to right: `T_base_camera` takes coordinates in the camera's frame to the base's. A camera's frame is
the optical one of OpenCV and ROS: x right, y down, z forward. Lengths are metres, angles radians; the centre of a
picture's first pixel is (0, 0).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy.spatial.transform import Rotation

from robot_rl.errors import ConfigError, SpecError

CameraModel = Literal["pinhole", "rational", "fisheye"]
N_DISTORTION: Mapping[str, int] = {"pinhole": 5, "rational": 8, "fisheye": 4}
KINDS = ("intrinsics", "stereo", "hand_eye", "latency", "kinematics", "workspace")
FORMAT_VERSION = 1
MAX_TRANSLATION_M = 20.0
_ORTHONORMAL_TOLERANCE = 1e-3  # text files of robots round to four digits
_UNITS_IN_NAMES = ("px", "m", "mm", "s", "ms", "ns", "rad", "deg", "hz")


@dataclass(frozen=True, eq=False)
class Pose:
    """A rigid transform: `rotation` [3, 3] and `translation` [3] in metres.

    `T_ab @ T_bc` is `T_ac`. A rotation that is orthonormal to within 0.001 is taken as its nearest rotation, so that
    poses printed with four digits can be read.

    Raises:
        SpecError: Not finite, not orthonormal, left-handed, or farther than 20 m (most likely millimetres).
    """

    rotation: np.ndarray
    translation: np.ndarray

    def __post_init__(self) -> None:
        rotation, translation = np.array(self.rotation, np.float64), np.array(self.translation, np.float64)
        if rotation.shape != (3, 3) or translation.shape != (3,):
            raise SpecError(
                f"a pose needs rotation (3, 3) and translation (3,), got {rotation.shape}, {translation.shape}"
            )
        if not (np.isfinite(rotation).all() and np.isfinite(translation).all()):
            raise SpecError(
                f"a pose must be finite, got rotation {rotation.tolist()}, translation {translation.tolist()}"
            )
        rotation = _nearest_rotation(rotation)
        distance = float(np.linalg.norm(translation))
        if distance > MAX_TRANSLATION_M:
            raise SpecError(
                f"`translation` must be metres, within {MAX_TRANSLATION_M:g} m; got a length of {distance:.6g}. "
                "If these are millimetres, divide them by 1000"
            )
        for name, value in (("rotation", rotation), ("translation", translation)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def matrix(self) -> np.ndarray:
        """The homogeneous matrix [4, 4]."""
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.rotation, self.translation
        return matrix

    @property
    def quaternion(self) -> np.ndarray:
        """The rotation as a unit quaternion [4], order x, y, z, w, with w at or above zero."""
        return np.asarray(Rotation.from_matrix(self.rotation).as_quat(canonical=True))

    @property
    def rotation_vector(self) -> np.ndarray:
        """The rotation as axis times angle [3] [rad]."""
        return np.asarray(Rotation.from_matrix(self.rotation).as_rotvec())

    @property
    def angle(self) -> float:
        """How far the rotation turns [rad], 0 to pi."""
        return float(np.linalg.norm(self.rotation_vector))

    def inverse(self) -> Pose:
        """Return `T_ba` of `T_ab`."""
        return Pose(self.rotation.T, -self.rotation.T @ self.translation)

    def __matmul__(self, other: Pose) -> Pose:
        """Return `T_ac` of `T_ab @ T_bc`."""
        return Pose(self.rotation @ other.rotation, self.rotation @ other.translation + self.translation)

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Return points [..., 3] of the right-hand frame in the left-hand one."""
        return np.asarray(points @ self.rotation.T + self.translation)

    @classmethod
    def identity(cls) -> Pose:
        """Return the pose that changes nothing."""
        return cls(np.eye(3), np.zeros(3))

    @classmethod
    def from_matrix(cls, matrix: np.ndarray) -> Pose:
        """Return the pose of a homogeneous matrix [4, 4].

        Raises:
            SpecError: The last row is not (0, 0, 0, 1), or see `Pose`.
        """
        matrix = np.asarray(matrix, np.float64)
        if matrix.shape != (4, 4) or not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-9):
            raise SpecError(
                f"a pose matrix must be (4, 4) with last row 0 0 0 1, got shape {matrix.shape}"
                + (f" with last row {matrix[3].tolist()}; is it transposed?" if matrix.shape == (4, 4) else "")
            )
        return cls(matrix[:3, :3], matrix[:3, 3])

    @classmethod
    def from_quaternion(cls, xyzw: Sequence[float] | np.ndarray, translation: Sequence[float] | np.ndarray) -> Pose:
        """Return the pose of a unit quaternion in the order x, y, z, w (that of ROS and scipy).

        Raises:
            SpecError: The quaternion is not of length one, or see `Pose`.
        """
        quaternion = np.asarray(xyzw, np.float64)
        if quaternion.shape != (4,) or not math.isclose(float(np.linalg.norm(quaternion)), 1.0, abs_tol=1e-2):
            raise SpecError(
                f"`quaternion` must be four numbers x, y, z, w of length 1, got {quaternion.tolist()}; "
                "Euler angles and rotation vectors have their own constructors"
            )
        return cls(Rotation.from_quat(quaternion).as_matrix(), np.asarray(translation, np.float64))

    @classmethod
    def from_rotation_vector(
        cls, vector: Sequence[float] | np.ndarray, translation: Sequence[float] | np.ndarray
    ) -> Pose:
        """Return the pose of a rotation given as axis times angle [rad], as OpenCV gives it."""
        flat = np.asarray(vector, np.float64).reshape(3)
        return cls(Rotation.from_rotvec(flat).as_matrix(), np.asarray(translation, np.float64).reshape(3))


def _nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """Return the rotation nearest to a matrix that is nearly one (polar decomposition)."""
    error = float(np.abs(matrix @ matrix.T - np.eye(3)).max())
    if error > _ORTHONORMAL_TOLERANCE:
        raise SpecError(
            f"`rotation` must be orthonormal (R Rᵀ = I) to within {_ORTHONORMAL_TOLERANCE:g}, off by {error:.3g}; "
            "check that rows and columns were read in order and that no scale is in it"
        )
    if np.linalg.det(matrix) < 0:
        raise SpecError(
            "`rotation` is left-handed (determinant -1): it mirrors; one axis has the wrong sign, or two are swapped"
        )
    left, _, right = np.linalg.svd(matrix)
    return np.asarray(left @ right)


@dataclass(frozen=True, kw_only=True)
class CameraIntrinsics:
    """How a camera maps directions to pixels.

    Args:
        model: `pinhole` (k1 k2 p1 p2 k3; ROS: plumb_bob), `rational` (k1 k2 p1 p2 k3 k4 k5 k6; rational_polynomial) or
            `fisheye` (k1 k2 k3 k4 of Kannala and Brandt, 2006; equidistant).
        width: Columns of the pictures it holds for.
        height: Rows.
        fx: Focal length along x [px].
        fy: Focal length along y [px].
        cx: Principal point [px].
        cy: Principal point [px].
        distortion: The model's coefficients in OpenCV's order; empty means none.

    Raises:
        SpecError: Unknown model, wrong number of coefficients, or a value that is not finite or not positive.
    """

    model: CameraModel
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.model not in N_DISTORTION:
            raise SpecError(f"camera `model` must be one of {sorted(N_DISTORTION)}, got {self.model!r}")
        count = N_DISTORTION[self.model]
        values = tuple(float(value) for value in self.distortion) if len(self.distortion) else (0.0,) * count
        if len(values) != count:
            raise SpecError(f"`distortion` of a {self.model} camera has {count} coefficients, got {len(values)}")
        object.__setattr__(self, "distortion", values)
        if not all(math.isfinite(value) for value in (self.fx, self.fy, self.cx, self.cy, *values)):
            raise SpecError(f"camera intrinsics must be finite, got {self}")
        for name in ("width", "height", "fx", "fy"):
            if getattr(self, name) <= 0:
                raise SpecError(f"`{name}` must be positive, got {getattr(self, name)}")

    @property
    def matrix(self) -> np.ndarray:
        """The camera matrix [3, 3]."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return the pixels [N, 2] of points [N, 3] in the camera's optical frame [m]; NaN for those behind it."""
        points = np.asarray(points, np.float64)
        z = np.where(points[:, 2] > 0, points[:, 2], np.nan)
        xy = points[:, :2] / z[:, None]
        bent = self._bend_fisheye(xy) if self.model == "fisheye" else self._bend_polynomial(xy)
        return bent * (self.fx, self.fy) + (self.cx, self.cy)

    def _bend_polynomial(self, xy: np.ndarray) -> np.ndarray:
        """Brown's model with a rational radial part (OpenCV's formula); xy [N, 2] at z = 1."""
        k1, k2, p1, p2, k3, k4, k5, k6 = (*self.distortion, 0.0, 0.0, 0.0)[:8]
        x, y = xy.T
        r2 = x * x + y * y
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        bent_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        bent_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        return np.stack([bent_x, bent_y], axis=1)

    def _bend_fisheye(self, xy: np.ndarray) -> np.ndarray:
        """Kannala and Brandt: the angle from the axis is bent by an odd polynomial; xy [N, 2] at z = 1."""
        radius = np.linalg.norm(xy, axis=1)
        angle = np.arctan(radius)
        square = angle * angle
        bent = np.ones_like(square)
        for i, k in enumerate(self.distortion):
            bent += k * square ** (i + 1)
        scale = np.where(radius > 1e-12, angle * bent / np.maximum(radius, 1e-12), 1.0)
        return xy * scale[:, None]


@dataclass(frozen=True, kw_only=True)
class CalibrationFile:
    """A calibration with all that is needed to decide whether to trust it.

    Args:
        kind: What was calibrated, one of `KINDS`.
        values: The result by name: `Pose`, `CameraIntrinsics`, numbers, lists, text, or mappings of these.
        frames: What each frame or pose name means, such as `{"T_base_camera": "camera_color_optical_frame -> base"}`.
        date: When it was made, ISO 8601 with a time zone.
        device_serial: Serial number of the camera or arm; empty means not known.
        method: How, in words that name the algorithm.
        residuals: What was left over, with units in the names, such as `heldout_rms_px`.
        image_digest: SHA-256 of the pictures (or recordings) it was made from; empty when made without any.
        units: Unit of each value whose name does not end in one; poses and intrinsics have theirs.
        format_version: Of the file.

    Raises:
        ConfigError: Unknown kind, or a number without a unit.
    """

    kind: str
    values: Mapping[str, Any]
    frames: Mapping[str, str]
    date: str
    device_serial: str
    method: str
    residuals: Mapping[str, float]
    image_digest: str
    units: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"calibration `kind` must be one of {KINDS}, got {self.kind!r}")
        for name, value in self.values.items():
            if not isinstance(value, str | bool) and not self.unit_of(name):
                raise ConfigError(
                    f"value `{name}` of a {self.kind} calibration has no unit; end its name in one of "
                    f"{_UNITS_IN_NAMES} or give it in `units` ('1' for a plain number)"
                )

    def unit_of(self, name: str) -> str:
        """Return the unit of a value; empty when nobody said."""
        value, suffix = self.values[name], name.rsplit("_", 1)[-1]
        if name in self.units:
            return self.units[name]
        if isinstance(value, Pose):
            return "m, quaternion xyzw"
        if isinstance(value, CameraIntrinsics):
            return "px"
        return suffix if suffix in _UNITS_IN_NAMES and suffix != name else ""
