"""The simulated rig: poses that close their loop, and pictures whose corners lie where the model says."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.boards import BoardSpec
from calibration.captures import image_files, load_captures
from calibration.intrinsics import calibrate_intrinsics
from calibration.printing import draw_board
from robot_rl.calibration_types import CameraIntrinsics, Pose
from robot_rl.errors import SimulationError
from sim.board_pictures import BoardPictures
from sim.rig import RigShot, SimulatedRig, Viewpoints, with_outliers
from tests.calibration.rig_data import CAMERAS, CHARUCO, CHESSBOARD, GRID, PINHOLE, make_rig


@pytest.mark.parametrize("eye_in_hand", [True, False])
def test_arm_pose_and_camera_pose_close_the_loop(eye_in_hand: bool):
    rig = replace(make_rig(PINHOLE), eye_in_hand=eye_in_hand)
    for shot in rig.shots(5, seed=0):
        np.testing.assert_allclose(rig.camera_board(shot.T_base_tool).matrix, shot.T_camera_board.matrix, atol=1e-12)
        if eye_in_hand:
            chain = shot.T_base_tool @ rig.T_hand_eye @ shot.T_camera_board
            np.testing.assert_allclose(chain.matrix, rig.T_board.matrix, atol=1e-12)
        else:
            chain = rig.T_hand_eye @ shot.T_camera_board
            np.testing.assert_allclose(chain.matrix, (shot.T_base_tool @ rig.T_board).matrix, atol=1e-12)


def test_shots_show_the_whole_front_of_the_board_with_the_noise_asked_for():
    rig = make_rig(PINHOLE)
    shots = rig.shots(30, seed=3, noise_px=0.3, margin_px=5.0)
    errors = []
    for shot in shots:
        assert len(shot.ids) == len(CHARUCO.object_points)
        exact = PINHOLE.project(shot.T_camera_board.apply(rig.board_points))
        assert exact.min() >= 5.0
        errors.append(shot.corners - exact)
        assert shot.T_camera_board.rotation[2, 2] > 0  # the front, not the back
        distance = np.linalg.norm(shot.T_camera_board.apply(rig.board_points.mean(axis=0)))
        assert 0.25 < distance < 0.7
    assert np.std(np.concatenate(errors)) == pytest.approx(0.3, rel=0.05)


def test_the_seed_decides_and_nothing_else():
    rig = make_rig(PINHOLE)
    a, b, c = (rig.shots(3, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a[2].corners, b[2].corners)
    assert not np.allclose(a[2].corners, c[2].corners)


def test_outliers_spoil_the_arm_pose_only_and_say_which():
    shots = make_rig(PINHOLE).shots(20, seed=0)
    spoilt, wrong = with_outliers(shots, 0.2, seed=5)
    assert len(wrong) == 4
    for i, (shot, after) in enumerate(zip(shots, spoilt, strict=True)):
        error = shot.T_base_tool.inverse() @ after.T_base_tool
        assert (error.angle > np.deg2rad(4.9)) == (i in wrong)
        assert after.T_camera_board is shot.T_camera_board


def test_a_board_too_large_for_the_viewpoints_is_refused():
    with pytest.raises(SimulationError, match="none of 1000 viewpoints shows the whole board"):
        make_rig(PINHOLE, viewpoints=Viewpoints(distance_m=(0.1, 0.12))).shots(1, seed=0)


@pytest.fixture
def rendering() -> Iterator[dict[str, BoardPictures]]:
    made: dict[str, BoardPictures] = {}
    yield made
    for pictures in made.values():
        pictures.close()


def _pictures(made: dict[str, BoardPictures], board: BoardSpec, camera: CameraIntrinsics) -> BoardPictures:
    drawn = draw_board(board, pixels_per_square=100)
    made["pictures"] = BoardPictures(drawn.pixels, drawn.size_m, drawn.origin_m, camera)
    return made["pictures"]


@pytest.mark.parametrize("board", [CHARUCO, CHESSBOARD, GRID], ids=lambda board: board.kind)
def test_corners_in_a_rendered_picture_lie_where_the_model_says(rendering: dict, board: BoardSpec):
    pictures = _pictures(rendering, board, PINHOLE)
    _check_corners(pictures, make_rig(PINHOLE, board).shots(2, seed=0, noise_px=0.0), board)


@pytest.mark.parametrize("model", ["rational", "fisheye"])
def test_the_lens_bends_the_rendered_picture(rendering: dict, model: str):
    camera = replace(CAMERAS[model], fx=400.0, fy=402.0)
    pictures = _pictures(rendering, CHARUCO, camera)
    rig = make_rig(camera, viewpoints=Viewpoints(distance_m=(0.3, 0.4)))
    _check_corners(pictures, rig.shots(2, seed=0, noise_px=0.0), CHARUCO)


def _check_corners(pictures: BoardPictures, shots: list[RigShot], board: BoardSpec) -> None:
    for shot in shots:
        view = board.detect(pictures.render(shot.T_camera_board))
        assert view is not None
        assert len(view.ids) > 0.9 * len(shot.ids)
        error = view.corners - shot.corners[np.searchsorted(shot.ids, view.ids)]
        assert np.sqrt((error**2).mean()) < (0.2 if board.kind == "grid" else 0.1)
        assert np.abs(error.mean(axis=0)).max() < 0.05  # no shift of half a pixel


def test_sensor_noise_is_seeded_and_a_lens_too_wide_is_refused(rendering: dict):
    pictures = _pictures(rendering, CHARUCO, PINHOLE)
    pose = Pose.from_rotation_vector([0.2, 0.1, 0.0], [-0.16, -0.1, 0.5])
    clean, a, b = (pictures.render(pose, noise=noise, seed=1) for noise in (0.0, 4.0, 4.0))
    np.testing.assert_array_equal(a, b)
    assert np.std(a.astype(float) - clean) == pytest.approx(4.0, rel=0.15)
    wide = CameraIntrinsics(model="fisheye", width=640, height=480, fx=180.0, fy=180.0, cx=320.0, cy=240.0)
    drawn = draw_board(CHARUCO)
    with pytest.raises(SimulationError, match="take a longer focal length"):
        BoardPictures(drawn.pixels, drawn.size_m, drawn.origin_m, wide)


def test_a_camera_is_calibrated_from_rendered_pictures(rendering: dict, tmp_path: Path):
    pictures = _pictures(rendering, CHARUCO, PINHOLE)
    rig: SimulatedRig = make_rig(PINHOLE, viewpoints=Viewpoints(distance_m=(0.3, 0.5), aim_m=0.08))
    for i, shot in enumerate(rig.shots(10, seed=0, margin_px=2.0)):
        picture = pictures.render(shot.T_camera_board, noise=2.0, seed=i)
        cv2.imwrite(str(tmp_path / f"view{i:02d}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    captures = load_captures(image_files(tmp_path), CHARUCO)
    result = calibrate_intrinsics(captures.views)
    assert result.rms_px < 0.15
    for name in ("fx", "fy", "cx", "cy"):
        error = abs(getattr(result.intrinsics, name) - getattr(PINHOLE, name))
        assert error < 5 * result.deviation[name]
        assert error < 1.5
