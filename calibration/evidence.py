"""What the pictures say about where the camera saw the board, as residuals in units of their own noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from calibration.board_pose import Corners, board_pose
from calibration.motion import rotation_vectors, stack
from robot_rl.calibration_types import CameraIntrinsics, Pose
from robot_rl.errors import CalibrationError

CORNER_SIGMA_PX = 0.3
BOARD_POSITION_SIGMA_M = 1e-3
BOARD_ROTATION_SIGMA_RAD = np.radians(0.1)
_BEHIND_PX = 1e3


class Evidence(Protocol):
    """N views of the board; R residuals in all."""

    @property
    def T_camera_board(self) -> np.ndarray:  # noqa: N802 - a frame's name
        """Each view's own board pose [N, 4, 4]."""

    @property
    def view(self) -> np.ndarray:
        """The view each residual belongs to, int [R]."""

    @property
    def intrinsics(self) -> CameraIntrinsics | None:
        """The camera, where the residuals are pixels."""

    def residuals(self, T_camera_board: np.ndarray, intrinsics: CameraIntrinsics | None) -> np.ndarray:
        """Return residuals [R], in standard deviations, if the boards were at these poses [N, 4, 4]."""

    def select(self, views: np.ndarray) -> Evidence:
        """Return the same for some of the views, int [M]."""


class CornerEvidence:
    """Corners of the board in pictures: the residual is the reprojection error.

    Args:
        views: Corners and board points of each picture.
        intrinsics: The camera.
        sigma_px: Standard deviation of a corner's place [px].

    Raises:
        CalibrationError: A view shows too little, or is of another size than the intrinsics.
    """

    def __init__(
        self, views: Sequence[Corners], intrinsics: CameraIntrinsics, *, sigma_px: float = CORNER_SIGMA_PX
    ) -> None:
        self.views, self.intrinsics, self.sigma_px = list(views), intrinsics, sigma_px
        _check_sizes(self.views, intrinsics)
        self.T_camera_board = stack([board_pose(view, intrinsics)[0] for view in self.views])
        counts = [len(view.corners) for view in self.views]
        self._corner_view = np.repeat(np.arange(len(self.views)), counts)
        self.view = np.repeat(self._corner_view, 2)
        self._points = np.concatenate([view.board_points for view in self.views])
        self._corners = np.concatenate([view.corners for view in self.views])

    def residuals(self, T_camera_board: np.ndarray, intrinsics: CameraIntrinsics | None) -> np.ndarray:
        """Return reprojection errors in standard deviations; corners behind the camera count as far off."""
        T = T_camera_board[self._corner_view]
        camera = self.intrinsics if intrinsics is None else intrinsics
        pixels = camera.project(np.einsum("kij,kj->ki", T[:, :3, :3], self._points) + T[:, :3, 3])
        error = np.where(np.isfinite(pixels), pixels - self._corners, _BEHIND_PX)
        return np.asarray(error.ravel() / self.sigma_px)

    def select(self, views: np.ndarray) -> CornerEvidence:
        """Return the same for some of the views."""
        return CornerEvidence([self.views[i] for i in views], self.intrinsics, sigma_px=self.sigma_px)


class PoseEvidence:
    """Board poses alone, for data without corners: the residual is the shift and the turn to where the board was seen.

    Args:
        T_camera_board: Board poses [N, 4, 4].
        position_sigma_m: Standard deviation of a board pose's position [m].
        rotation_sigma_rad: Of its rotation [rad].
    """

    intrinsics: CameraIntrinsics | None = None

    def __init__(
        self,
        T_camera_board: np.ndarray,
        *,
        position_sigma_m: float = BOARD_POSITION_SIGMA_M,
        rotation_sigma_rad: float = BOARD_ROTATION_SIGMA_RAD,
    ) -> None:
        self.T_camera_board = T_camera_board
        self.position_sigma_m, self.rotation_sigma_rad = position_sigma_m, rotation_sigma_rad
        self.view = np.repeat(np.arange(len(T_camera_board)), 6)

    @classmethod
    def from_poses(cls, poses: Sequence[Pose]) -> PoseEvidence:
        """Build from poses with the usual noise."""
        return cls(stack(poses))

    def residuals(self, T_camera_board: np.ndarray, intrinsics: CameraIntrinsics | None) -> np.ndarray:
        """Return shifts and turns in standard deviations."""
        seen = self.T_camera_board
        shift = (T_camera_board[:, :3, 3] - seen[:, :3, 3]) / self.position_sigma_m
        turn = rotation_vectors(T_camera_board[:, :3, :3] @ np.swapaxes(seen[:, :3, :3], 1, 2))
        return np.concatenate([shift, turn / self.rotation_sigma_rad], axis=1).ravel()

    def select(self, views: np.ndarray) -> PoseEvidence:
        """Return the same for some of the views."""
        return PoseEvidence(
            self.T_camera_board[views],
            position_sigma_m=self.position_sigma_m,
            rotation_sigma_rad=self.rotation_sigma_rad,
        )


def view_rms(evidence: Evidence, residuals: np.ndarray) -> np.ndarray:
    """Return the root mean square residual of each view [N], in standard deviations."""
    n = len(evidence.T_camera_board)
    total = np.bincount(evidence.view, weights=residuals**2, minlength=n)
    return np.asarray(np.sqrt(total / np.bincount(evidence.view, minlength=n)))


def _check_sizes(views: Sequence[Corners], intrinsics: CameraIntrinsics) -> None:
    want = intrinsics.width, intrinsics.height
    for view in views:
        size = getattr(view, "size", want)
        if tuple(size) != want:
            raise CalibrationError(
                f"picture {view.image_id!r} is {size[0]} x {size[1]}, the intrinsics hold for {want[0]} x {want[1]}; "
                "calibrate the camera at the size that is used"
            )
