"""Kinematic offsets: the joint zeros or Denavit-Hartenberg values that make the board stand still.

One more set of unknowns in the joint refinement of camera and board (Hollerbach and Wampler, "The calibration index and
taxonomy of robot kinematic calibration methods", 1996; open loop, with the camera as the pose sensor). Some offsets
cannot be told from camera or board: the first joint's zero turns the board about the base, the last one's turns the
camera. A prior keeps these at zero, and `observed` says which they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from calibration.bundle_adjust import ArmModel
from calibration.evidence import Evidence
from calibration.hand_eye import HandEyeOptions, calibrate_hand_eye
from calibration.hand_eye_result import HandEye
from robot_rl.calibration_types import CalibrationFile
from robot_rl.errors import CalibrationError

OBSERVED = 0.5
ZERO_SIGMA_RAD = np.radians(2.0)
LENGTH_SIGMA_M = 2e-3


class KinematicModel(Protocol):
    """A forward map with corrections; J joints, P corrections."""

    @property
    def names(self) -> Sequence[str]:
        """What each correction is, with its unit at the end (`_rad`, `_m`)."""

    @property
    def n_joints(self) -> int:
        """J."""

    @property
    def sigma(self) -> np.ndarray:
        """How large each correction may be, one standard deviation [P]."""

    def forward(self, joint_position: np.ndarray, correction: np.ndarray) -> np.ndarray:
        """Return `T_base_tool` [N, 4, 4] for angles [N, J]."""


class JointZeros:
    """Any forward map with an offset added to each joint.

    Args:
        forward: Angles [J] rad to `T_base_tool` [4, 4], such as `robot_rl.hardware.kinematics.Kinematics.forward`.
        n_joints: J.
        sigma_rad: How far zeros may be off, one standard deviation [rad].
    """

    def __init__(
        self, forward: Callable[[np.ndarray], np.ndarray], n_joints: int, *, sigma_rad: float = ZERO_SIGMA_RAD
    ) -> None:
        self._forward, self.n_joints = forward, n_joints
        self.names = [f"joint_{i + 1}_zero_rad" for i in range(n_joints)]
        self.sigma = np.full(n_joints, sigma_rad)

    def forward(self, joint_position: np.ndarray, correction: np.ndarray) -> np.ndarray:
        """Return the tool's poses for angles plus offsets."""
        return np.stack([self._forward(q + correction) for q in joint_position])


class DhChain:
    """A chain of revolute joints by Denavit and Hartenberg (1955, distal): Rz(theta) Tz(d) Tx(a) Rx(alpha) per joint.

    Each joint has five corrections: to a, alpha, d and theta, and a turn beta about y after Hayati (1983), without
    which a small tilt between parallel axes would need a large a and d.

    Args:
        a: Link lengths [J] m.
        alpha: Twists [J] rad.
        d: Link offsets [J] m.
        theta: Joint zeros [J] rad, added to the angles.
        sigma_m: How far lengths may be off [m].
        sigma_rad: How far angles may be off [rad].
    """

    def __init__(
        self, *, a: Sequence[float], alpha: Sequence[float], d: Sequence[float], theta: Sequence[float],
        sigma_m: float = LENGTH_SIGMA_M, sigma_rad: float = ZERO_SIGMA_RAD,
    ) -> None:  # fmt: skip
        sizes = {len(a), len(alpha), len(d), len(theta)}
        if len(sizes) != 1:
            raise CalibrationError(
                f"`a`, `alpha`, `d`, `theta` must have one value per joint each, got {sorted(sizes)}"
            )
        self.n_joints = len(a)
        self._nominal = np.stack([a, alpha, d, theta, np.zeros(self.n_joints)], axis=1).astype(float)  # [J, 5]
        kinds = ("a_m", "alpha_rad", "d_m", "theta_rad", "beta_rad")
        self.names = [f"joint_{i + 1}_{kind}" for i in range(self.n_joints) for kind in kinds]
        self.sigma = np.array([sigma_m if name.endswith("_m") else sigma_rad for name in self.names])

    def forward(self, joint_position: np.ndarray, correction: np.ndarray) -> np.ndarray:
        """Return the tool's poses with corrected values."""
        values = self._nominal + np.asarray(correction).reshape(self.n_joints, 5)
        T = np.broadcast_to(np.eye(4), (len(joint_position), 4, 4))
        for j, (a, alpha, d, theta, beta) in enumerate(values):
            T = T @ _link(a, alpha, d, theta + joint_position[:, j], beta)
        return T


@dataclass(frozen=True, kw_only=True)
class KinematicOffsets:
    """What was found.

    Args:
        correction: To add, by name.
        sigma: One standard deviation of each.
        observed: Names of those that the views determine; the others rest on the prior at zero.
        before: Hand-eye calibration with no correction.
        after: Hand-eye calibration with the corrections.
    """

    correction: Mapping[str, float]
    sigma: Mapping[str, float]
    observed: Sequence[str]
    before: HandEye
    after: HandEye

    def to_file(self, *, date: str, device_serial: str = "", digest: str = "") -> CalibrationFile:
        """Return it as a calibration file; arguments as in `HandEye.to_file`, the serial is the arm's."""
        return CalibrationFile(
            kind="kinematics",
            values={**self.correction, "observed": ", ".join(self.observed)},
            frames={"T_base_tool": "tool -> base, after adding each correction to its joint"},
            date=date,
            device_serial=device_serial,
            method="joint robust refinement of offsets, camera and board, with a prior at zero",
            residuals={
                **self.after.held_out.residuals("heldout_board"),
                **self.before.held_out.residuals("uncorrected_heldout_board"),
            },
            image_digest=digest,
        )


def calibrate_kinematics(
    model: KinematicModel, joint_position: np.ndarray, evidence: Evidence, options: HandEyeOptions | None = None
) -> KinematicOffsets:
    """Find the corrections with which the board stands still.

    Args:
        model: The arm.
        joint_position: Angles in each view [N, J] rad.
        evidence: What each picture showed; corners, for anything below a millimetre.
        options: As for `calibrate_hand_eye`.

    Raises:
        CalibrationError: Angles of another number of joints or in degrees, fewer views than unknowns need, or as
            `calibrate_hand_eye`.
    """
    q = _checked(model, joint_position)
    none = np.zeros(len(model.names))
    before = calibrate_hand_eye(ArmModel.exact(model.forward(q, none)), evidence, options)
    arm = ArmModel(
        poses=lambda p: model.forward(q, p), start=none, sigma=model.sigma, scale=np.maximum(0.1 * model.sigma, 1e-6)
    )
    after = calibrate_hand_eye(arm, evidence, options)
    return KinematicOffsets(
        correction=dict(zip(model.names, after.arm.tolist(), strict=True)),
        sigma=dict(zip(model.names, after.sigma_arm.tolist(), strict=True)),
        observed=[name for name, share in zip(model.names, after.observed, strict=True) if share > OBSERVED],
        before=before,
        after=after,
    )


def _checked(model: KinematicModel, joint_position: np.ndarray) -> np.ndarray:
    """Return angles [N, J] rad that are enough, or raise."""
    q = np.asarray(joint_position, np.float64)
    if q.ndim != 2 or q.shape[1] != model.n_joints or not np.isfinite(q).all():
        raise CalibrationError(f"`joint_position` must be finite [N, {model.n_joints}] rad, got shape {q.shape}")
    if np.abs(q).max() > 4 * np.pi:
        raise CalibrationError(
            f"`joint_position` must be radians, got values up to {np.abs(q).max():.0f}; if these are degrees, "
            f"convert them"
        )
    n_unknown = 12 + len(model.names)
    if 6 * len(q) < 2 * n_unknown:
        raise CalibrationError(
            f"{len(q)} views are too few for {n_unknown} unknowns; capture at least {-(-2 * n_unknown // 6)}, "
            "with every joint moved"
        )
    return q


def _link(a: float, alpha: float, d: float, theta: np.ndarray, beta: float) -> np.ndarray:
    """Return Rz(theta) Tz(d) Tx(a) Rx(alpha) Ry(beta) for angles theta [N], [N, 4, 4]."""
    c, s = np.cos(theta), np.sin(theta)
    T = np.zeros((len(theta), 4, 4))
    T[:, 0, 0], T[:, 0, 1], T[:, 1, 0], T[:, 1, 1] = c, -s, s, c
    T[:, 0, 3], T[:, 1, 3], T[:, 2, 3], T[:, 2, 2], T[:, 3, 3] = a * c, a * s, d, 1.0, 1.0
    ca, sa, cb, sb = np.cos(alpha), np.sin(alpha), np.cos(beta), np.sin(beta)
    turn = np.eye(4)
    turn[:3, :3] = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]]) @ np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    return np.asarray(T @ turn)
