"""Boards, cameras and views that the calibration tests share; every truth is known."""

from __future__ import annotations

import numpy as np

from benchmarks._rig_scenes import FISHEYE, PINHOLE, RATIONAL
from calibration.captures import BoardSpec, BoardView
from robot_rl.calibration_types import CameraIntrinsics, Pose
from sim.rig import RigShot, SimulatedRig, Viewpoints

CHARUCO = BoardSpec(kind="charuco", columns=8, rows=5, square_m=0.04, marker_m=0.03)
CHESSBOARD = BoardSpec(kind="chessboard", columns=8, rows=5, square_m=0.04)
GRID = BoardSpec(
    kind="grid", columns=5, rows=4, square_m=0.05, marker_m=0.04, dictionary="DICT_APRILTAG_36h11", first_id=7
)
CAMERAS = {camera.model: camera for camera in (PINHOLE, RATIONAL, FISHEYE)}


def make_rig(
    camera: CameraIntrinsics, board: BoardSpec = CHARUCO, viewpoints: Viewpoints | None = None
) -> SimulatedRig:
    """Return a rig with the camera on the tool and the board on the table."""
    return SimulatedRig(
        intrinsics=camera,
        board_points=board.object_points,
        eye_in_hand=True,
        T_hand_eye=Pose.from_rotation_vector([0.1, -0.05, 1.5], [0.03, -0.05, 0.06]),
        T_board=Pose.from_rotation_vector([np.pi, 0.0, 0.2], [0.5, 0.1, 0.0]),
        viewpoints=Viewpoints() if viewpoints is None else viewpoints,
    )


def as_views(shots: list[RigShot], board: BoardSpec, camera: CameraIntrinsics, prefix: str = "view") -> list[BoardView]:
    """Return the shots as the views that calibration takes."""
    return [
        BoardView(
            image_id=f"{prefix}{i:02d}.png", corners=shot.corners, ids=shot.ids,
            board_points=board.object_points[shot.ids], size=(camera.width, camera.height),
        )
        for i, shot in enumerate(shots)
    ]  # fmt: skip
