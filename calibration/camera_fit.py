"""OpenCV's camera fits behind one call for all lens models, and the pose of a board before a known camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from calibration.captures import BoardView
from robot_rl.calibration_types import N_DISTORTION, CameraIntrinsics, CameraModel, Pose
from robot_rl.errors import CalibrationError, ConfigError, SpecError

_STOP = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 100, 1e-12)
_SUPPOSED_FOV_RAD = (1.0, 1.5, 2.1, 2.7)  # where fisheye fits start, across the picture's width


@dataclass(frozen=True, kw_only=True)
class CameraFit:
    """A camera with the boards' poses: `residuals` [K, 2] of each view, standard `deviation` of fx, fy, cx, cy [px]."""

    intrinsics: CameraIntrinsics
    poses: Sequence[Pose]
    residuals: Sequence[np.ndarray]
    deviation: Mapping[str, float]


def fit_camera(views: Sequence[BoardView], *, model: CameraModel, aspect: str) -> CameraFit:
    """Return the camera and board poses with the least squared reprojection error over all views.

    Args:
        views: All of one size.
        model: Lens model.
        aspect: `free`, or `fixed` for fx = fy.

    Raises:
        CalibrationError: The solver finds no camera.
        ConfigError: Unknown aspect, or a fixed one for a fisheye camera.
    """
    if aspect not in ("free", "fixed"):
        raise ConfigError(f"`aspect` must be free or fixed, got {aspect!r}")
    if model == "fisheye" and aspect == "fixed":
        raise ConfigError("`aspect` = fixed is not offered for a fisheye camera; take `aspect` = free")
    try:
        solved = _fisheye(views) if model == "fisheye" else _polynomial(views, model, aspect)
    except (cv2.error, SpecError) as error:
        raise CalibrationError(
            f"no {model} camera fits the {len(views)} views ({str(error).strip().splitlines()[-1]}); "
            "take views with more tilt and more of the picture covered, or another lens model"
        ) from error
    matrix, distortion, poses = solved
    intrinsics = CameraIntrinsics(
        model=model, width=views[0].size[0], height=views[0].size[1], fx=float(matrix[0, 0]), fy=float(matrix[1, 1]),
        cx=float(matrix[0, 2]), cy=float(matrix[1, 2]), distortion=tuple(distortion[: N_DISTORTION[model]]),
    )  # fmt: skip
    residuals = [view_residuals(intrinsics, view, pose) for view, pose in zip(views, poses, strict=True)]
    if not all(np.isfinite(left).all() for left in residuals):
        raise CalibrationError(f"the {model} fit put a board behind the camera; take views with more tilt")
    return CameraFit(
        intrinsics=intrinsics,
        poses=poses,
        residuals=residuals,
        deviation=_deviation(intrinsics, views, poses, residuals),
    )


def _polynomial(views: Sequence[BoardView], model: str, aspect: str) -> tuple[np.ndarray, list[float], list[Pose]]:
    flags = cv2.CALIB_RATIONAL_MODEL if model == "rational" else 0
    flags |= cv2.CALIB_FIX_ASPECT_RATIO if aspect == "fixed" else 0
    points = [view.board_points.astype(np.float32) for view in views]
    corners = [view.corners.astype(np.float32).reshape(-1, 1, 2) for view in views]
    _, matrix, distortion, turns, shifts = cv2.calibrateCamera(
        points, corners, views[0].size, np.eye(3), None, flags=flags, criteria=_STOP
    )
    return matrix, [float(k) for k in distortion.ravel()], _poses(turns, shifts)


def _fisheye(views: Sequence[BoardView]) -> tuple[np.ndarray, list[float], list[Pose]]:
    """Return the best of several starts: OpenCV's solver runs away when the first focal length is far off."""
    solved = []
    for fov in _SUPPOSED_FOV_RAD:
        try:
            solved.append(_fisheye_from(views, fov))
        except (cv2.error, SpecError) as error:  # a start that ran away
            failure = str(error).strip().splitlines()[-1]
    if not solved:
        raise CalibrationError(
            f"no fisheye camera fits the {len(views)} views ({failure}); take views that fill more of the picture and "
            "stand in all its corners, or another lens model"
        )
    return min(solved, key=lambda item: item[0])[1]


def _fisheye_from(views: Sequence[BoardView], fov: float) -> tuple[float, tuple[np.ndarray, list[float], list[Pose]]]:
    """Return the rms residual and the solution from a supposed angle across the picture's width [rad]."""
    width, height = views[0].size
    focal = width / fov  # of an equidistant lens
    matrix = np.array([[focal, 0, 0.5 * (width - 1)], [0, focal, 0.5 * (height - 1)], [0, 0, 1]])
    flags = cv2.fisheye.CALIB_RECOMPUTE_EXTRINSIC | cv2.fisheye.CALIB_FIX_SKEW | cv2.fisheye.CALIB_USE_INTRINSIC_GUESS
    points = [view.board_points.reshape(1, -1, 3) for view in views]
    corners = [view.corners.reshape(1, -1, 2) for view in views]
    rms, matrix, distortion, turns, shifts = cv2.fisheye.calibrate(
        points, corners, (width, height), matrix, np.zeros((4, 1)), flags=flags, criteria=_STOP
    )
    poses = _poses(turns, shifts)
    if not np.isfinite(rms) or min(pose.translation[2] for pose in poses) <= 0:
        raise SpecError("a board came to lie behind the camera")
    return float(rms), (matrix, [float(k) for k in distortion.ravel()], poses)


def _poses(turns: Sequence[np.ndarray], shifts: Sequence[np.ndarray]) -> list[Pose]:
    return [Pose.from_rotation_vector(turn, shift) for turn, shift in zip(turns, shifts, strict=True)]


def view_residuals(camera: CameraIntrinsics, view: BoardView, T_camera_board: Pose) -> np.ndarray:
    """Return seen minus projected for each corner, [K, 2] [px]; NaN for a corner behind the camera."""
    return np.asarray(view.corners - camera.project(T_camera_board.apply(view.board_points)))


def rms_of(residuals: np.ndarray) -> float:
    """Return the root of the mean squared distance over corners [K, 2], as OpenCV reports it."""
    return float(np.sqrt((residuals**2).sum(axis=1).mean()))


def fit_pose(camera: CameraIntrinsics, view: BoardView) -> Pose:
    """Return the `T_camera_board` with the least squared reprojection error, for a known camera.

    Starts from the better of the two poses that a plane allows (Collins and Bartoli, 2014).

    Raises:
        CalibrationError: No pose puts the board before the camera.
    """
    rays = straighten(camera, view.corners)
    points = view.board_points
    middle = points.mean(axis=0)
    found, turns, shifts, _ = cv2.solvePnPGeneric(
        points - middle, rays, np.eye(3), np.zeros(5), flags=cv2.SOLVEPNP_IPPE
    )
    if not found:
        raise CalibrationError(f"{view.image_id}: no pose of the board explains its corners; take the picture out")
    poses = []
    for start_turn, start_shift in zip(turns, shifts, strict=True):
        turn, shift = cv2.solvePnPRefineLM(points - middle, rays, np.eye(3), np.zeros(5), start_turn, start_shift)
        poses.append(Pose.from_rotation_vector(turn, shift) @ Pose(np.eye(3), -middle))
    errors = [float((view_residuals(camera, view, pose) ** 2).sum()) for pose in poses]
    errors = [error if np.isfinite(error) else np.inf for error in errors]
    if not np.isfinite(min(errors)):
        raise CalibrationError(f"{view.image_id}: the board's pose lies behind the camera; take the picture out")
    return poses[int(np.argmin(errors))]


def straighten(camera: CameraIntrinsics, corners: np.ndarray) -> np.ndarray:
    """Return corners [K, 2] as x/z, y/z [K, 1, 2] without the lens."""
    pixels, distortion = corners.reshape(-1, 1, 2).astype(np.float64), np.asarray(camera.distortion)
    if camera.model == "fisheye":
        return cast(np.ndarray, cv2.fisheye.undistortPoints(pixels, camera.matrix, distortion))
    return cast(np.ndarray, cv2.undistortPointsIter(pixels, camera.matrix, distortion, None, None, _STOP))


def _deviation(
    camera: CameraIntrinsics, views: Sequence[BoardView], poses: Sequence[Pose], residuals: Sequence[np.ndarray]
) -> dict[str, float]:
    """Return standard deviations of fx, fy, cx, cy from the normal equations, board poses eliminated view by view.

    The noise is taken as white with the variance that the residuals show, so that a wrong model widens them too little.
    """
    names = ("fx", "fy", "cx", "cy")
    n_camera = 4 + len(camera.distortion)
    information = np.zeros((n_camera, n_camera))
    for view, pose in zip(views, poses, strict=True):
        by_camera, by_pose = _jacobians(camera, view, pose)
        cross = by_camera.T @ by_pose
        information += by_camera.T @ by_camera - cross @ np.linalg.pinv(by_pose.T @ by_pose) @ cross.T
    n_free = 2 * sum(len(left) for left in residuals) - n_camera - 6 * len(views)
    variance = sum(float((left**2).sum()) for left in residuals) / max(n_free, 1)
    return dict(zip(names, np.sqrt(variance * _inverse_diagonal(information)[:4]).tolist(), strict=True))


def _inverse_diagonal(information: np.ndarray) -> np.ndarray:
    """Return the diagonal of the inverse of a symmetric matrix [n, n] whose unknowns have unlike scales.

    Directions that the views do not determine (the rational model has some) get a large variance, not none.
    """
    scale = 1.0 / np.sqrt(np.maximum(np.diag(information), 1e-300))
    values, vectors = np.linalg.eigh(information * np.outer(scale, scale))
    values = np.maximum(values, 1e-14 * values.max())
    return np.asarray(scale**2 * (vectors**2 / values).sum(axis=1))


def _jacobians(camera: CameraIntrinsics, view: BoardView, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Return the derivatives of the projected corners by the camera [2K, 4 + D] and by the pose [2K, 6]."""
    step = 1e-6
    base = np.array([camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion])
    points = pose.apply(view.board_points)

    def by_values(values: np.ndarray) -> np.ndarray:
        moved = CameraIntrinsics(
            model=camera.model, width=camera.width, height=camera.height, fx=values[0], fy=values[1], cx=values[2],
            cy=values[3], distortion=tuple(values[4:]),
        )  # fmt: skip
        return moved.project(points).ravel()

    def by_motion(motion: np.ndarray) -> np.ndarray:
        return camera.project(Pose.from_rotation_vector(motion[:3], motion[3:]).apply(points)).ravel()

    by_camera = [(by_values(base + d) - by_values(base - d)) / (2 * step) for d in step * np.eye(len(base))]
    by_pose = [(by_motion(d) - by_motion(-d)) / (2 * step) for d in step * np.eye(6)]
    return np.stack(by_camera, axis=1), np.stack(by_pose, axis=1)
