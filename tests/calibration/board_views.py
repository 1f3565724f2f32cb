"""Rendered pictures of a board that is held before a camera, for sessions."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from calibration.boards import BoardSpec
from calibration.printing import draw_board
from robot_rl.calibration_types import CameraIntrinsics, Pose
from sim.board_pictures import BoardPictures

BOARD = BoardSpec(kind="charuco", columns=6, rows=5, square_m=0.04, marker_m=0.03)
CAMERA = CameraIntrinsics(model="pinhole", width=320, height=240, fx=300.0, fy=299.0, cx=162.0, cy=118.0)


def pictures_of(board: BoardSpec = BOARD, camera: CameraIntrinsics = CAMERA) -> BoardPictures:
    """Return the renderer; close it."""
    drawn = draw_board(board, pixels_per_square=60)
    return BoardPictures(drawn.pixels, drawn.size_m, drawn.origin_m, camera, oversampling=2)


def held(
    x: float = 0.0, y: float = 0.0, z: float = 0.4, *, right: float = 0.0, lower: float = 0.0, roll: float = 0.0
) -> Pose:
    """Return `T_camera_board` of a board whose middle is at x, y, z [m].

    Args:
        x: To the right.
        y: Down.
        z: Away.
        right: By how much its right side is nearer [deg].
        lower: By how much its lower side is nearer [deg].
        roll: Turn in the picture [deg].
    """
    rotation = Rotation.from_euler("yxz", [right, -lower, roll], degrees=True).as_matrix()
    middle = np.array([*BOARD.size_m, 0.0]) / 2
    return Pose(rotation, np.array([x, y, z]) - rotation @ middle)
