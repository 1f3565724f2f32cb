"""Calibration files: what is written is read, stale ones are refused, ROS reads and writes the same cameras."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml

from calibration.files import load_calibration, save_calibration, today
from calibration.ros_files import (
    publisher_arguments,
    read_camera_info,
    read_static_transforms,
    write_camera_info,
    write_static_transforms,
)
from robot_rl.calibration_types import CalibrationFile, CameraIntrinsics, Pose
from robot_rl.errors import CalibrationError, ConfigError
from robot_rl.hardware.camera_info import load_camera_info
from robot_rl.hardware.cameras import CameraInfo
from tests.calibration.rig_data import CAMERAS, PINHOLE

MADE = datetime(2026, 3, 1, tzinfo=UTC)
POSE = Pose.from_rotation_vector([0.1, -2.0, 0.4], [0.03, -0.05, 0.6])


def _calibration(**values: object) -> CalibrationFile:
    return CalibrationFile(
        kind="hand_eye",
        values={"camera": PINHOLE, "T_base_camera": POSE, "delay_s": 1e-5, "offsets_rad": np.array([0.1, -1e-7])}
        | values,
        frames={"T_base_camera": "camera_color_optical_frame -> base"},
        date=MADE.isoformat(),
        device_serial="826212070219",
        method="by hand",
        residuals={"heldout_rms_px": 0.21},
        image_digest="ab" * 32,
    )


def test_what_is_written_is_read_to_the_last_digit(tmp_path: Path):
    calibration = _calibration(note="warm", many_m=[POSE, POSE.inverse()])
    path = save_calibration(calibration, tmp_path / "a" / "c.yaml")
    read = load_calibration(path, kind="hand_eye", serial="826212070219", size=(640, 480), now=MADE)
    assert read.values["camera"] == PINHOLE
    np.testing.assert_allclose(read.values["T_base_camera"].matrix, POSE.matrix, atol=1e-15)
    np.testing.assert_allclose(read.values["many_m"][1].matrix, POSE.inverse().matrix, atol=1e-15)
    assert read.values["delay_s"] == 1e-5
    assert read.values["offsets_rad"] == [0.1, -1e-7]
    assert (read.values["note"], read.unit_of("delay_s")) == ("warm", "s")
    assert (read.frames, read.residuals, read.date) == (
        {"T_base_camera": "camera_color_optical_frame -> base"}, {"heldout_rms_px": 0.21}, MADE.isoformat()
    )  # fmt: skip


def test_a_person_finds_units_beside_the_values(tmp_path: Path):
    document = yaml.safe_load(save_calibration(_calibration(), tmp_path / "c.yaml").read_text())
    assert document["values"]["delay_s"] == {"value": 1e-5, "unit": "s"}
    assert document["values"]["T_base_camera"]["unit"] == "m, quaternion xyzw"
    assert set(document["values"]["T_base_camera"]["value"]) == {"translation_m", "quaternion_xyzw"}
    assert datetime.fromisoformat(today()).tzinfo is not None


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"now": MADE + timedelta(days=200)}, "made 200 days ago, 180 are allowed"),
        ({"now": MADE + timedelta(days=8), "max_age_days": 7}, "made 8 days ago, 7 are allowed"),
        ({"now": MADE - timedelta(days=3)}, "3 days in the future"),
        ({"now": MADE, "serial": "123"}, "made for 826212070219, the device in use is 123"),
        ({"now": MADE, "size": (1280, 720)}, "`camera` holds at 640 x 480, pictures are 1280 x 720"),
    ],
)
def test_a_stale_calibration_is_refused_unless_allowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ask: dict, message: str
):
    path = save_calibration(_calibration(), tmp_path / "c.yaml")
    with pytest.raises(CalibrationError, match=f"is stale: .*{message}.*allow it expressly"):
        load_calibration(path, **ask)
    with caplog.at_level(logging.WARNING, logger="calibration.files"):
        assert load_calibration(path, **ask, allow_stale=True).values["camera"] == PINHOLE
    assert message in caplog.text


def test_any_age_is_taken_when_none_is_set(tmp_path: Path):
    path = save_calibration(_calibration(), tmp_path / "c.yaml")
    load_calibration(path, max_age_days=None, now=MADE + timedelta(days=9999))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format_version: 1", "format_version: 9", "format_version 9, this version reads 1"),
        ("method: by hand\n", "", r"it lacks \['method'\]"),
        ("model: pinhole", "model: lens", "is damaged: camera `model`"),
        ("date: '2026-03-01", "date: 'March 1", "ISO 8601"),
        ("format_version: 1", "format_version: [", "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, old: str, new: str, message: str):
    path = save_calibration(_calibration(), tmp_path / "c.yaml")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        load_calibration(path, now=MADE)


def test_another_kind_and_a_missing_file_are_refused(tmp_path: Path):
    path = save_calibration(_calibration(), tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="is a hand_eye calibration, a latency calibration is needed"):
        load_calibration(path, kind="latency", now=MADE)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_calibration(tmp_path / "none.yaml")


def test_a_value_that_yaml_cannot_hold_is_refused_and_nothing_is_left(tmp_path: Path):
    with pytest.raises(ConfigError, match="`thing_m` cannot be written"):
        save_calibration(_calibration(thing_m=object()), tmp_path / "c.yaml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", CAMERAS)
def test_ros_reads_the_camera_and_gives_it_back(tmp_path: Path, model: str):
    camera = CAMERAS[model]
    path = write_camera_info(camera, tmp_path / "info.yaml", name="wrist")
    assert read_camera_info(path) == camera
    info = load_camera_info(path, CameraInfo(width=640, height=480, fps=30.0, frame_id="wrist"))
    assert (info.K[0], info.D) == (camera.fx, camera.distortion)
    assert yaml.safe_load(path.read_text())["camera_name"] == "wrist"


def test_camera_info_with_four_coefficients_is_read_and_what_cannot_be_is_refused(tmp_path: Path):
    path = write_camera_info(PINHOLE, tmp_path / "info.yaml")
    document = yaml.safe_load(path.read_text())
    document["distortion_coefficients"] = {"rows": 1, "cols": 4, "data": [0.1, 0.2, 0.3, 0.4]}
    path.write_text(yaml.safe_dump(document))
    assert read_camera_info(path).distortion == (0.1, 0.2, 0.3, 0.4, 0.0)
    document["distortion_coefficients"] = {"rows": 1, "cols": 8, "data": [0.1] * 8}
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match="plumb_bob is read with 5 coefficients, got 8"):
        read_camera_info(path)
    document["camera_matrix"]["data"][1] = 3.0
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match="skewed"):
        read_camera_info(path)
    path.write_text("camera_matrix: 3\n")
    with pytest.raises(ConfigError, match="needs image_width and image_height"):
        read_camera_info(path)


def test_static_transforms_go_to_a_file_and_back(tmp_path: Path):
    transforms = {("base", "camera_link"): POSE, ("tool0", "board"): POSE.inverse()}
    read = read_static_transforms(write_static_transforms(transforms, tmp_path / "tf.yaml"))
    assert list(read) == list(transforms)
    for frames, pose in transforms.items():
        np.testing.assert_allclose(read[frames].matrix, pose.matrix, atol=1e-15)
    (tmp_path / "tf.yaml").write_text("static_transforms: [{child_frame_id: a}]")
    with pytest.raises(ConfigError, match="needs `static_transforms`"):
        read_static_transforms(tmp_path / "tf.yaml")


def test_publisher_arguments_name_parent_and_child():
    words = publisher_arguments("base", "camera", Pose(np.eye(3), np.array([1.0, 2.0, 3.0])))
    assert words == ["--x", "1", "--y", "2", "--z", "3", "--qx", "0", "--qy", "0", "--qz", "0", "--qw", "1",
                     "--frame-id", "base", "--child-frame-id", "camera"]  # fmt: skip


def test_intrinsics_without_distortion_have_zeros():
    assert CameraIntrinsics(model="fisheye", width=4, height=3, fx=1, fy=1, cx=1, cy=1).distortion == (0.0,) * 4
