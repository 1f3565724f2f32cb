"""Where the board is in one picture: `T_camera_board` from its corners and the camera's intrinsics."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np

from robot_rl.calibration_types import CameraIntrinsics, Pose
from robot_rl.errors import CalibrationError

MIN_CORNERS = 4


class Corners(Protocol):
    """What is needed of a `BoardView`: `corners` [K, 2] px and the same `board_points` [K, 3] m."""

    @property
    def image_id(self) -> str:
        """Name of the picture."""

    @property
    def corners(self) -> np.ndarray:
        """Pixels [K, 2]."""

    @property
    def board_points(self) -> np.ndarray:
        """Points on the board [K, 3], z = 0."""


def board_pose(view: Corners, intrinsics: CameraIntrinsics) -> tuple[Pose, float]:
    """Return `T_camera_board` and the root mean square reprojection error [px].

    A flat board seen from afar has two poses that look alike (Collins and Bartoli, IPPE, 2014); the better one is
    taken, then polished by Levenberg and Marquardt on undistorted corners.

    Raises:
        CalibrationError: Fewer than four corners, or no pose puts the board in front of the camera.
    """
    if len(view.corners) < MIN_CORNERS:
        raise CalibrationError(
            f"picture {view.image_id!r} shows {len(view.corners)} corners of the board, a pose needs {MIN_CORNERS}; "
            "leave it out or show more of the board"
        )
    points = np.ascontiguousarray(view.board_points, np.float64)
    rays = undistort(np.asarray(view.corners, np.float64), intrinsics)
    eye, none = np.eye(3), np.zeros(0)
    _, turns, shifts, _ = cv2.solvePnPGeneric(points, rays, eye, none, flags=cv2.SOLVEPNP_IPPE)
    best: tuple[float, Pose | None] = (np.inf, None)
    for turn, shift in zip(turns, shifts, strict=True):
        vector, offset = cv2.solvePnPRefineLM(points, rays, eye, none, turn.copy(), shift.copy())
        if not np.isfinite(vector).all() or np.linalg.norm(offset) > 20.0:
            continue
        pose = Pose.from_rotation_vector(vector, offset)
        rms = _rms(pose, view, intrinsics)
        if rms < best[0]:
            best = rms, pose
    if best[1] is None:
        raise CalibrationError(
            f"picture {view.image_id!r}: no pose puts the board in front of the camera; check the board's size and ids"
        )
    return best[1], best[0]


def undistort(corners: np.ndarray, intrinsics: CameraIntrinsics) -> np.ndarray:
    """Return where pixels [K, 2] lie on the plane z = 1 of the camera's frame, [K, 2]."""
    distortion = np.asarray(intrinsics.distortion)
    bend = cv2.fisheye.undistortPoints if intrinsics.model == "fisheye" else cv2.undistortPoints
    return np.asarray(bend(corners.reshape(-1, 1, 2), intrinsics.matrix, distortion)).reshape(-1, 2)


def _rms(pose: Pose, view: Corners, intrinsics: CameraIntrinsics) -> float:
    error = intrinsics.project(pose.apply(view.board_points)) - view.corners
    return float(np.sqrt((error**2).sum(axis=1).mean())) if np.isfinite(error).all() else np.inf
