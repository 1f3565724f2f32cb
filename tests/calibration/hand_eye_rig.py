"""A camera on an arm before a board, all known: what the hand-eye tests calibrate."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from calibration.boards import BoardView
from calibration.clock_offset import ArmTrajectory
from calibration.evidence import CornerEvidence
from robot_rl.calibration_types import CameraIntrinsics, Pose
from robot_rl.hardware.kinematics import Kinematics
from sim.rig import RigShot, SimulatedRig
from sim.robots import ARM7

CAMERA = CameraIntrinsics(
    model="pinhole", width=1280, height=720, fx=900.0, fy=902.0, cx=640.0, cy=362.0,
    distortion=(0.05, -0.1, 0.001, -0.0005, 0.02),
)  # fmt: skip
BOARD = np.array([[x, y, 0.0] for y in range(1, 7) for x in range(1, 5)]) * 0.03
T_MOUNT_CAMERA = Pose.from_rotation_vector([0.1, -0.05, -1.55], [0.03, -0.05, 0.06])
T_BASE_CAMERA = Pose.from_rotation_vector([2.2, 0.1, 0.3], [0.6, 0.1, 0.9])
T_BASE_BOARD = Pose.from_rotation_vector([0.02, 0.01, 0.7], [0.5, 0.05, 0.02])
T_TOOL_BOARD = Pose.from_rotation_vector([0.1, 0.2, -0.4], [0.02, 0.01, 0.05])


def rig(*, eye_in_hand: bool = True, camera: CameraIntrinsics = CAMERA) -> SimulatedRig:
    return SimulatedRig(
        intrinsics=camera,
        board_points=BOARD,
        eye_in_hand=eye_in_hand,
        T_hand_eye=T_MOUNT_CAMERA if eye_in_hand else T_BASE_CAMERA,
        T_board=T_BASE_BOARD if eye_in_hand else T_TOOL_BOARD,
    )


def arm_of(shots: Sequence[RigShot]) -> list[Pose]:
    return [shot.T_base_tool for shot in shots]


def views_of(shots: Sequence[RigShot]) -> list[BoardView]:
    size = (CAMERA.width, CAMERA.height)
    return [
        BoardView(image_id=f"{i}", corners=shot.corners, ids=shot.ids, board_points=BOARD[shot.ids], size=size)
        for i, shot in enumerate(shots)
    ]


def corners_of(shots: Sequence[RigShot]) -> CornerEvidence:
    return CornerEvidence(views_of(shots), CAMERA)


def errors(found: Pose, true: Pose) -> tuple[float, float]:
    """Return millimetres and degrees."""
    apart = true.inverse() @ found
    return 1e3 * float(np.linalg.norm(apart.translation)), float(np.degrees(apart.angle))


def moving(
    *, offset_s: float, n_pictures: int = 20, seed: int = 0, noise_px: float = 0.3
) -> tuple[ArmTrajectory, np.ndarray, CornerEvidence]:
    """Return an arm that sways over the board, picture stamps that are `offset_s` early, and what was seen."""
    it, rng = rig(), np.random.default_rng(seed)
    middle = T_BASE_BOARD @ Pose(np.eye(3), BOARD.mean(axis=0))
    phase = rng.uniform(0, 2 * np.pi, 6)

    def tool(t: float) -> Pose:
        turn = 0.45 * np.sin(np.array([0.9, 1.3, 0.7]) * t + phase[:3])
        shift = np.array([0.06, 0.06, 0.08]) * np.sin(np.array([0.8, 0.6, 0.5]) * t + phase[3:])
        look = Pose.from_rotation_vector(turn, np.zeros(3)) @ Pose(np.eye(3), np.array([0.0, 0.0, -0.45]) + shift)
        return middle @ look @ T_MOUNT_CAMERA.inverse()

    arm_ns = np.arange(0, 14_000_000_000, 4_000_000)
    trajectory = ArmTrajectory(arm_ns, [tool(1e-9 * ns) for ns in arm_ns])
    true_s = np.linspace(1.0, 12.5, n_pictures) + rng.uniform(-0.05, 0.05, n_pictures)
    shots = [it.shot(it.camera_board(tool(t)), rng, noise_px=noise_px) for t in true_s]
    return trajectory, np.round(1e9 * (true_s - offset_s)).astype(np.int64), corners_of(shots)


def arm_shots(arm: Kinematics, count: int, *, seed: int, noise_px: float = 0.3) -> tuple[np.ndarray, list[RigShot]]:
    """Return joint angles [N, J] around home from which a board below the tool is seen whole, and what is seen."""
    home, rng = np.array(ARM7.home), np.random.default_rng(seed)
    T_camera_board = Pose.from_rotation_vector([0.05, 0.1, 0.2], [-0.07, -0.1, 0.42])
    it = replace(rig(), T_board=Pose.from_matrix(arm.forward(home)) @ T_MOUNT_CAMERA @ T_camera_board)
    angles: list[np.ndarray] = []
    shots: list[RigShot] = []
    while len(shots) < count:
        q = np.clip(home + rng.uniform(-0.4, 0.4, len(home)), arm.low, arm.high)
        pose = it.camera_board(Pose.from_matrix(arm.forward(q)))
        if (pose.apply(BOARD)[:, 2] > 0.1).all():
            shot = it.shot(pose, rng, noise_px=noise_px)
            if len(shot.ids) == len(BOARD):
                angles.append(q)
                shots.append(shot)
    return np.array(angles), shots
