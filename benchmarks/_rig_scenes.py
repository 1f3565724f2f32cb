"""Boards, cameras and views of known truth for the calibration benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from calibration.captures import BoardSpec, BoardView
from calibration.printing import draw_board
from robot_rl.calibration_types import CameraIntrinsics, Pose
from sim.board_pictures import BoardPictures
from sim.rig import RigShot, SimulatedRig, Viewpoints

CHARUCO = BoardSpec(kind="charuco", columns=8, rows=5, square_m=0.04, marker_m=0.03)
CHESSBOARD = BoardSpec(kind="chessboard", columns=10, rows=7, square_m=0.03)
APRILTAG = BoardSpec(
    kind="grid", columns=5, rows=4, square_m=0.05, marker_m=0.04, dictionary="DICT_APRILTAG_36h11"
)  # fmt: skip
PINHOLE = CameraIntrinsics(
    model="pinhole", width=640, height=480, fx=535.0, fy=533.0, cx=325.0, cy=236.0,
    distortion=(-0.28, 0.03, 1e-3, -5e-4, 0.1),
)  # fmt: skip
RATIONAL = replace(PINHOLE, model="rational", distortion=(0.3, -0.1, 1e-3, 5e-4, 0.02, 0.5, -0.1, 0.01))
FISHEYE = CameraIntrinsics(
    model="fisheye",
    width=640,
    height=480,
    fx=300.0,
    fy=301.0,
    cx=322.0,
    cy=238.0,
    distortion=(0.03, -0.01, 2e-3, -1e-3),
)


def rig(camera: CameraIntrinsics, board: BoardSpec, viewpoints: Viewpoints) -> SimulatedRig:
    """Return an arm with the camera on its tool before a board on the table."""
    return SimulatedRig(
        intrinsics=camera, board_points=board.object_points, eye_in_hand=True, viewpoints=viewpoints,
        T_hand_eye=Pose.from_rotation_vector([0.1, -0.05, 1.5], [0.03, -0.05, 0.06]),
        T_board=Pose.from_rotation_vector([np.pi, 0.0, 0.2], [0.5, 0.1, 0.0]),
    )  # fmt: skip


def as_views(shots: Sequence[RigShot], board: BoardSpec, camera: CameraIntrinsics) -> list[BoardView]:
    """Return the shots as views."""
    return [
        BoardView(
            image_id=f"view{i:02d}", corners=shot.corners, ids=shot.ids, board_points=board.object_points[shot.ids],
            size=(camera.width, camera.height),
        )
        for i, shot in enumerate(shots)
    ]  # fmt: skip


def spoil(view: BoardView, rng: np.random.Generator) -> BoardView:
    """Return the view with a third of its corners shifted by 4 px, as motion blur or a bent board does."""
    corners = view.corners.copy()
    corners[::3] += rng.normal(0.0, 4.0, corners[::3].shape)
    return replace(view, corners=corners)


def render(
    board: BoardSpec, camera: CameraIntrinsics, shots: Sequence[RigShot], *, noise: float = 2.0
) -> list[np.ndarray]:
    """Return grey pictures of the shots with sensor noise."""
    drawn = draw_board(board, pixels_per_square=150)
    pictures = BoardPictures(drawn.pixels, drawn.size_m, drawn.origin_m, camera)
    try:
        return [
            cv2.cvtColor(pictures.render(shot.T_camera_board, noise=noise, seed=i), cv2.COLOR_RGB2GRAY)
            for i, shot in enumerate(shots)
        ]
    finally:
        pictures.close()
