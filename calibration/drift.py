"""Is a calibration still true? One fresh view of the board tells."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from calibration.camera_fit import fit_pose, rms_of, view_residuals
from calibration.captures import BoardView
from robot_rl.calibration_types import CameraIntrinsics, Pose
from robot_rl.errors import CalibrationError

TIMES_EXPECTED = 2.5
TIMES_FREE = 1.4
FLOOR_PX = 0.1
MAX_MOVED_PX = 3.0


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What one fresh view says.

    Args:
        rms_px: Residual of the view under the stored camera, its pose fitted.
        free_px: The same with focal length and principal point fitted to this view too.
        expected_px: The stored residual on held-out views.
        moved_px: How far corners lie from where the stored poses put them, rms; NaN when no pose was given.
        reason: What speaks against the calibration; empty when nothing does.
    """

    rms_px: float
    free_px: float
    expected_px: float
    moved_px: float
    reason: str

    @property
    def ok(self) -> bool:
        """Nothing speaks against the calibration."""
        return not self.reason


def check_view(
    camera: CameraIntrinsics,
    view: BoardView,
    *,
    expected_px: float,
    T_camera_board: Pose | None = None,
    max_moved_px: float = MAX_MOVED_PX,
) -> Drift:
    """Return whether a fresh view agrees with a stored calibration.

    The lens has changed when the residual is 2.5 times the expected one, or 1.4 times both the expected one and the one
    that is left when focal length and principal point may follow this view. A camera that was pushed shows in neither,
    because the board's pose is fitted; where the board is known to stand still, give its pose.

    Args:
        camera: The stored intrinsics.
        view: The fresh view; tilted boards that fill much of the picture tell most.
        expected_px: The stored residual on held-out views.
        T_camera_board: Where the stored calibration puts the board, if that is known.
        max_moved_px: How far corners may lie from where that pose puts them.

    Raises:
        CalibrationError: The picture has another size than the calibration, or `expected_px` is not a positive number.
    """
    if view.size != (camera.width, camera.height):
        raise CalibrationError(
            f"the calibration holds at {camera.width} x {camera.height}, {view.image_id} is {view.size[0]} x "
            f"{view.size[1]}; take the picture at the calibrated size"
        )
    if not (np.isfinite(expected_px) and expected_px > 0):
        raise CalibrationError(f"`expected_px` must be the positive residual of the calibration, got {expected_px}")
    start = fit_pose(camera, view)
    rms, free = rms_of(view_residuals(camera, view, start)), _free_residual(camera, view, start)
    moved = float("nan")
    if T_camera_board is not None:  # a pose that puts the board behind the camera is infinitely far off
        moved = float(np.nan_to_num(rms_of(view_residuals(camera, view, T_camera_board)), nan=np.inf))
    reason = "; ".join(_reasons(rms, free, expected_px, moved, max_moved_px))
    return Drift(rms_px=rms, free_px=free, expected_px=expected_px, moved_px=moved, reason=reason)


def _reasons(rms: float, free: float, expected_px: float, moved: float, max_moved_px: float) -> list[str]:
    """Return what speaks against the calibration; `moved` is NaN where no pose was given."""
    reasons = []
    if rms > FLOOR_PX and (rms > TIMES_EXPECTED * expected_px or rms > TIMES_FREE * max(expected_px, free)):
        reasons.append(
            f"corners miss the camera model by {rms:.2f} px ({expected_px:.2f} expected, {free:.2f} with another focal "
            "length and principal point): the lens, its focus or the camera changed, or the board is not flat"
        )
    if moved > max_moved_px:
        reasons.append(f"corners moved by {moved:.1f} px (at most {max_moved_px:g}): camera or board was pushed")
    return reasons


def _free_residual(camera: CameraIntrinsics, view: BoardView, start: Pose) -> float:
    """Return the rms residual with the pose, a factor on both focal lengths and the principal point fitted."""

    def residuals(x: np.ndarray) -> np.ndarray:
        factor = float(np.exp(x[0]))
        moved = replace(
            camera, fx=camera.fx * factor, fy=camera.fy * factor, cx=camera.cx + 100 * x[1], cy=camera.cy + 100 * x[2]
        )
        pose = Pose.from_rotation_vector(x[3:6], x[6:9]) @ start
        return np.asarray(np.nan_to_num(view_residuals(moved, view, pose), nan=1e4).ravel())

    solved = least_squares(residuals, np.zeros(9), x_scale="jac", max_nfev=50)
    return rms_of(solved.fun.reshape(-1, 2))
