"""Scale and offset of a depth camera, from the board's plane as the calibrated camera sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import least_squares

from calibration.boards import BoardSpec
from calibration.camera_fit import straighten
from robot_rl.calibration_types import CameraIntrinsics, Pose
from robot_rl.errors import CalibrationError

_ROBUST_M = 0.003  # beyond this a reading counts linearly: flying pixels, holes, glare
_MIN_PIXELS = 100
_MAX_PIXELS = 2000  # of one picture


@dataclass(frozen=True, kw_only=True)
class DepthFit:
    """True depth is `scale * measured + offset_m`.

    Args:
        scale: Factor on the measured depth.
        offset_m: Added to it.
        rms_before_m: Difference between measured depth and the board, before the correction.
        rms_m: After it.
        n_pixels: How many readings were compared.
    """

    scale: float
    offset_m: float
    rms_before_m: float
    rms_m: float
    n_pixels: int


def fit_depth(
    depths: Sequence[np.ndarray], poses: Sequence[Pose], camera: CameraIntrinsics, board: BoardSpec
) -> DepthFit:
    """Return how a depth camera misreads distance, from pictures of the board at two or more distances.

    Args:
        depths: Depth along the optical axis [m], float [H, W], 0 where there is none; aligned to `camera`.
        poses: `T_camera_board` of each, from the colour picture of the same moment.
        camera: Intrinsics that the depth pictures follow.
        board: The board.

    Raises:
        CalibrationError: Sizes or numbers do not fit, depth is in millimetres, too few readings on the board, or boards
            all at one distance, from which scale and offset cannot be told apart.
    """
    if len(depths) != len(poses) or not depths:
        raise CalibrationError(f"depth needs one pose for each picture, got {len(depths)} and {len(poses)}")
    pairs = [_readings(depth, pose, camera, board) for depth, pose in zip(depths, poses, strict=True)]
    measured, true = (np.concatenate(side) for side in zip(*pairs, strict=True))
    if len(measured) < _MIN_PIXELS:
        raise CalibrationError(f"{len(measured)} depth readings lie on the board, {_MIN_PIXELS} are needed; go closer")
    ratio = float(np.median(measured / true))
    if not 0.5 < ratio < 2.0:
        raise CalibrationError(
            f"measured depth is {ratio:.4g} times the board's distance; depth must be metres (millimetres / 1000)"
        )
    spread = float(np.ptp([np.median(side) for _, side in pairs if len(side)]))
    if spread < 0.1 * float(np.median(true)):
        raise CalibrationError(
            f"the boards stand within {1000 * spread:.0f} mm of one distance; show it near and far, 10 % apart or more"
        )
    solved = least_squares(
        lambda x: x[0] * measured + x[1] - true, np.array([1.0, 0.0]), loss="soft_l1", f_scale=_ROBUST_M
    )
    scale, offset = (float(value) for value in solved.x)
    before, after = measured - true, scale * measured + offset - true
    rms_before, rms_after = (float(np.sqrt((error**2).mean())) for error in (before, after))
    return DepthFit(
        scale=scale, offset_m=offset, rms_before_m=rms_before, rms_m=rms_after, n_pixels=len(measured)
    )  # fmt: skip


def _readings(
    depth: np.ndarray, pose: Pose, camera: CameraIntrinsics, board: BoardSpec
) -> tuple[np.ndarray, np.ndarray]:
    """Return measured and true depth [n] of the pixels on the board."""
    if depth.shape != (camera.height, camera.width):
        raise CalibrationError(
            f"a depth picture is {depth.shape[1]} x {depth.shape[0]}, the camera {camera.width} x {camera.height}; "
            "align the depth to the colour picture"
        )
    outline = camera.project(pose.apply(board.object_points))
    if not np.isfinite(outline).all():
        raise CalibrationError("a pose puts the board behind the camera; poses are `T_camera_board`")
    hull = cv2.convexHull(outline.astype(np.float32)).round().astype(np.int32)
    mask = cv2.fillConvexPoly(np.zeros(depth.shape, np.uint8), hull, 1)
    v, u = np.nonzero((mask > 0) & (depth > 0) & np.isfinite(depth))
    keep = slice(None, None, max(1, len(u) // _MAX_PIXELS))
    u, v = u[keep], v[keep]
    if len(u) == 0:
        return np.empty(0), np.empty(0)
    rays = np.column_stack([straighten(camera, np.stack([u, v], axis=1)).reshape(-1, 2), np.ones(len(u))])
    normal = pose.rotation[:, 2]
    return depth[v, u].astype(np.float64), (normal @ pose.translation) / (rays @ normal)
