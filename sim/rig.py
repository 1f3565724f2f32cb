"""A simulated calibration rig: an arm, a camera and a board of which every pose is known.

This file does without pictures: corners are projected and given noise, so that statistics over hundreds of
calibrations take seconds. `sim.board_pictures` renders what the camera sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robot_rl.calibration_types import CameraIntrinsics, Pose
from robot_rl.errors import SimulationError

_TRIES = 1000


@dataclass(frozen=True, kw_only=True)
class RigShot:
    """One stop of the arm.

    Args:
        T_base_tool: Where the arm is.
        T_camera_board: Where the board is, as the camera sees it.
        corners: The board's corners with noise, float64 [K, 2] [px].
        ids: Rows of the board's points that these are, int64 [K].
    """

    T_base_tool: Pose
    T_camera_board: Pose
    corners: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Viewpoints:
    """From where the camera looks at the board.

    Args:
        distance_m: Nearest and farthest distance from the board's middle.
        tilt_rad: Nearest and farthest angle between line of sight and the board's normal.
        roll_rad: Largest turn about the line of sight.
        aim_m: How far from the board's middle the camera looks, at most.
    """

    distance_m: tuple[float, float] = (0.35, 0.6)
    tilt_rad: tuple[float, float] = (0.1, 0.7)
    roll_rad: float = 1.0
    aim_m: float = 0.05

    def sample(self, middle: np.ndarray, rng: np.random.Generator) -> Pose:
        """Return a `T_camera_board` that looks at the board's front, near `middle` [3]."""
        tilt, turn = rng.uniform(*self.tilt_rad), rng.uniform(0, 2 * np.pi)
        # The board's z points into the board, so the camera is at negative z and looks along positive z.
        away = np.array([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), -np.cos(tilt)])
        target = middle + np.append(rng.uniform(-self.aim_m, self.aim_m, 2), 0.0)
        forward = -away
        right = np.cross(np.array([0.0, 1.0, 0.0]), forward)
        right /= np.linalg.norm(right)
        axes = np.stack([right, np.cross(forward, right), forward], axis=1)  # the camera's axes in the board's frame
        roll = Pose.from_rotation_vector([0.0, 0.0, rng.uniform(-self.roll_rad, self.roll_rad)], np.zeros(3))
        T_board_camera = Pose(axes, target + rng.uniform(*self.distance_m) * away) @ roll
        return T_board_camera.inverse()


@dataclass(frozen=True, kw_only=True)
class SimulatedRig:
    """An arm with a camera on its tool before a fixed board, or with a board on its tool before a fixed camera.

    Args:
        intrinsics: The camera.
        board_points: The board's corners in its frame, float64 [N, 3] [m].
        eye_in_hand: The camera rides on the tool; otherwise the board does.
        T_hand_eye: `T_tool_camera` with the eye in the hand, else `T_base_camera`.
        T_board: `T_base_board` with the eye in the hand, else `T_tool_board`.
        viewpoints: From where the board is seen.
    """

    intrinsics: CameraIntrinsics
    board_points: np.ndarray
    eye_in_hand: bool
    T_hand_eye: Pose
    T_board: Pose
    viewpoints: Viewpoints = Viewpoints()

    def shots(self, count: int, *, seed: int, noise_px: float = 0.3, margin_px: float = 5.0) -> list[RigShot]:
        """Return stops of the arm at which the whole board is in the picture.

        Args:
            count: How many.
            seed: Decides poses and noise.
            noise_px: Standard deviation of the noise on each coordinate of a corner.
            margin_px: How far inside the picture every corner must be.

        Raises:
            SimulationError: No viewpoint shows the whole board.
        """
        rng = np.random.default_rng(seed)
        return [self.shot(self._viewpoint(rng, margin_px), rng, noise_px=noise_px) for _ in range(count)]

    def shot(self, T_camera_board: Pose, rng: np.random.Generator, *, noise_px: float = 0.3) -> RigShot:
        """Return the stop at which the camera sees the board at `T_camera_board`; only corners in the picture."""
        exact = self.intrinsics.project(T_camera_board.apply(self.board_points))
        ids = np.flatnonzero(_inside(exact, self.intrinsics, 0.0))
        corners = exact[ids] + noise_px * rng.standard_normal((len(ids), 2))
        return RigShot(
            T_base_tool=self.tool_pose(T_camera_board), T_camera_board=T_camera_board, corners=corners, ids=ids
        )

    def tool_pose(self, T_camera_board: Pose) -> Pose:
        """Return the `T_base_tool` at which the camera sees the board at `T_camera_board`."""
        if self.eye_in_hand:
            return self.T_board @ T_camera_board.inverse() @ self.T_hand_eye.inverse()
        return self.T_hand_eye @ T_camera_board @ self.T_board.inverse()

    def camera_board(self, T_base_tool: Pose) -> Pose:
        """Return the `T_camera_board` of an arm pose."""
        if self.eye_in_hand:
            return self.T_hand_eye.inverse() @ T_base_tool.inverse() @ self.T_board
        return self.T_hand_eye.inverse() @ T_base_tool @ self.T_board

    def _viewpoint(self, rng: np.random.Generator, margin_px: float) -> Pose:
        middle = 0.5 * (self.board_points.min(axis=0) + self.board_points.max(axis=0))
        for _ in range(_TRIES):
            pose = self.viewpoints.sample(middle, rng)
            if _inside(self.intrinsics.project(pose.apply(self.board_points)), self.intrinsics, margin_px).all():
                return pose
        raise SimulationError(
            f"none of {_TRIES} viewpoints shows the whole board; look from farther away than "
            f"{self.viewpoints.distance_m} m or take a smaller board"
        )


def with_outliers(shots: Sequence[RigShot], fraction: float, *, seed: int) -> tuple[list[RigShot], list[int]]:
    """Return the shots with some arm poses replaced by wrong ones, and which those are.

    A wrong pose is off by 20 to 100 mm and 5 to 30 degrees, as when a stop was read before the arm had settled or
    belongs to another picture.

    Args:
        shots: Good ones.
        fraction: How many to spoil, rounded.
        seed: Decides which and how.
    """
    rng = np.random.default_rng(seed)
    wrong = sorted(int(i) for i in rng.choice(len(shots), size=round(fraction * len(shots)), replace=False))
    spoilt = list(shots)
    for i in wrong:
        axis, way = rng.standard_normal(3), rng.standard_normal(3)
        turn = np.deg2rad(rng.uniform(5, 30)) * axis / np.linalg.norm(axis)
        error = Pose.from_rotation_vector(turn, rng.uniform(0.02, 0.1) * way / np.linalg.norm(way))
        shot = shots[i]
        spoilt[i] = RigShot(
            T_base_tool=shot.T_base_tool @ error, T_camera_board=shot.T_camera_board, corners=shot.corners, ids=shot.ids
        )
    return spoilt, wrong


def _inside(pixels: np.ndarray, camera: CameraIntrinsics, margin: float) -> np.ndarray:
    """Return which pixels [K, 2] are in the picture; one that could not be projected is not."""
    upper = np.array([camera.width, camera.height]) - 1 - margin
    return np.asarray(((pixels >= margin) & (pixels <= upper)).all(axis=1))
