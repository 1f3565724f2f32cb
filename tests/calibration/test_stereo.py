"""Two cameras: the pose between them, also of unlike lenses; wrong pairs; depth cameras; OpenCV's stereo set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.boards import BoardSpec, BoardView
from calibration.camera_fit import fit_camera
from calibration.captures import image_files, load_captures, pair_captures
from calibration.depth import fit_depth
from calibration.stereo import calibrate_stereo
from robot_rl.calibration_types import CameraIntrinsics, Pose
from robot_rl.errors import CalibrationError
from sim.rig import RigShot, Viewpoints
from tests.calibration.rig_data import CHARUCO, FISHEYE, PINHOLE, RATIONAL, as_views, make_rig

T_LEFT_RIGHT = Pose.from_rotation_vector([0.01, 0.05, -0.02], [0.08, -0.003, 0.004])


def _shots(
    other: CameraIntrinsics, count: int = 10, noise_px: float = 0.2
) -> tuple[list[BoardView], list[BoardView], list[RigShot]]:
    """Return what both cameras see at the same stops; the right one may miss corners at the picture's edge."""
    rig, rng = make_rig(PINHOLE, viewpoints=Viewpoints(distance_m=(0.35, 0.7))), np.random.default_rng(9)
    left = rig.shots(count, seed=1, noise_px=noise_px)
    right = [
        replace(rig, intrinsics=other).shot(T_LEFT_RIGHT.inverse() @ shot.T_camera_board, rng, noise_px=noise_px)
        for shot in left
    ]
    return as_views(left, CHARUCO, PINHOLE, "l"), as_views(right, CHARUCO, other, "r"), left


@pytest.mark.parametrize("other", [RATIONAL, FISHEYE], ids=lambda camera: camera.model)
def test_the_pose_between_unlike_cameras_comes_back(other: CameraIntrinsics):
    left, right, _ = _shots(other, noise_px=0.0)
    result = calibrate_stereo(left, right, PINHOLE, other)
    np.testing.assert_allclose(result.T_left_right.matrix, T_LEFT_RIGHT.matrix, atol=1e-6)
    assert result.rms_px < 1e-4
    assert result.epipolar_px < 1e-3
    assert result.baseline_m == pytest.approx(np.linalg.norm(T_LEFT_RIGHT.translation), abs=1e-6)


def test_noise_shows_in_the_residual_and_hardly_in_the_pose():
    left, right, _ = _shots(RATIONAL)
    result = calibrate_stereo(left, right, PINHOLE, RATIONAL)
    assert result.rms_px == pytest.approx(0.2 * np.sqrt(2), rel=0.15)
    error = result.T_left_right.inverse() @ T_LEFT_RIGHT
    assert np.linalg.norm(error.translation) < 5e-4
    assert error.angle < np.deg2rad(0.1)


def test_a_pair_that_was_not_simultaneous_is_left_out_by_name():
    left, right, _ = _shots(RATIONAL)
    shifted = replace(right[4], corners=right[4].corners + np.array([12.0, -7.0]))
    result = calibrate_stereo(left, [*right[:4], shifted, *right[5:]], PINHOLE, RATIONAL)
    assert [pair.right_id for pair in result.pairs if pair.rejected] == ["r04.png"]
    assert result.rms_px < 0.35 < result.rms_all_px


def test_pairs_in_the_wrong_order_and_cameras_of_another_size_are_refused():
    left, right, _ = _shots(RATIONAL)
    with pytest.raises(CalibrationError, match="paired by name, taken at the same moment"):
        calibrate_stereo(left, right[::-1], PINHOLE, RATIONAL)
    with pytest.raises(
        CalibrationError, match=r"right picture r00\.png is 640 x 480, the intrinsics hold at 320 x 240"
    ):
        calibrate_stereo(left, right, PINHOLE, replace(RATIONAL, width=320, height=240))
    with pytest.raises(CalibrationError, match="stereo needs 3 or more pairs"):
        calibrate_stereo(left[:2], right[:2], PINHOLE, RATIONAL)


def test_opencvs_stereo_pair_as_published(shared_data: Path):
    board = BoardSpec(kind="chessboard", columns=10, rows=7, square_m=0.025)
    sides = [
        load_captures(image_files(shared_data / "opencv_stereo", f"{side}[0-9]*.jpg"), board)
        for side in ("left", "right")
    ]
    left, right = pair_captures(*sides)
    assert len(left) == 13
    cameras = [fit_camera(views, model="pinhole", aspect="free").intrinsics for views in (left, right)]
    result = calibrate_stereo(left, right, *cameras)
    assert result.rms_all_px <= 0.45
    assert result.baseline_m == pytest.approx(0.0832, abs=2e-4)


def _depth(pose: Pose, scale: float, offset_m: float, noise_m: float, seed: int) -> np.ndarray:
    """Return a depth picture [480, 640] of the board's plane by a camera that misreads distance, with dead pixels."""
    camera = replace(PINHOLE, distortion=(0.0,) * 5)
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[0 : camera.height, 0 : camera.width]
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u, dtype=float)], axis=-1)
    normal = pose.rotation[:, 2]
    true = (normal @ pose.translation) / (rays @ normal)
    measured = (true - offset_m) / scale + noise_m * rng.standard_normal(true.shape)
    measured[rng.random(true.shape) < 0.05] = 0.0
    flying = rng.random(true.shape) < 0.02
    measured[flying] += 0.3
    return measured


def test_scale_and_offset_of_a_depth_camera_are_found_despite_flying_pixels():
    camera = replace(PINHOLE, distortion=(0.0,) * 5)
    poses = [Pose.from_rotation_vector([0.2, 0.1, 0.0], [-0.15, -0.1, z]) for z in (0.4, 0.6, 0.9)]
    depths = [_depth(pose, 1.02, 0.006, 0.002, seed) for seed, pose in enumerate(poses)]
    fit = fit_depth(depths, poses, camera, CHARUCO)
    assert fit.scale == pytest.approx(1.02, abs=1e-3)
    assert fit.offset_m == pytest.approx(0.006, abs=1e-3)
    assert fit.rms_m > 0.02  # the flying pixels stay in the account; they only do not pull


def test_depth_that_cannot_be_fitted_is_refused():
    camera = replace(PINHOLE, distortion=(0.0,) * 5)
    pose = Pose.from_rotation_vector([0.2, 0.1, 0.0], [-0.15, -0.1, 0.5])
    depth = _depth(pose, 1.0, 0.0, 0.001, 0)
    with pytest.raises(CalibrationError, match="show it near and far"):
        fit_depth([depth, depth], [pose, pose], camera, CHARUCO)
    with pytest.raises(CalibrationError, match="depth must be metres"):
        fit_depth([1000 * depth], [pose], camera, CHARUCO)
    with pytest.raises(CalibrationError, match="align the depth to the colour picture"):
        fit_depth([depth[:100]], [pose], camera, CHARUCO)
    with pytest.raises(CalibrationError, match="0 depth readings"):
        fit_depth([np.zeros_like(depth)], [pose], camera, CHARUCO)
