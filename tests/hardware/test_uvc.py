"""The UVC driver over OpenCV's own VideoCapture, which reads a file here because no camera is plugged in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from robot_rl.errors import CameraError, CameraLost, CameraTimeout, ConfigError
from robot_rl.hardware.cameras import CameraInfo
from robot_rl.hardware.uvc import UvcCamera, capture_time_ns
from tests.contracts.camera import check_camera
from tests.hardware.camera_data import MS

INFO = CameraInfo(width=64, height=48, fps=100.0, frame_id="front_color_optical_frame")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 frames of 10 ms; red grows by one every third frame, and only red."""
    path = tmp_path_factory.mktemp("uvc") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 100.0, (64, 48))
    for i in range(300):
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[..., 2] = i // 3 + 100
        writer.write(picture)
    writer.release()
    return path


class Paced:
    """OpenCV's capture of a file, one frame every 10 ms as a device gives them, optionally stamped as V4L2 does."""

    def __init__(self, path: Any, backend: int, *, stamped: bool = False) -> None:
        self._capture = cv2.VideoCapture(str(path), backend)
        self._stamped = stamped

    def read(self) -> Any:
        time.sleep(0.01)
        self._grabbed_ms = time.monotonic_ns() / 1e6 - 4.0
        return self._capture.read()

    def get(self, what: int) -> float:
        if self._stamped and what == cv2.CAP_PROP_POS_MSEC:
            return self._grabbed_ms
        return float(self._capture.get(what))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._capture, name)


def test_uvc_camera_is_a_camera(clip: Path):
    check_camera(lambda: UvcCamera(str(clip), INFO, backend="any", fourcc="", capture=Paced))


def test_colours_are_rgb_and_the_configured_latency_is_taken_off(clip: Path):
    camera = UvcCamera(str(clip), INFO, backend="any", fourcc="", latency_s=0.25, capture=Paced)
    camera.open()
    frame = camera.read(5.0)
    camera.close()
    mean = frame.color.reshape(-1, 3).mean(axis=0)
    assert mean[0] > 90
    assert mean[2] < 20
    received_ros_ns = time.time_ns() - (time.monotonic_ns() - frame.receipt_ns)
    assert received_ros_ns - frame.stamp_ns == pytest.approx(250 * MS, abs=5 * MS)


def test_the_drivers_own_time_of_capture_is_used_where_it_gives_one(clip: Path):
    camera = UvcCamera(
        str(clip), INFO, backend="any", fourcc="", latency_s=0.25, capture=lambda p, b: Paced(p, b, stamped=True)
    )
    camera.open()
    frame = camera.read(5.0)
    camera.close()
    received_ros_ns = time.time_ns() - (time.monotonic_ns() - frame.receipt_ns)
    assert 4 * MS - MS / 10 <= received_ros_ns - frame.stamp_ns < 200 * MS


@pytest.mark.parametrize(
    ("position_ms", "read_ms", "wanted_ms"),
    [
        (10_000.0, 10_030.0, 10_000.0),  # V4L2: monotonic time of capture
        (0.0, 10_030.0, 10_010.0),  # no time
        (40.0, 10_030.0, 10_010.0),  # position in a file
        (1.7e12, 10_030.0, 10_010.0),  # wall time
        (10_031.0, 10_030.0, 10_010.0),  # the future
    ],
)
def test_what_counts_as_a_time_of_capture(position_ms: float, read_ms: float, wanted_ms: float):
    assert capture_time_ns(position_ms, round(read_ms * MS), 20 * MS) == round(wanted_ms * MS)


def _read_forever(camera: UvcCamera) -> None:
    while True:
        camera.read(5.0)


def test_a_camera_that_ends_is_lost_and_can_be_opened_again(clip: Path):
    camera = UvcCamera(str(clip), INFO, backend="any", fourcc="")
    camera.open()
    with pytest.raises(CameraLost, match="gives no more frames"):
        _read_forever(camera)
    camera.open()
    assert camera.read(5.0).color.shape == (48, 64, 3)
    camera.close()


def test_a_camera_that_hangs_is_a_timeout(clip: Path):
    class Hanging(Paced):
        def read(self) -> Any:
            time.sleep(0.4)
            return super().read()

    camera = UvcCamera(str(clip), INFO, backend="any", fourcc="", capture=Hanging)
    camera.open()
    with pytest.raises(CameraTimeout, match=r"gave no frame within 0\.02 s"):
        camera.read(0.02)
    assert camera.read(5.0).color.shape == (48, 64, 3)
    camera.close()


def test_a_device_that_is_not_there_is_lost(tmp_path: Path):
    camera = UvcCamera(str(tmp_path / "video7"), INFO, backend="any")
    with pytest.raises(CameraLost, match="video7 cannot be opened: not plugged in, no permission, or in use"):
        camera.open()
    with pytest.raises(CameraLost, match="/dev/video97 cannot be opened"):
        UvcCamera("/dev/video97", INFO).open()


def test_another_size_than_asked_for_is_refused(clip: Path):
    info = CameraInfo(width=32, height=48, fps=30.0, frame_id="front")
    with pytest.raises(CameraError, match="must give 32 x 48, it gives 64 x 48; ask for a size it has"):
        UvcCamera(str(clip), info, backend="any", fourcc="").open()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"backend": "directshow"}, r"`backend` must be one of \['any', 'v4l2'\], got 'directshow'"),
        ({"fourcc": "JPEG2000"}, "`fourcc` must be four letters or empty, got 'JPEG2000'"),
        ({"latency_s": -0.1}, r"a latency >= 0 s, got has_depth=False, latency_s=-0\.1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kwargs: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        UvcCamera(0, INFO, **kwargs)
