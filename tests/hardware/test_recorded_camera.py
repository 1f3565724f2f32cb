"""Recorded frames as a camera: values, timing on a clock stepped by hand, sources, and being pulled out."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from robot_rl.data.store import EpisodeStore
from robot_rl.errors import CameraError, CameraLost, CameraTimeout, ConfigError
from robot_rl.hardware.cameras import CameraInfo
from robot_rl.hardware.recorded_camera import RecordedCamera, from_array, from_store, from_video
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, Stream
from tests.contracts.camera import check_camera
from tests.hardware.camera_data import MS, START_NS, HandClock, pictures


def test_frames_come_in_order_when_due_and_carry_the_time_they_were_due():
    clock = HandClock()
    camera = from_array(pictures(3), fps=20.0, clock=clock)
    camera.open()
    for i, stamp_ms in enumerate((0, 50, 100, 150, 200)):
        frame = camera.read(1.0)
        assert frame.color[0, 0, 0] == i % 3, "loops after the last frame"
        assert frame.stamp_ns == START_NS + stamp_ms * MS
        assert frame.receipt_ns == clock.monotonic_ns()
    assert clock.slept_s == pytest.approx(0.2)


def test_a_frame_that_is_not_due_in_time_is_a_timeout_and_not_lost():
    clock = HandClock()
    camera = from_array(pictures(3), fps=20.0, clock=clock)
    camera.open()
    camera.read(0.0)
    with pytest.raises(CameraTimeout, match=r"gave no frame within 0\.02 s"):
        camera.read(0.02)
    assert clock.slept_s == pytest.approx(0.02)
    assert camera.read(0.03).color[0, 0, 0] == 1


def test_a_late_reader_finds_the_newest_frames_of_a_short_queue_and_a_count_of_the_others():
    clock = HandClock()
    camera = from_array(pictures(100), fps=100.0, clock=clock)
    camera.open()
    clock.sleep(0.5)
    frame = camera.read(0.0)
    assert frame.color[0, 0, 0] == 46
    assert frame.stamp_ns == START_NS + 460 * MS
    assert camera.dropped == 46


def test_stamps_follow_ros_time_when_it_jumps():
    clock = HandClock()
    camera = from_array(pictures(3), fps=10.0, clock=clock)
    camera.open()
    camera.read(0.0)
    clock.jump_ns = 3_600_000_000_000
    assert camera.read(1.0).stamp_ns == START_NS + 3_600_000_000_000 + 100 * MS


def test_without_loop_the_camera_is_lost_at_the_end_and_starts_anew_when_opened():
    camera = from_array(pictures(2), fps=10.0, loop=False, clock=HandClock())
    camera.open()
    assert [camera.read(1.0).color[0, 0, 0] for _ in range(2)] == [0, 1]
    with pytest.raises(CameraLost, match="the recording has ended"):
        camera.read(1.0)
    with pytest.raises(CameraError, match="is not open"):
        camera.read(1.0)
    camera.open()
    assert camera.read(1.0).color[0, 0, 0] == 0


def test_it_is_there_exactly_while_its_presence_file_is(tmp_path: Path):
    plug = tmp_path / "video0"
    camera = from_array(pictures(3), fps=10.0, presence=plug, clock=HandClock())
    with pytest.raises(CameraLost, match="video0 is missing"):
        camera.open()
    plug.touch()
    camera.open()
    camera.read(1.0)
    plug.unlink()
    with pytest.raises(CameraLost, match="video0 is missing"):
        camera.read(1.0)
    plug.touch()
    camera.open()
    assert camera.read(1.0).color[0, 0, 0] == 0


def test_depth_goes_with_its_picture():
    depth = np.arange(3, dtype=np.uint16)[:, None, None] * 1000 + np.zeros((1, 12, 16), np.uint16)
    camera = from_array(pictures(3), fps=10.0, depth=depth, clock=HandClock())
    camera.open()
    assert camera.info.has_depth
    for i in range(3):
        frame = camera.read(1.0)
        assert frame.depth is not None
        assert frame.color[0, 0, 0] == i
        assert (frame.depth == 1000 * i).all()


def test_an_episode_plays_with_its_own_timing_and_the_newest_depth(tmp_path: Path):
    spec = RobotSpec(
        name="arm",
        obs={
            "wrist": ArraySpec(name="wrist", shape=(12, 16, 3), dtype="uint8"),
            "wrist_depth": ArraySpec(name="wrist_depth", shape=(12, 16), dtype="uint16", unit="mm"),
        },
        action=ActionSpec(name="action", shape=(1,)),
        control_hz=10.0,
    )
    store = EpisodeStore.create(tmp_path / "store", spec, codecs={"wrist": "png"})
    depth = np.array([7, 8], np.uint16)[:, None, None] + np.zeros((1, 12, 16), np.uint16)
    streams = {
        "wrist": Stream(np.array([1000, 1040, 1110], np.int64) * MS, pictures(3)),
        "wrist_depth": Stream(np.array([1005, 1050], np.int64) * MS, depth),
        "action": Stream(np.array([1000], np.int64) * MS, np.zeros((1, 1), np.float32)),
    }
    id = store.append(Recording(streams))
    camera = from_store(tmp_path / "store", episode=id, stream="wrist", depth_stream="wrist_depth", clock=HandClock())
    camera.open()
    frames = [camera.read(1.0) for _ in range(3)]
    assert [(f.stamp_ns - START_NS) // MS for f in frames] == [0, 40, 110]
    assert [int(f.color[0, 0, 0]) for f in frames] == [0, 1, 2]
    assert [int(f.depth[0, 0]) for f in frames if f.depth is not None] == [7, 7, 8]
    with pytest.raises(ConfigError, match=r"has no stream \['front'\]; it has \['action', 'wrist', 'wrist_depth'\]"):
        from_store(tmp_path / "store", episode=id, stream="front")


def test_a_video_plays_with_its_own_timing(tmp_path: Path):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 16, 12, "bgr0"
        for picture in pictures(4):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
    camera = from_video(path, clock=HandClock())
    assert (camera.info.width, camera.info.height, camera.info.fps) == (16, 12, 25.0)
    camera.open()
    for i in range(6):
        frame = camera.read(1.0)
        np.testing.assert_array_equal(frame.color, pictures(4)[i % 4])
        assert frame.stamp_ns == START_NS + 40 * i * MS
    (tmp_path / "not.mkv").write_bytes(b"nothing")
    for bad in ("not.mkv", "missing.mkv"):
        with pytest.raises(ConfigError, match=f"{bad} cannot be played as a camera"):
            from_video(tmp_path / bad)


def test_frames_of_another_size_than_promised_are_refused():
    info = CameraInfo(width=8, height=8, fps=10.0, frame_id="wrist")
    camera = RecordedCamera(lambda: iter([(0, pictures(1)[0], None)]), info, clock=HandClock())
    camera.open()
    with pytest.raises(CameraError, match=r"`wrist` must give uint8\(8, 8, 3\), got uint8\(12, 16, 3\)"):
        camera.read(1.0)


@pytest.mark.parametrize(
    ("color", "depth", "message"),
    [
        (np.zeros((0, 4, 4, 3), np.uint8), None, "needs uint8"),
        (np.zeros((2, 4, 4, 1), np.uint8), None, "needs uint8"),
        (np.zeros((2, 4, 4, 3), np.float32), None, "needs uint8.*got float32"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((1, 4, 4), np.uint16), r"depth must be uint16\(2, 4, 4\)"),
    ],
)
def test_what_is_no_recording_of_a_camera_is_refused(color: np.ndarray, depth: np.ndarray | None, message: str):
    with pytest.raises(ConfigError, match=message):
        from_array(color, fps=10.0, depth=depth)


def test_recorded_camera_is_a_camera():
    check_camera(lambda: from_array(pictures(50), fps=100.0))
    depth = np.zeros((50, 12, 16), np.uint16)
    check_camera(lambda: from_array(pictures(50), fps=100.0, depth=depth))
