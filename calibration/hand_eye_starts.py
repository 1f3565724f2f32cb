"""Closed-form hand-eye solutions, each from its own paper, and how far they agree.

All solve `A_i X B_i = Z`: A is the arm's pose (of whatever carries the moving part, in the frame that stands still), B
is `T_camera_board`, X and Z are the unknown camera and board. Tsai and Lenz (1989), Park and Martin (1994), Horaud and
Dornaika (1995), Andreff et al. (2001) and Daniilidis (1999) eliminate Z by pairs of views; Shah (2013) and Li et al.
(2010) solve for both at once. OpenCV's implementations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from calibration.motion import invert, mean_pose, rotation_vectors
from robot_rl.errors import CalibrationError

PAIRWISE = {
    "tsai": cv2.CALIB_HAND_EYE_TSAI,
    "park": cv2.CALIB_HAND_EYE_PARK,
    "horaud": cv2.CALIB_HAND_EYE_HORAUD,
    "andreff": cv2.CALIB_HAND_EYE_ANDREFF,
    "daniilidis": cv2.CALIB_HAND_EYE_DANIILIDIS,
}
TOGETHER = {"shah": cv2.CALIB_ROBOT_WORLD_HAND_EYE_SHAH, "li": cv2.CALIB_ROBOT_WORLD_HAND_EYE_LI}


@dataclass(frozen=True)
class Start:
    """One method's camera X [4, 4] and board Z [4, 4]."""

    X: np.ndarray
    Z: np.ndarray


@dataclass(frozen=True)
class Agreement:
    """How far each method's camera lies from the middle of all: `position_m` and `angle_rad` by method."""

    position_m: Mapping[str, float]
    angle_rad: Mapping[str, float]

    @property
    def typical(self) -> tuple[float, float]:
        """Median distance [m] and angle [rad]."""
        return float(np.median(list(self.position_m.values()))), float(np.median(list(self.angle_rad.values())))


def linear_start(A: np.ndarray, B: np.ndarray, method: str) -> Start | None:
    """Return one method's solution for poses [N, 4, 4], or `None` where it has none."""
    try:
        if method in PAIRWISE:
            R, t = cv2.calibrateHandEye(*_parts(A), *_parts(B), method=PAIRWISE[method])
            X = _matrix(R, t)
            return None if X is None else Start(X, mean_pose(A @ X @ B, robust=True))
        found = cv2.calibrateRobotWorldHandEye(*_parts(B), *_parts(invert(A)), method=TOGETHER[method])
    except cv2.error:
        return None
    Z, X = _matrix(found[0], found[1]), _matrix(found[2], found[3])
    return None if X is None or Z is None else Start(invert(X), invert(Z))


def linear_starts(A: np.ndarray, B: np.ndarray) -> dict[str, Start]:
    """Return the solution of every method that has one.

    Raises:
        CalibrationError: None has.
    """
    found = {name: linear_start(A, B, name) for name in (*PAIRWISE, *TOGETHER)}
    starts = {name: start for name, start in found.items() if start is not None}
    if not starts:
        raise CalibrationError("no closed-form method found a hand-eye solution; the arm's motion is degenerate")
    return starts


def agreement(starts: Mapping[str, Start]) -> Agreement:
    """Return how far each solution is from the component-wise median position and the mean of the middle rotations."""
    X = np.stack([start.X for start in starts.values()])
    position = np.linalg.norm(X[:, :3, 3] - np.median(X[:, :3, 3], axis=0), axis=1)
    middle = mean_pose(X, robust=True)[:3, :3]
    angle = np.linalg.norm(rotation_vectors(middle.T @ X[:, :3, :3]), axis=1)
    return Agreement(dict(zip(starts, position.tolist(), strict=True)), dict(zip(starts, angle.tolist(), strict=True)))


def _parts(T: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return rotations and shifts as OpenCV takes them."""
    return list(T[:, :3, :3]), list(T[:, :3, 3])


def _matrix(R: np.ndarray, t: np.ndarray) -> np.ndarray | None:
    """Return a rigid [4, 4] of the nearest rotation, or `None` when it is none at all."""
    R, t = np.asarray(R, np.float64).reshape(3, 3), np.asarray(t, np.float64).reshape(3)
    if not (np.isfinite(R).all() and np.isfinite(t).all()) or np.linalg.det(R) <= 1e-6:
        return None
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_matrix(R).as_matrix(), t
    return T
