"""What a hand-eye calibration found, how sure it is, and how it is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from calibration.arm_noise import ArmNoise
from calibration.board_scatter import BoardScatter
from calibration.hand_eye_starts import Agreement
from robot_rl.calibration_types import CalibrationFile, CameraIntrinsics, Pose

Mount = Literal["eye_in_hand", "eye_to_hand"]
# Frame that carries the camera, frame that carries the board.
CARRIERS: Mapping[str, tuple[str, str]] = {"eye_in_hand": ("tool", "base"), "eye_to_hand": ("base", "tool")}


@dataclass(frozen=True, kw_only=True)
class HandEye:
    """Camera and board of one mount; N views were given.

    Args:
        mount: `eye_in_hand` (camera on the tool, board in the room) or `eye_to_hand` (the other way round).
        camera: `T_tool_camera`, or `T_base_camera` for eye-to-hand.
        board: `T_base_board`, or `T_tool_board`.
        kept: Which views were used, bool [N].
        rejected: Why the others were not, by index.
        agreement: How far the closed-form methods lie apart.
        scatter: Of the board over the kept views, fitted.
        held_out: Of the board over the kept views, each predicted by a fit that did not see it.
        rms_px: Reprojection error over the kept views, arm poses corrected by what their noise allows [px]; `None`
            from board poses alone.
        held_out_rms_px: Reprojection error of views that were not fitted, at the arm poses as given [px].
        sigma_position_m: One standard deviation of the camera's place [m], from the curvature at the optimum.
        sigma_rotation_rad: Of its rotation [rad].
        arm: The arm's parameters (clock offset, joint zeros), if any were free.
        sigma_arm: One standard deviation of each.
        observed: For each, how much of its certainty comes from the views and not from the prior, 0 to 1.
        intrinsics: The camera, refined where that was asked for.
        arm_noise: How inaccurate the arm's poses are, as far as it was given or estimated.
        board_error_m: How far each view puts the board from where it is [N] m.
    """

    mount: Mount
    camera: Pose
    board: Pose
    kept: np.ndarray
    rejected: Mapping[int, str]
    agreement: Agreement
    scatter: BoardScatter
    held_out: BoardScatter
    rms_px: float | None
    held_out_rms_px: float | None
    sigma_position_m: float
    sigma_rotation_rad: float
    arm: np.ndarray
    sigma_arm: np.ndarray
    observed: np.ndarray
    intrinsics: CameraIntrinsics | None
    arm_noise: ArmNoise
    board_error_m: np.ndarray

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two poses, such as `T_tool_camera` and `T_base_board`."""
        camera, board = CARRIERS[self.mount]
        return f"T_{camera}_camera", f"T_{board}_board"

    def residuals(self) -> dict[str, float]:
        """Return what was left over, units in the names."""
        position, angle = self.agreement.typical
        values = {
            "n_views": float(self.kept.sum()),
            "n_rejected": float(len(self.rejected)),
            **self.held_out.residuals("heldout_board"),
            **self.scatter.residuals("fitted_board"),
            "methods_apart_mm": 1e3 * position,
            "methods_apart_deg": float(np.degrees(angle)),
            "sigma_position_mm": 1e3 * self.sigma_position_m,
            "sigma_rotation_deg": float(np.degrees(self.sigma_rotation_rad)),
            "arm_noise_mm": 1e3 * self.arm_noise.position_m,
            "arm_noise_deg": float(np.degrees(self.arm_noise.rotation_rad)),
        }
        if self.rms_px is not None and self.held_out_rms_px is not None:
            values |= {"heldout_rms_px": self.held_out_rms_px, "fitted_rms_px": self.rms_px}
        return values

    def to_file(self, *, date: str, device_serial: str = "", digest: str = "") -> CalibrationFile:
        """Return it as a calibration file.

        Args:
            date: ISO 8601 with a time zone.
            device_serial: Of the camera.
            digest: SHA-256 of the captures.
        """
        camera, board = self.names
        on_camera, on_board = CARRIERS[self.mount]
        return CalibrationFile(
            kind="hand_eye",
            values={camera: self.camera, board: self.board, "mount": self.mount},
            frames={
                camera: f"camera (optical: x right, y down, z forward) -> {on_camera}",
                board: f"board -> {on_board}",
            },
            date=date,
            device_serial=device_serial,
            method="closed-form starts, least median of squares over views, joint robust refinement",
            residuals=self.residuals(),
            image_digest=digest,
        )
