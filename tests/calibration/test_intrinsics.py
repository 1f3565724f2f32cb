"""Intrinsics: true cameras found again, bad views rejected, vague ones refused, published sets matched."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.boards import BoardSpec, BoardView
from calibration.camera_fit import fit_camera, fit_pose
from calibration.captures import image_files, load_captures
from calibration.drift import check_view
from calibration.intrinsics import Rejection, calibrate_intrinsics
from robot_rl.calibration_types import Pose
from robot_rl.errors import CalibrationError, ConfigError
from sim.rig import Viewpoints
from tests.calibration.rig_data import CAMERAS, CHARUCO, PINHOLE, as_views, make_rig

NEAR = Viewpoints(distance_m=(0.3, 0.5), aim_m=0.08)
NEARER = Viewpoints(distance_m=(0.14, 0.3), aim_m=0.05)  # fills the picture of a wide lens


def _views(model: str = "pinhole", count: int = 15, *, seed: int = 0, noise_px: float = 0.3) -> list[BoardView]:
    camera = CAMERAS[model]
    rig = make_rig(camera, viewpoints=NEARER if model == "fisheye" else NEAR)
    return as_views(rig.shots(count, seed=seed, noise_px=noise_px, margin_px=2.0), CHARUCO, camera)


@pytest.mark.parametrize("model", CAMERAS)
def test_without_noise_the_camera_comes_back_exactly(model: str):
    result = calibrate_intrinsics(_views(model, noise_px=0.0), model=model)
    true = CAMERAS[model]
    assert result.rms_px < 2e-3
    assert not result.rejected
    for name in ("fx", "fy", "cx", "cy"):
        assert getattr(result.intrinsics, name) == pytest.approx(getattr(true, name), abs=0.2)
    points = np.random.default_rng(1).uniform([-0.15, -0.1, 0.4], [0.15, 0.1, 0.6], (200, 3))
    np.testing.assert_allclose(result.intrinsics.project(points), true.project(points), atol=0.05)


def test_noise_shows_in_the_residual_and_errors_are_as_large_as_said():
    errors = []
    for seed in range(12):
        fit = fit_camera(_views(seed=seed, count=10), model="pinhole", aspect="free")
        errors.append([(getattr(fit.intrinsics, n) - getattr(PINHOLE, n)) / fit.deviation[n] for n in fit.deviation])
    spread = np.sqrt(np.mean(np.square(errors), axis=0))
    assert ((spread > 0.5) & (spread < 1.7)).all()  # 12 draws of a unit normal lie within with 1 - 1e-3


def test_held_out_views_tell_a_right_model_from_a_wrong_one():
    views = _views("fisheye", count=15, noise_px=0.1)
    right = calibrate_intrinsics(views, model="fisheye")
    assert right.heldout_rms_px == pytest.approx(0.1 * np.sqrt(2), rel=0.15)
    assert calibrate_intrinsics(views).heldout_rms_px > 1.5 * right.heldout_rms_px


def test_a_fixed_aspect_makes_both_focal_lengths_equal():
    result = calibrate_intrinsics(_views(), aspect="fixed")
    assert result.intrinsics.fx == result.intrinsics.fy
    with pytest.raises(ConfigError, match="not offered for a fisheye"):
        calibrate_intrinsics(_views("fisheye"), model="fisheye", aspect="fixed")


def _spoil(view: BoardView, seed: int) -> BoardView:
    """Shift a third of the corners, as motion blur or a bent board does."""
    rng = np.random.default_rng(seed)
    corners = view.corners.copy()
    corners[::3] += rng.normal(0.0, 4.0, corners[::3].shape)
    return replace(view, corners=corners)


def test_bad_views_are_rejected_and_no_good_one():
    views = _views(count=18)
    bad = {3, 11}
    mixed = [_spoil(view, i) if i in bad else view for i, view in enumerate(views)]
    result = calibrate_intrinsics(mixed)
    assert {int(view.image_id[4:6]) for view in result.rejected} == bad
    clean = calibrate_intrinsics([view for i, view in enumerate(views) if i not in bad])
    assert result.intrinsics.fx == pytest.approx(clean.intrinsics.fx, abs=1e-6)
    assert result.rms_all_px > 2 * result.rms_px
    assert [view.image_id for view in result.views] == [view.image_id for view in mixed]


def test_when_most_views_are_bad_it_says_so():
    mixed = [_spoil(view, i) if i < 5 else view for i, view in enumerate(_views(count=12, noise_px=0.05))]
    with pytest.raises(CalibrationError, match=r"more than 4 of 12 views do not fit .*view0\d.png"):
        calibrate_intrinsics(mixed)


def test_the_rule_needs_a_residual_that_stands_out_in_every_sense():
    rule = Rejection()
    assert rule.worst(np.array([0.2, 0.21, 0.19, 0.2, 1.2])) == 4
    assert rule.worst(np.array([0.02, 0.021, 0.019, 0.02, 0.2])) is None  # below the floor
    assert rule.worst(np.array([0.2, 0.4, 0.6, 0.8, 1.0])) is None  # a wide spread, no outlier


def test_views_that_do_not_determine_the_camera_are_refused():
    with pytest.raises(CalibrationError, match=r"need 3 views .* got 2"):
        calibrate_intrinsics(_views(count=2))
    flat = make_rig(PINHOLE, viewpoints=Viewpoints(tilt_rad=(0.0, 0.02), roll_rad=0.1))
    with pytest.raises(CalibrationError, match=r"do not determine the focal length .* tilt the board"):
        calibrate_intrinsics(as_views(flat.shots(10, seed=0), CHARUCO, PINHOLE))
    views = _views(count=6)
    with pytest.raises(CalibrationError, match="mixed sizes"):
        calibrate_intrinsics([replace(views[0], size=(320, 240)), *views[1:]])


def test_few_and_uncovering_views_are_noted():
    far = make_rig(PINHOLE, viewpoints=Viewpoints(distance_m=(1.0, 1.1), tilt_rad=(0.3, 0.8), aim_m=0.0))
    result = calibrate_intrinsics(as_views(far.shots(6, seed=2, noise_px=0.1), CHARUCO, PINHOLE))
    assert any("only 6 views" in note for note in result.notes)
    assert any("holds no corner" in note for note in result.notes)
    assert result.coverage.sum() == sum(len(view.corners) for view in result.views)


@pytest.mark.parametrize("model", CAMERAS)
def test_a_boards_pose_is_found_before_a_known_camera(model: str):
    camera = CAMERAS[model]
    shot = make_rig(camera, viewpoints=NEAR).shots(1, seed=5, noise_px=0.0)[0]
    found = fit_pose(camera, as_views([shot], CHARUCO, camera)[0])
    np.testing.assert_allclose(found.matrix, shot.T_camera_board.matrix, atol=1e-6)


def test_a_fresh_view_tells_a_changed_lens_and_a_pushed_camera():
    rig = make_rig(PINHOLE, viewpoints=NEAR)
    shot = rig.shots(1, seed=4, noise_px=0.2)[0]
    view = as_views([shot], CHARUCO, PINHOLE)[0]
    assert check_view(PINHOLE, view, expected_px=0.3, T_camera_board=shot.T_camera_board).ok
    zoomed = replace(PINHOLE, fx=PINHOLE.fx * 1.05, cy=PINHOLE.cy + 15)
    drift = check_view(zoomed, view, expected_px=0.3)
    assert "the lens, its focus or the camera changed" in drift.reason
    pushed = shot.T_camera_board @ Pose.from_rotation_vector([0, 0.02, 0], [0.005, 0, 0])
    drift = check_view(PINHOLE, view, expected_px=0.3, T_camera_board=pushed)
    assert not drift.ok
    assert drift.reason.startswith("corners moved by")
    behind = Pose.from_rotation_vector([0, np.pi, 0], [0, 0, 0]) @ shot.T_camera_board
    assert not check_view(PINHOLE, view, expected_px=0.3, T_camera_board=behind).ok
    with pytest.raises(CalibrationError, match="take the picture at the calibrated size"):
        check_view(replace(PINHOLE, width=320), view, expected_px=0.3)


CHESSBOARD = BoardSpec(kind="chessboard", columns=10, rows=7, square_m=0.025)
DOOSAN = BoardSpec(kind="charuco", columns=7, rows=5, square_m=0.03, marker_m=0.022)


def test_opencvs_left_camera_as_published_and_with_corners_refined_better(shared_data: Path):
    files = image_files(shared_data / "opencv_stereo", "left[0-9]*.jpg")
    usual = calibrate_intrinsics(load_captures(files, CHESSBOARD, window=11).views, aspect="fixed")
    assert usual.all_views.fx == pytest.approx(535.9, abs=1.0)
    assert usual.rms_all_px <= 0.41
    assert [view.image_id for view in usual.rejected] == ["left02.jpg"]
    better = calibrate_intrinsics(load_captures(files, CHESSBOARD).views, aspect="fixed")
    assert not better.rejected
    assert better.rms_all_px < 0.2
    assert abs(better.intrinsics.fx - usual.intrinsics.fx) < 3 * usual.deviation["fx"]


def test_an_arms_camera_as_published(shared_data: Path):
    folder = shared_data / "handeye_doosan_charuco" / "data"
    captures = load_captures(image_files(folder / "intrinsics_images"), DOOSAN)
    assert len(captures.views) == 28
    camera = calibrate_intrinsics(captures.views).intrinsics
    matrix = np.load(folder / "camera_intrinsics.npz")["cameraMatrix"]
    for value, stored in ((camera.fx, matrix[0, 0]), (camera.fy, matrix[1, 1]), (camera.cx, matrix[0, 2]),
                          (camera.cy, matrix[1, 2])):  # fmt: skip
        assert value == pytest.approx(stored, rel=0.002)


def test_a_picture_with_an_overlay_over_the_board_is_refused(shared_data: Path):
    files = image_files(shared_data / "handeye_doosan_charuco" / "data" / "images")
    with pytest.raises(CalibrationError, match=r"is in none of \d+ pictures"):
        load_captures(files, DOOSAN)
