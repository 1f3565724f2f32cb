from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from calibration.arm_noise import ArmNoise
from calibration.board_pose import board_pose
from calibration.board_scatter import board_scatter
from calibration.boards import BoardView
from calibration.bundle_adjust import BundleOptions
from calibration.consensus import agreeing_views
from calibration.evidence import CornerEvidence
from calibration.hand_eye import HandEyeOptions, calibrate_hand_eye
from calibration.hand_eye_starts import PAIRWISE, TOGETHER, agreement, linear_starts
from calibration.motion import check_motion, invert, mean_pose, stack
from robot_rl.calibration_types import CameraIntrinsics, Pose
from robot_rl.errors import CalibrationError, SpecError
from sim.rig import with_outliers
from tests.calibration.hand_eye_rig import (
    BOARD,
    CAMERA,
    T_BASE_BOARD,
    T_BASE_CAMERA,
    T_MOUNT_CAMERA,
    T_TOOL_BOARD,
    arm_of,
    corners_of,
    errors,
    rig,
    views_of,
)

N = 20
FISHEYE = CameraIntrinsics(
    model="fisheye", width=1280, height=720, fx=600, fy=600, cx=640, cy=360, distortion=(0.1, -0.05, 0.01, 0.0)
)
POSE = Pose.from_rotation_vector([0.3, -0.4, 0.2], [0.02, -0.03, 0.5])


def boards_of(shots) -> list[Pose]:
    return [Pose.from_matrix(T) for T in corners_of(shots).T_camera_board]


def jittered(poses: list[Pose], *, mm: float, deg: float, seed: int) -> list[Pose]:
    rng = np.random.default_rng(seed)
    return [
        p @ Pose.from_rotation_vector(np.radians(deg) * rng.standard_normal(3), 1e-3 * mm * rng.standard_normal(3))
        for p in poses
    ]


@pytest.mark.parametrize("camera", [CAMERA, FISHEYE], ids=["pinhole", "fisheye"])
def test_a_board_pose_is_found_from_exact_corners(camera: CameraIntrinsics) -> None:
    corners = camera.project(POSE.apply(BOARD))
    view = BoardView(image_id="a", corners=corners, ids=np.arange(len(BOARD)), board_points=BOARD, size=(1280, 720))
    found, rms = board_pose(view, camera)
    millimetres, degrees = errors(found, POSE)
    assert millimetres < 1e-3
    assert degrees < 1e-3
    assert rms < 1e-3


def test_every_method_solves_exact_poses_and_they_agree() -> None:
    shots = rig().shots(8, seed=1)
    starts = linear_starts(stack(arm_of(shots)), stack([shot.T_camera_board for shot in shots]))
    assert set(starts) == {*PAIRWISE, *TOGETHER}
    for start in starts.values():
        np.testing.assert_allclose(start.X, T_MOUNT_CAMERA.matrix, atol=1e-6)
        np.testing.assert_allclose(start.Z, T_BASE_BOARD.matrix, atol=1e-6)
    assert max(agreement(starts).position_m.values()) < 1e-6


def test_agreement_names_the_method_that_differs() -> None:
    shots = rig().shots(8, seed=1)
    starts = linear_starts(stack(arm_of(shots)), stack([shot.T_camera_board for shot in shots]))
    off = starts["tsai"].X.copy()
    off[2, 3] += 0.01
    starts["tsai"] = type(starts["tsai"])(off, starts["tsai"].Z)
    found = agreement(starts)
    assert found.position_m["tsai"] == pytest.approx(0.01, abs=1e-5)
    assert found.typical[0] < 1e-5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("eye_in_hand", [True, False])
def test_twenty_noisy_views_give_the_camera_within_half_a_millimetre(eye_in_hand: bool, seed: int) -> None:
    shots = rig(eye_in_hand=eye_in_hand).shots(N, seed=seed)
    mount = "eye_in_hand" if eye_in_hand else "eye_to_hand"
    found = calibrate_hand_eye(arm_of(shots), corners_of(shots), HandEyeOptions(mount=mount))
    millimetres, degrees = errors(found.camera, T_MOUNT_CAMERA if eye_in_hand else T_BASE_CAMERA)
    assert millimetres < 0.5
    assert degrees < 0.05
    assert errors(found.board, T_BASE_BOARD if eye_in_hand else T_TOOL_BOARD)[0] < 0.5
    assert found.arm_noise == ArmNoise()
    assert not found.rejected
    assert found.rms_px == pytest.approx(0.3 * np.sqrt(2), rel=0.1)
    assert found.held_out_rms_px == pytest.approx(0.3 * np.sqrt(2), rel=0.15)


@pytest.mark.parametrize("seed", range(3))
def test_a_fifth_of_wrong_arm_poses_is_found_and_does_no_harm(seed: int) -> None:
    shots, wrong = with_outliers(rig().shots(N, seed=seed), 0.2, seed=seed)
    found = calibrate_hand_eye(arm_of(shots), corners_of(shots))
    millimetres, degrees = errors(found.camera, T_MOUNT_CAMERA)
    assert millimetres < 1.0
    assert degrees < 0.1
    assert list(found.rejected) == wrong
    assert all("px, the others by 0." in reason for reason in found.rejected.values())


def test_wrong_poses_that_are_off_by_millimetres_only_are_found_in_pixels() -> None:
    shots = rig().shots(N, seed=5)
    arm = arm_of(shots)
    wrong = [3, 8, 12]
    for i, spoilt in zip(wrong, jittered([arm[i] for i in wrong], mm=4, deg=0.4, seed=1), strict=True):
        arm[i] = spoilt
    found = calibrate_hand_eye(arm, corners_of(shots), HandEyeOptions(arm_noise="exact"))
    assert list(found.rejected) == wrong
    assert errors(found.camera, T_MOUNT_CAMERA)[0] < 0.5


def test_without_rejection_wrong_poses_do_harm() -> None:
    shots, _ = with_outliers(rig().shots(N, seed=0), 0.2, seed=0)
    found = calibrate_hand_eye(arm_of(shots), corners_of(shots), HandEyeOptions(reject=False, arm_noise="exact"))
    assert errors(found.camera, T_MOUNT_CAMERA)[0] > 1.0


def test_up_to_four_tenths_wrong_views_are_told_from_the_others() -> None:
    shots, wrong = with_outliers(rig().shots(25, seed=3), 0.4, seed=3)
    keep = agreeing_views(stack(arm_of(shots)), stack(boards_of(shots)))
    assert np.flatnonzero(~keep).tolist() == wrong


def test_an_inaccurate_arm_is_noticed_and_weighed() -> None:
    exact, weighed, sizes = [], [], []
    for seed in range(3):
        shots = rig().shots(N, seed=seed)
        arm = jittered(arm_of(shots), mm=0.5, deg=0.05, seed=seed)
        believed = calibrate_hand_eye(arm, corners_of(shots), HandEyeOptions(arm_noise="exact", folds=2))
        exact.append(errors(believed.camera, T_MOUNT_CAMERA))
        found = calibrate_hand_eye(arm, corners_of(shots), HandEyeOptions(folds=2))
        weighed.append(errors(found.camera, T_MOUNT_CAMERA))
        sizes.append((1e3 * found.arm_noise.position_m, np.degrees(found.arm_noise.rotation_rad)))
    assert np.mean(weighed, axis=0)[0] < 0.7 * np.mean(exact, axis=0)[0]
    assert np.mean(weighed, axis=0)[1] < 0.7 * np.mean(exact, axis=0)[1]
    np.testing.assert_allclose(np.mean(sizes, axis=0), (0.5, 0.05), rtol=0.35)


def test_a_wrong_focal_length_is_corrected_where_intrinsics_are_free() -> None:
    shots = rig().shots(25, seed=2)
    wrong = CameraIntrinsics(**{**vars(CAMERA), "fx": 1.01 * CAMERA.fx, "fy": 1.01 * CAMERA.fy})
    evidence = CornerEvidence(views_of(shots), wrong)
    free = HandEyeOptions(bundle=BundleOptions(free_intrinsics=True), arm_noise="exact")
    found = calibrate_hand_eye(arm_of(shots), evidence, free)
    held = calibrate_hand_eye(arm_of(shots), evidence, HandEyeOptions(arm_noise="exact"))
    assert found.intrinsics is not None
    assert found.intrinsics.fx == pytest.approx(CAMERA.fx, abs=1.0)
    assert errors(found.camera, T_MOUNT_CAMERA)[0] < 0.5 < errors(held.camera, T_MOUNT_CAMERA)[0]


def test_the_held_out_scatter_is_of_views_that_were_not_fitted() -> None:
    shots = rig().shots(6, seed=4)
    found = calibrate_hand_eye(arm_of(shots), boards_of(shots), HandEyeOptions(folds=6, reject=False))
    arm, boards = stack(arm_of(shots)), stack(boards_of(shots))
    assert found.held_out.n_views == 6
    assert np.hypot(*found.held_out.position_std_m[:2]) > np.hypot(*found.scatter.position_std_m[:2])
    again = board_scatter(arm, boards, found.camera.matrix)
    np.testing.assert_allclose(found.scatter.position_std_m, again.position_std_m, rtol=1e-9)


def test_the_real_arm_puts_the_board_in_one_place(shared_data: Path) -> None:
    folder = shared_data / "handeye_doosan_charuco" / "data" / "poses"
    if not folder.is_dir():
        pytest.skip(f"no hand-eye data at {folder}")
    arm, boards = [], []
    for path in sorted(folder.glob("pose_*.txt")):
        T = np.loadtxt(path)
        T[:3, 3] /= 1000.0
        arm.append(Pose.from_matrix(T))
        seen = np.load(folder / f"board{path.stem}.npz")
        boards.append(Pose.from_rotation_vector(seen["rvec"], seen["tvec"]))
    found = calibrate_hand_eye(arm, boards)
    every = board_scatter(stack(arm), stack(boards), found.camera.matrix)
    assert every.n_views == 31
    assert (np.array(every.position_std_m) <= (0.6e-3, 0.8e-3, 1.3e-3)).all()
    assert np.degrees(every.angle_mean_rad) <= 0.36
    for start in linear_starts(stack(arm), stack(boards)).values():
        linear = board_scatter(stack(arm), stack(boards), start.X)
        assert np.linalg.norm(every.position_std_m) < np.linalg.norm(linear.position_std_m)


def test_a_result_becomes_a_file_with_frames_and_units() -> None:
    shots = rig(eye_in_hand=False).shots(8, seed=0)
    found = calibrate_hand_eye(arm_of(shots), corners_of(shots), HandEyeOptions(mount="eye_to_hand"))
    file = found.to_file(date="2030-01-02T03:04:05+00:00", device_serial="cam-7", digest="ab")
    assert file.values["T_base_camera"] == found.camera
    assert file.values["mount"] == "eye_to_hand"
    assert file.frames["T_base_camera"].endswith("-> base")
    assert file.residuals["n_views"] == 8
    assert file.residuals["heldout_rms_px"] == found.held_out_rms_px
    assert file.device_serial == "cam-7"


# What is refused, and what is said.


def test_millimetres_are_refused() -> None:
    with pytest.raises(SpecError, match="If these are millimetres, divide them by 1000"):
        Pose(np.eye(3), np.array([447.0, 0.0, 395.5]))


def test_a_mirrored_or_stretched_rotation_is_refused() -> None:
    with pytest.raises(SpecError, match="left-handed"):
        Pose(np.diag([1.0, 1.0, -1.0]), np.zeros(3))
    with pytest.raises(SpecError, match="must be orthonormal"):
        Pose(1.01 * np.eye(3), np.zeros(3))


@pytest.mark.parametrize(("shift", "order"), [(1, "w, x, y, z"), (-1, "x, y, z, w")])
def test_quaternions_in_the_other_order_are_recognised(shift: int, order: str) -> None:
    shots = rig().shots(N, seed=0)
    arm = [Pose(Rotation.from_quat(np.roll(p.quaternion, shift)).as_matrix(), p.translation) for p in arm_of(shots)]
    with pytest.raises(CalibrationError, match=f"quaternions are in the order {order}"):
        calibrate_hand_eye(arm, boards_of(shots))


def test_too_few_distinct_rotations_are_refused() -> None:
    shots = rig().shots(N, seed=0)
    shifted = [Pose(arm_of(shots)[i % 2].rotation, arm_of(shots)[i].translation) for i in range(N)]
    with pytest.raises(CalibrationError, match=r"hold 2 distinct rotations .* needs at least 3"):
        calibrate_hand_eye(shifted, boards_of(shots))
    with pytest.raises(CalibrationError, match="needs at least 3 views, better 15, got 2"):
        calibrate_hand_eye(arm_of(shots)[:2], boards_of(shots)[:2])


def test_turning_about_one_axis_only_is_refused() -> None:
    turns = [Pose.from_rotation_vector([0.0, 0.0, angle], [0.4, 0.1 * angle, 0.3]) for angle in np.linspace(0, 2, 10)]
    with pytest.raises(CalibrationError, match=r"about one axis only \(\[.*0.0, .*0.0, .*1.0\].* tilt the wrist"):
        check_motion(stack(turns))


def test_the_wrong_mount_is_recognised() -> None:
    shots = rig(eye_in_hand=False).shots(N, seed=0)
    with pytest.raises(CalibrationError, match="fit only when inverted: either the camera is mounted eye_to_hand"):
        calibrate_hand_eye(arm_of(shots), boards_of(shots))


def test_poses_of_other_pictures_are_refused() -> None:
    shots = rig().shots(N, seed=0)
    with pytest.raises(CalibrationError, match="check that pose i belongs to picture i"):
        calibrate_hand_eye(arm_of(shots)[::-1], boards_of(shots))
    with pytest.raises(CalibrationError, match="one arm pose per picture is needed, got 19 poses and 20 pictures"):
        calibrate_hand_eye(arm_of(shots)[1:], boards_of(shots))


def test_a_board_that_was_moved_is_refused() -> None:
    shots = rig().shots(N, seed=0)
    rng = np.random.default_rng(0)
    arm = [Pose(p.rotation, p.translation + rng.uniform(-0.4, 0.4, 3)) for p in arm_of(shots)]
    with pytest.raises(CalibrationError, match=r"no hand-eye pose explains the views|views agree with each other"):
        calibrate_hand_eye(arm, boards_of(shots))


def test_pictures_of_another_size_and_settings_that_make_no_sense_are_refused() -> None:
    shots = rig().shots(3, seed=0)
    small = CameraIntrinsics(**{**vars(CAMERA), "width": 640, "height": 480})
    with pytest.raises(CalibrationError, match="is 1280 x 720, the intrinsics hold for 640 x 480"):
        CornerEvidence(views_of(shots), small)
    with pytest.raises(CalibrationError, match="`mount` must be one of"):
        HandEyeOptions(mount="eye_on_foot")
    with pytest.raises(CalibrationError, match="intrinsics cannot be refined from board poses alone"):
        calibrate_hand_eye(
            arm_of(rig().shots(N, seed=0)), boards_of(rig().shots(N, seed=0)),
            HandEyeOptions(bundle=BundleOptions(free_intrinsics=True)),
        )  # fmt: skip


def test_the_mean_of_poses_is_between_them_and_ignores_strays_when_robust() -> None:
    one, other = Pose.from_rotation_vector([0, 0, 0.2], [1, 0, 0]), Pose.from_rotation_vector([0, 0, 0.4], [3, 0, 0])
    np.testing.assert_allclose(
        mean_pose(stack([one, other])), Pose.from_rotation_vector([0, 0, 0.3], [2, 0, 0]).matrix, atol=1e-12
    )
    strays = [Pose.from_rotation_vector([3, 0, 0], [9, 9, 9]), Pose.from_rotation_vector([0, 2, 0], [-9, 9, 1])]
    near = mean_pose(stack([one, one, one, *strays]), robust=True)
    np.testing.assert_allclose(near, one.matrix, atol=1e-9)


def test_an_inverse_undoes_a_transform() -> None:
    T = stack(arm_of(rig().shots(3, seed=0)))
    np.testing.assert_allclose(invert(T) @ T, np.broadcast_to(np.eye(4), T.shape), atol=1e-12)
