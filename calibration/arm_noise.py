"""How inaccurate the arm's own poses are, told apart from the noise of the corners.

Each view's board pose d_i differs from where camera, board and arm put it by the arm's error (covariance S, the same in
all views) and by what corner noise does to a pose (covariance C_i, from the view's own Jacobian). S is the diagonal
matrix of one position and one rotation variance that makes all d_i most likely, under N(0, S + C_i).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from calibration.bundle_adjust import Bundle
from calibration.evidence import Evidence
from calibration.motion import invert, rotation_vectors, small_transform

_STEP = 1e-5
_POSITION_M = 5e-4
_ROTATION_RAD = np.radians(0.05)
_LEAST_GAIN = 6.0  # twice the log likelihood, for two more parameters: p = 0.05
_TO_SIGMA = 1.4826  # of a median of absolute values


@dataclass(frozen=True)
class ArmNoise:
    """One standard deviation of an arm pose along each axis [m] and about each [rad]; zero for an exact arm."""

    position_m: float = 0.0
    rotation_rad: float = 0.0


def estimate_arm_noise(A: np.ndarray, evidence: Evidence, bundle: Bundle) -> ArmNoise:
    """Return the arm's noise, exact where the corners' noise explains the views as well.

    Args:
        A: The arm's poses as given [N, 4, 4].
        evidence: The views.
        bundle: A refinement of them.
    """
    errors = _tool_errors(A, evidence, bundle)
    covariances = _pose_covariances(evidence, bundle)
    free = len(errors) / max(len(errors) - 2, 1)  # camera and board took twelve degrees of freedom from 6 N

    def cost(log_sigma: np.ndarray) -> float:
        rotation, position = np.exp(2 * np.clip(log_sigma, -30, 5))
        return _cost(errors * np.sqrt(free), covariances + np.diag([rotation] * 3 + [position] * 3))

    exact = _cost(errors * np.sqrt(free), covariances)
    found = minimize(cost, np.log([_ROTATION_RAD, _POSITION_M]), method="Nelder-Mead", options={"xatol": 1e-2})
    if exact - float(found.fun) < _LEAST_GAIN:
        return ArmNoise()
    rotation, position = np.exp(found.x)
    return ArmNoise(position_m=float(max(position, 1e-6)), rotation_rad=float(max(rotation, 1e-6)))


def _tool_errors(A: np.ndarray, evidence: Evidence, bundle: Bundle) -> np.ndarray:
    """Return how each arm pose must be changed for its board pose to fit, (turn, shift) [N, 6]."""
    wanted = bundle.Z @ invert(evidence.T_camera_board) @ invert(bundle.X)
    change = invert(A) @ wanted
    return np.concatenate([rotation_vectors(change[:, :3, :3]), change[:, :3, 3]], axis=1)


def _pose_covariances(evidence: Evidence, bundle: Bundle) -> np.ndarray:
    """Return what the evidence's own noise does to each tool pose [N, 6, 6]."""
    seen = evidence.T_camera_board
    wanted = bundle.Z @ invert(seen) @ invert(bundle.X)
    base = evidence.residuals(seen, bundle.intrinsics)
    n = len(seen)
    J = np.zeros((len(base), 6))
    for k in range(6):
        step = small_transform(_STEP * np.eye(6)[k])
        moved = invert(wanted @ step @ bundle.X) @ bundle.Z
        J[:, k] = (evidence.residuals(moved, bundle.intrinsics) - base) / _STEP
    noise = max(_TO_SIGMA * float(np.median(np.abs(base))), 1e-6)
    information = np.zeros((n, 6, 6))
    np.add.at(information, evidence.view, J[:, :, None] * J[:, None, :])
    return np.asarray(np.linalg.inv(information) * noise**2)


def _cost(errors: np.ndarray, covariances: np.ndarray) -> float:
    """Return minus twice the log likelihood of errors [N, 6], less a constant."""
    solved = np.linalg.solve(covariances, errors[:, :, None])[:, :, 0]
    return float(((errors * solved).sum(axis=1) + np.linalg.slogdet(covariances)[1]).sum())
