"""The rig that calibration benchmarks share: a camera of 1280 x 720 on an arm, half a metre from a 5 x 7 board."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from rich.progress import track

from calibration.boards import BoardView
from calibration.clock_offset import ArmTrajectory
from calibration.evidence import CornerEvidence
from robot_rl.calibration_types import CameraIntrinsics, Pose
from sim.rig import RigShot, SimulatedRig

Raw = Mapping[str, float]
CAMERA = CameraIntrinsics(
    model="pinhole", width=1280, height=720, fx=900.0, fy=902.0, cx=640.0, cy=362.0,
    distortion=(0.05, -0.1, 0.001, -0.0005, 0.02),
)  # fmt: skip
BOARD = np.array([[x, y, 0.0] for y in range(1, 7) for x in range(1, 5)]) * 0.03
T_TOOL_CAMERA = Pose.from_rotation_vector([0.1, -0.05, -1.55], [0.03, -0.05, 0.06])
T_BASE_BOARD = Pose.from_rotation_vector([0.02, 0.01, 0.7], [0.5, 0.05, 0.02])
RIG = SimulatedRig(
    intrinsics=CAMERA, board_points=BOARD, eye_in_hand=True, T_hand_eye=T_TOOL_CAMERA, T_board=T_BASE_BOARD
)


def evidence(shots: list[RigShot]) -> CornerEvidence:
    """Return what the camera saw."""
    size = (CAMERA.width, CAMERA.height)
    views = [
        BoardView(image_id=str(i), corners=shot.corners, ids=shot.ids, board_points=BOARD[shot.ids], size=size)
        for i, shot in enumerate(shots)
    ]
    return CornerEvidence(views, CAMERA)


def errors(found: Pose) -> tuple[float, float]:
    """Return how far a camera is from the true one [mm, deg]."""
    apart = T_TOOL_CAMERA.inverse() @ found
    return 1e3 * float(np.linalg.norm(apart.translation)), float(np.degrees(apart.angle))


def shaken(poses: list[Pose], *, mm: float, deg: float, seed: int) -> list[Pose]:
    """Return arm poses with noise along and about each axis."""
    rng = np.random.default_rng(seed)
    turns, shifts = (
        np.radians(deg) * rng.standard_normal((len(poses), 3)),
        1e-3 * mm * rng.standard_normal((len(poses), 3)),
    )
    return [pose @ Pose.from_rotation_vector(a, b) for pose, a, b in zip(poses, turns, shifts, strict=True)]


def sway(seed: int, *, seconds: float = 14.0, arm_hz: float = 250.0) -> tuple[ArmTrajectory, np.random.Generator]:
    """Return an arm that sways over the board with up to about 0.1 m/s and 40 deg/s."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, 6)
    middle = T_BASE_BOARD @ Pose(np.eye(3), BOARD.mean(axis=0))
    stamps = np.arange(0, round(1e9 * seconds), round(1e9 / arm_hz))
    poses = []
    for t in 1e-9 * stamps:
        turn = 0.45 * np.sin(np.array([0.9, 1.3, 0.7]) * t + phase[:3])
        shift = np.array([0.06, 0.06, 0.08]) * np.sin(np.array([0.8, 0.6, 0.5]) * t + phase[3:])
        look = Pose.from_rotation_vector(turn, np.zeros(3)) @ Pose(np.eye(3), np.array([0.0, 0.0, -0.45]) + shift)
        poses.append(middle @ look @ T_TOOL_CAMERA.inverse())
    return ArmTrajectory(stamps, poses), rng


def pictures(
    trajectory: ArmTrajectory, rng: np.random.Generator, true_s: np.ndarray, *, noise_px: float = 0.3
) -> CornerEvidence:
    """Return what the camera saw at true times [N] s of the arm's clock."""
    poses = trajectory.at(np.round(1e9 * true_s).astype(np.int64))
    return evidence([RIG.shot(RIG.camera_board(Pose.from_matrix(T)), rng, noise_px=noise_px) for T in poses])


def played(path: Path, case: Callable[[int], Raw], seeds: int) -> list[Raw]:
    """Return the raw figures of a case, one a seed, measured where the file at `path` does not hold them yet."""
    raw: list[Raw] = json.loads(path.read_text()) if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    for seed in track(range(len(raw), seeds), description=path.stem):
        raw.append(case(seed))
        path.write_text(json.dumps(raw))
    return raw[:seeds]
