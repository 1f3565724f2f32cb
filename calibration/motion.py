"""Sets of poses as arrays, their mean, and whether a set moved enough to calibrate from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from robot_rl.calibration_types import Pose
from robot_rl.errors import CalibrationError

DISTINCT_RAD = np.radians(5.0)
MIN_DISTINCT = 3
MIN_TILT_RAD = np.radians(5.0)


def stack(poses: Sequence[Pose]) -> np.ndarray:
    """Return poses as matrices [N, 4, 4]."""
    return np.stack([pose.matrix for pose in poses])


def invert(T: np.ndarray) -> np.ndarray:
    """Return the inverse of rigid transforms [..., 4, 4]."""
    inverse = np.zeros_like(T)
    rotation = np.swapaxes(T[..., :3, :3], -1, -2)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ T[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1.0
    return inverse


def rotation_vectors(R: np.ndarray) -> np.ndarray:
    """Return rotations [N, 3, 3] as axis times angle [N, 3] [rad]."""
    return np.asarray(Rotation.from_matrix(R).as_rotvec())


def small_transform(v: np.ndarray) -> np.ndarray:
    """Return the transforms [N, 4, 4] of (rotation vector [rad], shift [m]) rows [N, 6]."""
    v = np.atleast_2d(v)
    T = np.zeros((len(v), 4, 4))
    T[:, :3, :3] = Rotation.from_rotvec(v[:, :3]).as_matrix()
    T[:, :3, 3], T[:, 3, 3] = v[:, 3:], 1.0
    return T


def mean_pose(T: np.ndarray, *, robust: bool = False) -> np.ndarray:
    """Return the mean [4, 4] of poses [N, 4, 4]: mean position, chordal mean rotation.

    With `robust`, the medoid's neighbours only: position and rotation are averaged over the half of the poses that are
    nearest to the pose with the least summed angle to the others.
    """
    kept = T
    if robust and len(T) > 2:
        relative = np.einsum("iba,jbc->ijac", T[:, :3, :3], T[:, :3, :3])
        cosine = np.clip((np.trace(relative, axis1=2, axis2=3) - 1) / 2, -1, 1)
        angle = np.arccos(cosine)
        distance = np.linalg.norm(T[:, None, :3, 3] - T[None, :, :3, 3], axis=-1)
        apart = angle + distance  # one radian weighs as one metre: only the order matters
        medoid = int(np.argmin(np.median(apart, axis=1)))
        kept = T[np.argsort(apart[medoid])[: len(T) // 2 + 1]]
    mean = np.eye(4)
    mean[:3, :3] = Rotation.from_matrix(kept[:, :3, :3]).mean().as_matrix()
    mean[:3, 3] = kept[:, :3, 3].mean(axis=0)
    return mean


def check_motion(T: np.ndarray) -> None:
    """Raise unless poses [N, 4, 4] turn about at least two axes, in at least three distinct rotations.

    Rotations about parallel axes leave the shift along the axis, and a turn about it, unknown (Tsai and Lenz, 1989).

    Raises:
        CalibrationError: Says what is lacking and how to move.
    """
    distinct: list[np.ndarray] = []
    for R in T[:, :3, :3]:
        if all(np.linalg.norm(rotation_vectors((R.T @ other)[None])) > DISTINCT_RAD for other in distinct):
            distinct.append(R)
    if len(distinct) < MIN_DISTINCT:
        raise CalibrationError(
            f"{len(T)} poses of the arm hold {len(distinct)} distinct rotations (5 deg apart), hand-eye calibration "
            f"needs "
            f"at least {MIN_DISTINCT}, better 15; turn the wrist about different axes by 20 to 60 deg between views"
        )
    first, second = np.triu_indices(len(T), 1)
    turns = rotation_vectors(np.swapaxes(T[first, :3, :3], 1, 2) @ T[second, :3, :3])  # [pairs, 3]
    axis = np.linalg.svd(turns, full_matrices=False)[2][0]
    tilt = float(np.sqrt(((turns - np.outer(turns @ axis, axis)) ** 2).sum(axis=1).mean()))
    if tilt < MIN_TILT_RAD:
        raise CalibrationError(
            f"the arm turned about one axis only ({np.round(axis, 2).tolist()}; {np.degrees(tilt):.1f} deg about "
            f"others), "
            "which leaves the camera's place along it unknown; tilt the wrist about a second axis by 20 deg or more"
        )
