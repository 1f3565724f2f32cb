"""Cameras that come back, their calibration files, their health, and a device's clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.errors import CameraError, CameraTimeout, ConfigError
from robot_rl.hardware.camera_health import CameraHealth
from robot_rl.hardware.camera_info import load_camera_info
from robot_rl.hardware.cameras import CameraInfo, Frame, Reconnecting
from robot_rl.hardware.device_clock import DeviceClock
from robot_rl.hardware.recorded_camera import RecordedCamera, from_array
from tests.contracts.camera import check_camera
from tests.hardware.camera_data import MS, START_NS, HandClock, pictures

INFO = CameraInfo(width=640, height=480, fps=30.0, frame_id="wrist_color_optical_frame")


@pytest.fixture
def plug(tmp_path: Path) -> Path:
    path = tmp_path / "video0"
    path.touch()
    return path


def _reconnecting(plug: Path, clock: HandClock, **kwargs: float) -> Reconnecting:
    camera = from_array(pictures(200), fps=100.0, presence=plug, clock=clock)
    return Reconnecting(camera, name="wrist", clock=clock, **kwargs)  # type: ignore[arg-type]


def test_a_camera_that_was_pulled_out_comes_back_by_itself(plug: Path):
    clock = HandClock()
    camera = _reconnecting(plug, clock)
    camera.open()
    before = camera.read(1.0)
    assert camera.connected
    plug.unlink()
    with pytest.raises(CameraTimeout, match=r"`wrist` has been away for 0\.2 s, 1 tries.*is missing"):
        camera.read(0.25)
    assert (camera.connected, camera.losses) == (False, 1)
    assert "video0 is missing" in camera.trouble
    plug.touch()
    after = camera.read(1.0)
    assert after.stamp_ns > before.stamp_ns
    assert (camera.connected, camera.losses, camera.trouble) == (True, 1, "")


def test_the_pauses_between_tries_double_up_to_the_longest(plug: Path):
    clock = HandClock()
    camera = _reconnecting(plug, clock, first_wait_s=0.1, max_wait_s=0.4)
    plug.unlink()
    camera.open()
    tries = []
    start = clock.monotonic_ns()
    for _ in range(200):
        before = camera.tries
        with pytest.raises(CameraTimeout):
            camera.read(0.01)
        if camera.tries > before:
            tries.append(round((clock.monotonic_ns() - start) / 1e9, 2))
    np.testing.assert_allclose(tries[:5], [0.1, 0.3, 0.7, 1.1, 1.5], atol=0.011)


def test_a_camera_that_was_not_there_at_first_is_waited_for(plug: Path):
    clock = HandClock()
    camera = _reconnecting(plug, clock)
    plug.unlink()
    camera.open()
    with pytest.raises(CameraError, match=r"has not been there yet, so its info is not known: .*video0 is missing"):
        _ = camera.info
    with pytest.raises(CameraTimeout):
        camera.read(0.5)
    plug.touch()
    assert camera.read(2.0).color[0, 0, 0] == 0
    assert camera.info.width == 16


def test_a_silent_camera_counts_as_lost_and_is_opened_again():
    clock = HandClock()
    opened = []

    def source():
        opened.append(clock.monotonic_ns())
        yield 0, pictures(1)[0], None
        yield 3600_000 * MS, pictures(1)[0], None  # falls silent for an hour

    info = CameraInfo(width=16, height=12, fps=10.0, frame_id="wrist")
    camera = Reconnecting(RecordedCamera(source, info, clock=clock), silent_s=1.0, clock=clock)
    camera.open()
    camera.read(0.0)
    for _ in range(9):
        with pytest.raises(CameraTimeout, match="gave no frame within"):
            camera.read(0.1)
    assert (camera.losses, len(opened)) == (0, 1)
    frame = camera.read(0.5)
    assert (camera.losses, len(opened)) == (1, 2)
    assert frame.stamp_ns - START_NS == pytest.approx(1100 * MS, abs=MS)


def test_a_camera_that_comes_back_as_another_one_is_refused(plug: Path):
    clock = HandClock()
    inner = from_array(pictures(5), fps=100.0, presence=plug, clock=clock)
    camera = Reconnecting(inner, name="wrist", clock=clock)
    camera.open()
    camera.read(1.0)
    plug.unlink()
    with pytest.raises(CameraTimeout):
        camera.read(0.05)
    inner.info = CameraInfo(width=8, height=8, fps=100.0, frame_id="other")
    plug.touch()
    with pytest.raises(CameraError, match=r"`wrist` came back as another one: it was .*width=16.*now it is .*width=8"):
        camera.read(1.0)


def test_reconnecting_is_a_camera():
    check_camera(lambda: Reconnecting(from_array(pictures(50), fps=100.0)))


@pytest.mark.parametrize("waits", [{"first_wait_s": 0.0}, {"first_wait_s": 3.0}, {"silent_s": 0.0}])
def test_pauses_that_make_no_sense_are_refused(waits: dict[str, float]):
    with pytest.raises(ConfigError, match="must be positive and the first pause no longer"):
        Reconnecting(from_array(pictures(1), fps=1.0), **waits)  # type: ignore[arg-type]


def test_info_must_be_of_a_camera():
    with pytest.raises(ConfigError, match="`a`: width, height and fps must be positive, got 0, 2, 3"):
        CameraInfo(width=0, height=2, fps=3, frame_id="a")
    with pytest.raises(ConfigError, match="`K` must be 9 numbers, got 4"):
        CameraInfo(width=1, height=2, fps=3, frame_id="a", K=(1, 2, 3, 4))
    assert CameraInfo(width=1, height=2, fps=30, frame_id="a").period_ns == 33_333_333


CALIBRATION = """
image_width: 640
image_height: 480
camera_name: wrist
camera_matrix: {rows: 3, cols: 3, data: [600.5, 0, 320.25, 0, 601.5, 240.75, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0.001, 0.002, 0.0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
"""


def test_a_calibration_file_gives_the_intrinsics(tmp_path: Path):
    path = tmp_path / "wrist.yaml"
    path.write_text(CALIBRATION)
    info = load_camera_info(path, INFO)
    assert info.K == (600.5, 0, 320.25, 0, 601.5, 240.75, 0, 0, 1)
    assert info.D == (0.1, -0.2, 0.001, 0.002, 0.0)
    assert (info.distortion_model, info.frame_id, info.fps) == ("plumb_bob", INFO.frame_id, 30.0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_width: 640", "image_width: 1280", "was made at 1280 x 480, the camera gives 640 x 480"),
        ("distortion_model: plumb_bob", "", "needs image_width.*'distortion_model'"),
        ("plumb_bob", "fisheye2", "distortion_model must be one of .*got 'fisheye2'"),
        ("cols: 5", "cols: 4", "distortion_coefficients promises 1 x 4 numbers, got 5"),
        ("[600.5, 0,", "[nothing, 0,", "needs image_width.*could not convert"),
        ("camera_matrix: {", "camera_matrix: }", "cannot be read"),
    ],
)
def test_a_calibration_file_that_does_not_fit_is_refused(tmp_path: Path, old: str, new: str, message: str):
    path = tmp_path / "wrist.yaml"
    path.write_text(CALIBRATION.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        load_camera_info(path, INFO)


def test_a_calibration_file_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"wrist\.yaml cannot be read"):
        load_camera_info(tmp_path / "wrist.yaml", INFO)


def _fed(health: CameraHealth, times_ms: list[float], stamps_ms: list[float] | None = None) -> None:
    color = np.zeros((1, 1, 3), np.uint8)
    for t, stamp in zip(times_ms, times_ms if stamps_ms is None else stamps_ms, strict=True):
        health.update(Frame(round(stamp * MS), round(t * MS), color), 2 * MS)


def test_health_tells_rate_latency_and_age():
    health = CameraHealth(20.0)
    assert health.verdict(0).message == "no frame yet"
    _fed(health, [50.0 * i for i in range(41)])
    verdict = health.verdict(2_001 * MS)
    assert (verdict.level, verdict.message) == ("ok", "20.0 Hz")
    assert verdict.values == {
        "rate_hz": "20.00", "asked_hz": "20", "frames": "41", "missing": "0", "age_s": "0.001",
        "latency_p99_ms": "2.00",
    }  # fmt: skip
    assert health.verdict(2_149 * MS).level == "ok"
    late = health.verdict(2_151 * MS)
    assert (late.level, late.message) == ("stale", "no frame for 0.15 s")


def test_health_warns_of_a_slow_camera_and_counts_missing_frames():
    health = CameraHealth(20.0)
    _fed(health, [100.0 * i for i in range(21)])
    verdict = health.verdict(2_001 * MS)
    assert (verdict.level, verdict.message) == ("warn", "10.0 Hz instead of 20")
    assert health.missing == 20
    health = CameraHealth(20.0)
    _fed(health, [0, 50, 100], [0, 50, 250])
    assert health.missing == 3


def test_health_names_the_trouble_of_a_camera_that_is_away():
    health = CameraHealth(20.0)
    _fed(health, [0, 50, 100])
    verdict = health.verdict(120 * MS, trouble="video0 is missing")
    assert (verdict.level, verdict.message) == ("error", "away: video0 is missing")


@given(st.lists(st.integers(0, 5 * MS), min_size=50, max_size=50), st.integers(-(10**15), 10**15))
def test_device_clock_is_exact_up_to_the_shortest_transport(delays: list[int], offset: int):
    clock = DeviceClock(transport_ns=3 * MS)
    delays[0] = 0
    for i, delay in enumerate(delays):
        captured = i * 33 * MS
        got = clock.to_host(captured - offset, captured + 3 * MS + delay)
        assert got == captured, "the first sample was the least delayed, so every stamp is exact"


def test_device_clock_follows_drift_and_a_restart():
    clock = DeviceClock(window=10)
    for i in range(100):
        captured = i * 33 * MS
        got = clock.to_host(round(captured * (1 - 20e-6)), captured)
    assert abs(got - captured) <= 10 * 33 * MS * 20e-6
    assert clock.to_host(5 * MS, 100 * 33 * MS) == 100 * 33 * MS, "the device started its clock anew"
    assert clock.to_host(100_000 * MS, 101 * 33 * MS) == 101 * 33 * MS, "it jumped ahead"
