"""The RealSense driver as far as it goes without hardware: the real librealsense, with nothing plugged in."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from robot_rl.errors import CameraError, CameraLost, ConfigError, MissingExtraError
from robot_rl.hardware.cameras import CameraInfo
from robot_rl.hardware.realsense import RealSenseCamera

INFO = CameraInfo(width=64, height=48, fps=30.0, frame_id="wrist_color_optical_frame", has_depth=True)


def test_the_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    with pytest.raises(MissingExtraError, match=r"pyrealsense2 is needed here.*pip install 'robot-rl\[realsense\]'"):
        RealSenseCamera(INFO)


@pytest.fixture
def rs() -> Any:
    return pytest.importorskip("pyrealsense2", reason="pyrealsense2 is not installed; see extra `realsense`")


def test_a_camera_that_is_not_there_is_lost(rs: Any):
    for serial in ("", "123"):
        camera = RealSenseCamera(INFO, serial=serial)
        with pytest.raises(CameraLost, match=r"RealSense ?\d* is not there; RealSense cameras found: \[\]"):
            camera.open()
        with pytest.raises(CameraError, match="is not open; call open first"):
            camera.read(0.0)
        camera.close()


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="transport_s=-1"):
        RealSenseCamera(INFO, transport_s=-1)
    with pytest.raises(ConfigError, match=r"fps=29\.97"):
        RealSenseCamera(CameraInfo(width=1, height=1, fps=29.97, frame_id="a"))
