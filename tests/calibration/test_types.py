"""Poses and camera models: algebra, OpenCV's formulas, and what is refused."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.calibration_types import CalibrationFile, CameraIntrinsics, Pose
from robot_rl.errors import ConfigError, SpecError
from tests.calibration.rig_data import CAMERAS, FISHEYE, PINHOLE

numbers = st.floats(-3, 3, allow_nan=False)
poses = st.builds(
    lambda turn, shift: Pose.from_rotation_vector(turn, shift), st.tuples(*[numbers] * 3), st.tuples(*[numbers] * 3)
)


@given(poses, poses)
def test_poses_form_a_group(a: Pose, b: Pose):
    point = np.array([0.3, -0.2, 1.0])
    np.testing.assert_allclose((a @ b).apply(point), a.apply(b.apply(point)), atol=1e-9)
    np.testing.assert_allclose((a @ b).matrix, a.matrix @ b.matrix, atol=1e-9)
    np.testing.assert_allclose((a @ a.inverse()).matrix, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(Pose.from_quaternion(a.quaternion, a.translation).matrix, a.matrix, atol=1e-9)
    np.testing.assert_allclose(Pose.from_matrix(a.matrix).rotation_vector, a.rotation_vector, atol=1e-6)


def test_a_quarter_turn_about_z_takes_x_to_y():
    pose = Pose.from_quaternion([0, 0, np.sqrt(0.5), np.sqrt(0.5)], [1, 2, 3])
    np.testing.assert_allclose(pose.apply(np.array([1.0, 0.0, 0.0])), [1, 3, 3], atol=1e-12)
    assert pose.angle == pytest.approx(np.pi / 2)


def test_a_pose_cannot_be_written_to():
    pose = Pose.identity()
    with pytest.raises(ValueError, match="read-only"):
        pose.translation[0] = 1.0


def test_a_rotation_rounded_to_four_digits_is_made_exact():
    exact = Pose.from_rotation_vector([0.4, -0.7, 1.1], [0, 0, 0]).rotation
    pose = Pose(np.round(exact, 4), np.zeros(3))
    np.testing.assert_allclose(pose.rotation @ pose.rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(pose.rotation, exact, atol=1e-4)


@pytest.mark.parametrize(
    ("rotation", "translation", "message"),
    [
        (np.eye(3), [350.0, 20.0, 410.0], "If these are millimetres, divide them by 1000"),
        (np.diag([1.0, 1.0, -1.0]), [0, 0, 0], "left-handed"),
        (2 * np.eye(3), [0, 0, 0], "must be orthonormal"),
        (np.eye(3), [0, np.nan, 0], "must be finite"),
        (np.eye(4), [0, 0, 0], r"rotation \(3, 3\)"),
    ],
)
def test_a_pose_that_is_none_is_refused(rotation: np.ndarray, translation: list[float], message: str):
    with pytest.raises(SpecError, match=message):
        Pose(rotation, np.asarray(translation, dtype=float))


def test_a_transposed_matrix_and_a_quaternion_of_another_length_are_refused():
    with pytest.raises(SpecError, match="is it transposed"):
        Pose.from_matrix(Pose.from_rotation_vector([0, 0, 0], [1, 0, 0]).matrix.T)
    with pytest.raises(SpecError, match="x, y, z, w of length 1"):
        Pose.from_quaternion([0.2, 0.3, 0.1, 0.1], [0, 0, 0])


@pytest.mark.parametrize("model", CAMERAS)
def test_projection_is_opencvs(model: str):
    camera = CAMERAS[model]
    points = np.random.default_rng(0).uniform([-0.3, -0.2, 0.4], [0.3, 0.2, 1.0], (50, 3))
    project = cv2.fisheye.projectPoints if model == "fisheye" else cv2.projectPoints
    cloud = points.reshape(-1, 1, 3)
    expected, _ = project(cloud, np.zeros(3), np.zeros(3), camera.matrix, np.asarray(camera.distortion))
    np.testing.assert_allclose(camera.project(points), expected.reshape(-1, 2), atol=1e-8)


@pytest.mark.parametrize("model", CAMERAS)
def test_the_axis_meets_the_principal_point_and_nothing_behind_is_seen(model: str):
    pixels = CAMERAS[model].project(np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]))
    np.testing.assert_allclose(pixels[0], [CAMERAS[model].cx, CAMERAS[model].cy])
    assert np.isnan(pixels[1]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "wide"}, "must be one of"),
        ({"distortion": (0.1, 0.2)}, "pinhole camera has 5 coefficients, got 2"),
        ({"fx": -1.0}, "`fx` must be positive"),
        ({"cy": float("nan")}, "must be finite"),
    ],
)
def test_a_camera_that_is_none_is_refused(change: dict, message: str):
    values = {"model": "pinhole", "width": 4, "height": 3, "fx": 1.0, "fy": 1.0, "cx": 1.0, "cy": 1.0} | change
    with pytest.raises(SpecError, match=message):
        CameraIntrinsics(**values)


def _file(**change: object) -> CalibrationFile:
    values = {
        "kind": "latency", "values": {"camera_s": 0.04}, "frames": {}, "date": "2026-01-01T00:00:00+00:00",
        "device_serial": "", "method": "by hand", "residuals": {}, "image_digest": "",
    } | change  # fmt: skip
    return CalibrationFile(**values)


def test_units_come_from_names_types_or_the_mapping():
    file = _file(values={"camera_s": 0.04, "T_base_camera": Pose.identity(), "camera": FISHEYE, "ratio": 2.0,
                         "note": "warm"}, units={"ratio": "1"})  # fmt: skip
    assert [file.unit_of(name) for name in ("camera_s", "T_base_camera", "camera", "ratio", "note")] == [
        "s", "m, quaternion xyzw", "px", "1", "",
    ]  # fmt: skip


def test_a_number_without_a_unit_and_an_unknown_kind_are_refused():
    with pytest.raises(ConfigError, match="`speed` of a latency calibration has no unit"):
        _file(values={"speed": 3.0})
    with pytest.raises(ConfigError, match="must be one of"):
        _file(kind="colour", values={"camera": PINHOLE})
