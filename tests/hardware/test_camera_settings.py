"""From settings to a driver, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_rl.errors import CameraLost, ConfigError
from robot_rl.hardware.camera_settings import CameraSettings, make_camera
from robot_rl.hardware.recorded_camera import RecordedCamera
from robot_rl.hardware.uvc import UvcCamera
from tests.hardware.camera_data import HandClock, pictures

UVC = CameraSettings(driver="uvc", frame_id="front", width=64, height=48, fps=30.0, device="/dev/video97")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    np.save(tmp_path / "clip.npy", pictures(5))
    return tmp_path / "clip.npy"


def test_an_array_file_plays_at_the_rate_that_is_asked_for(clip: Path):
    settings = CameraSettings(driver="recorded", frame_id="wrist", source=str(clip), fps=50.0, width=16)
    camera = make_camera(settings, HandClock())
    assert isinstance(camera, RecordedCamera)
    assert (camera.info.frame_id, camera.info.fps, camera.info.height) == ("wrist", 50.0, 12)
    camera.open()
    frames = [camera.read(1.0) for _ in range(3)]
    assert [int(f.color[0, 0, 0]) for f in frames] == [0, 1, 2]
    assert np.diff([f.stamp_ns for f in frames]).tolist() == [20_000_000] * 2


def test_a_presence_file_makes_a_recorded_camera_unplugged(clip: Path, tmp_path: Path):
    settings = CameraSettings(driver="recorded", frame_id="wrist", source=str(clip), presence=str(tmp_path / "plug"))
    with pytest.raises(CameraLost, match="plug is missing"):
        make_camera(settings).open()


def test_a_uvc_camera_gets_its_calibration(tmp_path: Path):
    (tmp_path / "front.yaml").write_text(
        "{image_width: 64, image_height: 48, distortion_model: plumb_bob, "
        "camera_matrix: {rows: 3, cols: 3, data: [1, 0, 2, 0, 3, 4, 0, 0, 1]}, "
        "distortion_coefficients: {rows: 1, cols: 0, data: []}}"
    )
    camera = make_camera(replace(UVC, calibration=str(tmp_path / "front.yaml")))
    assert isinstance(camera, UvcCamera)
    assert camera.info.K == (1, 0, 2, 0, 3, 4, 0, 0, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"driver": "webcam"}, r"`driver` must be one of \('realsense', 'uvc', 'recorded'\), got 'webcam'"),
        ({"device": ""}, "`device` is missing"),
        ({"fps": 0.0}, "width, height and fps must be positive"),
        ({"depth": True}, "a UVC camera has no depth"),
        ({"driver": "recorded"}, "`source` is missing"),
        ({"driver": "recorded", "source": "no.npy"}, r"no\.npy cannot be played as a camera"),
        ({"driver": "recorded", "source": "no.mp4"}, r"no\.mp4 cannot be played as a camera"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        make_camera(replace(UVC, **changes))


def test_a_size_that_the_recording_does_not_have_is_refused(clip: Path):
    with pytest.raises(ConfigError, match=r"`height` must be 12, as .*clip\.npy was recorded \(or 0\), got 480"):
        make_camera(CameraSettings(driver="recorded", frame_id="wrist", source=str(clip), height=480))
