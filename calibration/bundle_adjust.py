"""Joint refinement of camera, board, and whatever else is in doubt, on the residuals of all views at once.

Minimises a robust sum of squares over X (the camera), Z (the board) and, where asked for, the parameters of the arm
(its clock, its joint zeros), a correction of each arm pose, and the camera's intrinsics: Strobl and Hirzinger, "Optimal
Hand-Eye Calibration" (2006), with the reprojection error as the metric. `A_i X T_camera_board_i = Z` throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from calibration.evidence import Evidence, view_rms
from calibration.hand_eye_starts import Start
from calibration.motion import invert, small_transform
from robot_rl.calibration_types import CameraIntrinsics
from robot_rl.errors import CalibrationError

_POSE_SCALE = np.array([1e-2] * 3 + [1e-2] * 3)
_STEP = 1e-7  # radians, metres, seconds: residuals change by some 1e-4 standard deviations
_ROBUST_SIGMAS = 5.0  # whole views are rejected elsewhere; this is for single corners


@dataclass(frozen=True, kw_only=True)
class ArmModel:
    """The arm's poses as a function of parameters that are in doubt (clock offset, joint zeros); P parameters.

    Args:
        poses: Parameters [P] to arm poses [N, 4, 4].
        start: Where to begin [P].
        sigma: How far each may be from zero, one standard deviation; infinite for no prior.
        scale: Typical size of each, for the solver's steps.
    """

    poses: Callable[[np.ndarray], np.ndarray]
    start: np.ndarray
    sigma: np.ndarray
    scale: np.ndarray

    @classmethod
    def exact(cls, A: np.ndarray) -> ArmModel:
        """Return an arm whose poses [N, 4, 4] are not in doubt."""
        none = np.zeros(0)
        return cls(poses=lambda _: A, start=none, sigma=none, scale=none)

    def select(self, views: np.ndarray) -> ArmModel:
        """Return the same for some of the views, int [M]."""
        return replace(self, poses=lambda p: self.poses(p)[views])

    def inverted(self) -> ArmModel:
        """Return the arm as seen from its tool: the base's pose in the tool's frame."""
        return replace(self, poses=lambda p: invert(self.poses(p)))


@dataclass(frozen=True, kw_only=True)
class BundleOptions:
    """What is refined besides camera and board.

    Args:
        arm_position_sigma_m: Let each arm pose move by about this much [m]; zero holds them fixed.
        arm_rotation_sigma_rad: The same for its rotation [rad].
        free_intrinsics: Refine focal lengths and principal point too (corners only); distortion stays.
        loss: scipy's robust loss, beyond five robust standard deviations; `linear` for plain least squares.
    """

    arm_position_sigma_m: float = 0.0
    arm_rotation_sigma_rad: float = 0.0
    free_intrinsics: bool = False
    loss: str = "huber"

    def __post_init__(self) -> None:
        if (self.arm_position_sigma_m > 0) != (self.arm_rotation_sigma_rad > 0):
            raise CalibrationError(
                "`arm_position_sigma_m` and `arm_rotation_sigma_rad` go together: both zero (arm exact) or both "
                "positive, "
                f"got {self.arm_position_sigma_m} and {self.arm_rotation_sigma_rad}"
            )


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What the refinement found; N views, P arm parameters.

    `view_rms` [N] is in standard deviations of the evidence. The sigmas are one standard deviation from the curvature
    at the optimum, scaled by the misfit: how far noise of this size would move the answer, not how wrong a model is.
    `observed` [P] is how much of each arm parameter's certainty comes from the views (1) and not from its prior (0).
    """

    X: np.ndarray
    Z: np.ndarray
    A: np.ndarray
    intrinsics: CameraIntrinsics | None
    arm: np.ndarray
    view_rms: np.ndarray
    sigma_position_m: float
    sigma_rotation_rad: float
    sigma_arm: np.ndarray
    observed: np.ndarray


def adjust(evidence: Evidence, arm: ArmModel, start: Start, options: BundleOptions | None = None) -> Bundle:
    """Refine a start.

    Args:
        evidence: Corners or board poses of N views.
        arm: The arm's poses in the same N views.
        start: Camera and board to begin from, within some centimetres and degrees.
        options: What is free.

    Raises:
        CalibrationError: Intrinsics are to be refined from poses alone, or the solver found nothing finite.
    """
    problem = _Problem(evidence, arm, start, BundleOptions() if options is None else options)
    x = problem.solve()
    return problem.bundle(x)


class _Problem:
    """Packs and unpacks the vector of unknowns: [X 6, Z 6, arm P, intrinsics 0 or 4, arm corrections 0 or 6 N]."""

    def __init__(self, evidence: Evidence, arm: ArmModel, start: Start, options: BundleOptions) -> None:
        if options.free_intrinsics and evidence.intrinsics is None:
            raise CalibrationError("intrinsics cannot be refined from board poses alone; give the corners")
        self.evidence, self.arm, self.start, self.options = evidence, arm, start, options
        self.n_views, self.n_arm = len(evidence.T_camera_board), len(arm.start)
        self.n_camera = 4 if options.free_intrinsics else 0
        self.n_dense = 12 + self.n_arm + self.n_camera
        self.corrects = options.arm_position_sigma_m > 0
        self.n = self.n_dense + (6 * self.n_views if self.corrects else 0)
        rotation, position = options.arm_rotation_sigma_rad, options.arm_position_sigma_m
        self.correction_sigma = np.array([rotation] * 3 + [position] * 3)

    def solve(self) -> np.ndarray:
        """Return the optimum [n]."""
        x = np.zeros(self.n)
        x[12 : 12 + self.n_arm] = self.arm.start
        scale = np.concatenate([_POSE_SCALE, _POSE_SCALE, self.arm.scale, np.full(self.n_camera, 1e-2)])
        if self.corrects:
            scale = np.concatenate([scale, np.tile(self.correction_sigma, self.n_views)])
        spread = 1.4826 * float(np.median(np.abs(self.evidence.residuals(self.boards(x), self.camera(x)))))
        found = least_squares(
            self.residuals, x, loss=self.options.loss, f_scale=_ROBUST_SIGMAS * max(spread, 1.0), x_scale=scale,
            jac=self._jacobian, max_nfev=200,
        )  # fmt: skip
        if not np.isfinite(found.x).all():
            raise CalibrationError("the refinement diverged; check units, frames and the board's size")
        self.jacobian = np.asarray(found.jac)
        return np.asarray(found.x)

    def residuals(self, x: np.ndarray) -> np.ndarray:
        """Return the views' residuals, then the priors'."""
        parts = [self.evidence.residuals(self.boards(x), self.camera(x)), self._arm_prior(x)]
        if self.corrects:
            parts.append((x[self.n_dense :].reshape(-1, 6) / self.correction_sigma).ravel())
        return np.concatenate(parts)

    def boards(self, x: np.ndarray) -> np.ndarray:
        """Return the board poses that the unknowns imply [N, 4, 4]."""
        return np.asarray(invert(self.arms(x) @ self.camera_pose(x)) @ self.board_pose(x))

    def camera_pose(self, x: np.ndarray) -> np.ndarray:
        """Return the camera."""
        return np.asarray(self.start.X @ small_transform(x[:6])[0])

    def board_pose(self, x: np.ndarray) -> np.ndarray:
        """Return the board."""
        return np.asarray(self.start.Z @ small_transform(x[6:12])[0])

    def arms(self, x: np.ndarray) -> np.ndarray:
        """Return the arm's poses [N, 4, 4]."""
        A = self.arm.poses(x[12 : 12 + self.n_arm])
        return A @ small_transform(x[self.n_dense :].reshape(-1, 6)) if self.corrects else A

    def camera(self, x: np.ndarray) -> CameraIntrinsics | None:
        """Return the intrinsics; unknowns are relative to the start."""
        camera = self.evidence.intrinsics
        if not self.n_camera or camera is None:
            return camera
        fx, fy, cx, cy = x[12 + self.n_arm : self.n_dense]
        return replace(
            camera, fx=camera.fx * (1 + fx), fy=camera.fy * (1 + fy),
            cx=camera.cx + camera.fx * cx, cy=camera.cy + camera.fy * cy,
        )  # fmt: skip

    def bundle(self, x: np.ndarray) -> Bundle:
        """Return the optimum by name, with its uncertainty."""
        residuals = self.evidence.residuals(self.boards(x), self.camera(x))
        misfit = max(1.4826 * float(np.median(np.abs(residuals))), 1e-12)
        J = self.jacobian
        covariance = np.linalg.pinv(J.T @ J, rcond=1e-14) * misfit**2
        sigma = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        sigma[~(np.abs(J).max(axis=0) > 0)] = np.inf  # nothing depends on it; the pseudo-inverse would say zero
        arm = slice(12, 12 + self.n_arm)
        return Bundle(
            X=self.camera_pose(x), Z=self.board_pose(x), A=self.arms(x), intrinsics=self.camera(x), arm=x[arm],
            view_rms=view_rms(self.evidence, residuals),
            sigma_position_m=float(np.linalg.norm(sigma[3:6])), sigma_rotation_rad=float(np.linalg.norm(sigma[:3])),
            sigma_arm=sigma[arm],
            observed=1.0 - np.minimum(np.diag(covariance)[arm] / misfit**2 / self.arm.sigma**2, 1.0),
        )  # fmt: skip

    def _arm_prior(self, x: np.ndarray) -> np.ndarray:
        known = np.isfinite(self.arm.sigma)
        return np.asarray((x[12 : 12 + self.n_arm] / self.arm.sigma)[known])

    def _jacobian(self, x: np.ndarray) -> np.ndarray:
        """Return d(residuals)/d(unknowns) by differences; the corrections of all views are moved at once."""
        base = self.residuals(x)
        J = np.zeros((len(base), self.n))
        for i in range(self.n_dense):
            J[:, i] = (self.residuals(x + _STEP * np.eye(1, self.n, i)[0]) - base) / _STEP
        n_seen, view = len(self.evidence.view), self.evidence.view
        for k in range(6 if self.corrects else 0):
            step = np.zeros(self.n)
            step[self.n_dense + k :: 6] = _STEP
            moved = (self.residuals(x + step) - base)[:n_seen] / _STEP
            J[np.arange(n_seen), self.n_dense + 6 * view + k] = moved
            own = np.arange(self.n_views) * 6 + k
            J[len(base) - 6 * self.n_views + own, self.n_dense + own] = 1 / self.correction_sigma[k]
        return J
