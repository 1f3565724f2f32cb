from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from robot_rl.data.attempt import FULL, LATE, REFUSED, Attempt, FramePool
from robot_rl.data.plan import RecordingPlan
from robot_rl.data.recorder_lock import RecorderLock
from robot_rl.data.session import RESERVE_BYTES, RecordingSession
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import RecordingError
from robot_rl.values import RecordingMeta

MS = 1_000_000
ROS = 1_700_000_000_000_000_000
META = RecordingMeta(task="lift", source="human")
SHAPE = (80, 96, 3)


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def make_plan(**front: Any) -> RecordingPlan:
    streams: dict[str, dict[str, Any]] = {
        "q": {"topic": "joint_states", "type": "J", "shape": [3], "rate_hz": 500},
        "front": {"topic": "front", "type": "I", "shape": list(SHAPE), "dtype": "uint8", "rate_hz": 50, **front},
        "action": {"topic": "selected/command", "type": "T", "shape": [2]},
        "by_human": {"topic": "control_source", "type": "std_msgs/msg/String", "qos": "latched", "true_when": "human"},
        "reward": {"topic": "reward", "type": "std_msgs/msg/Float32"},
    }
    return RecordingPlan.from_dict({"name": "arm", "control_hz": 20}, streams)


class Rig:
    """A session on a clock of the test's own."""

    def __init__(self, tmp_path: Path, *, plan: RecordingPlan | None = None, free: int = 10**12) -> None:
        self.clock = Clock()
        self.plan = make_plan() if plan is None else plan
        self.store = self.plan.open_store(tmp_path / "store")
        self.session = RecordingSession(
            self.store, self.plan, monotonic_ns=self.clock, max_episode_s=10, free_bytes=lambda: free
        )

    def push(self, stream: str, ms: float, value: Any, **kwargs: Any) -> None:
        self.clock.now = round(ms * MS)
        stamp = kwargs.pop("stamp_ns", ROS + self.clock.now)
        self.session.push(stream, stamp, value, received_ns=ROS + self.clock.now, **kwargs)

    def play(self, start_ms: int, stop_ms: int) -> None:
        """Joints at 500 Hz, pictures and commands at 50 Hz; the value of a sample is its time."""
        for ms in range(start_ms, stop_ms, 2):
            self.push("q", ms, np.full(3, ms, np.float32))
            if ms % 20 == 0:
                while self.session._pools["front"]._free.empty():
                    time.sleep(0.001)  # the test plays faster than real time, and the encoder may fall behind
                self.push("front", ms, np.full(SHAPE, ms // 20 % 250, np.uint8))
                self.push("action", ms, np.full(2, ms, np.float32))

    def start(self) -> str:
        return self.session.start(META, stamp_ns=ROS + self.clock.now)


def test_what_was_pushed_is_what_is_read_with_the_stamps_of_the_source(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.play(0, 500)
    rig.push("by_human", 500, np.array(True), stamp_ns=None)
    id = rig.start()
    assert (rig.session.state, rig.session.episode_id) == ("recording", id)
    rig.play(502, 1500)
    rig.push("reward", 1500, np.float32(1), stamp_ns=None)
    assert rig.session.stop("success", terminated=True).result() == id == rig.session.last_id
    recording = rig.store.read(id)
    times = np.arange(502, 1500, 2)
    np.testing.assert_array_equal(recording.streams["q"].stamp_ns, ROS + times * MS)
    np.testing.assert_array_equal(recording.streams["q"].data[:, 1], times)
    front = np.arange(520, 1500, 20)
    np.testing.assert_array_equal(recording.streams["front"].stamp_ns, ROS + front * MS)
    assert [int(frame[40, 48, 0]) for frame in recording.streams["front"].data[:]] == list(front // 20)
    np.testing.assert_array_equal(recording.streams["reward"].data[:], [1])
    np.testing.assert_array_equal(recording.streams["by_human"].data[:], [True])  # who drove before the start
    assert recording.streams["by_human"].stamp_ns[0] == ROS + 500 * MS
    assert (recording.meta.outcome, recording.meta.terminated, recording.meta.task) == ("success", True, "lift")
    quality = recording.meta.extra["quality"]
    assert quality["level"] == "ok", quality
    assert quality["streams"]["q"]["samples"] == len(times)
    assert quality["streams"]["reward"]["reasons"] == ["stamped on receipt: its messages carry no stamp of their own"]
    assert rig.store.episode(id).by_human.all()


def test_episodes_follow_each_other_and_what_lies_between_is_not_stored(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.play(0, 200)
    ids, saved = [], []
    for begin in (200, 600):
        ids.append(rig.start())
        rig.play(begin, begin + 200)
        saved.append(rig.session.stop())
        rig.play(begin + 200, begin + 400)
    assert [future.result() for future in saved] == ids == rig.store.ids()
    for id, begin in zip(ids, (200, 600), strict=True):
        stamps = rig.store.read(id).streams["q"].stamp_ns
        assert (stamps[0], stamps[-1]) == (ROS + begin * MS, ROS + (begin + 198) * MS)


def test_a_stalled_camera_is_named_in_the_stored_verdict(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.play(0, 200)
    id = rig.start()
    rig.play(200, 1000)
    for ms in range(1000, 1500, 2):
        rig.push("q", ms, np.full(3, ms, np.float32))
    live = rig.session.verdicts()
    assert (live["q"].level, live["front"].level) == ("ok", "error")
    assert live["front"].reasons[0] == "silent for 0.52 s, stale after 0.1 s"
    rig.play(1500, 8000)
    rig.session.stop().result()
    quality = rig.store.read(id).meta.extra["quality"]
    assert quality["level"] == "error"  # it was silent for longer than its time-out, so the arm had to stop
    assert quality["streams"]["front"]["reasons"] == ["1 gap, the longest 0.520 s, about 25 samples missing"]
    assert quality["streams"]["q"]["reasons"] == []


def test_a_full_disk_is_found_before_the_episode_starts(tmp_path: Path):
    rig = Rig(tmp_path, free=RESERVE_BYTES)
    rig.play(0, 200)
    message = r"has 268 MB free; an episode of up to 10 s needs about 27\d MB: free some space"
    with pytest.raises(RecordingError, match=message):
        rig.start()
    assert rig.session.state == "idle"
    assert not list((tmp_path / "store" / "staging").iterdir())


def test_missing_and_silent_streams_refuse_the_start(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.push("q", 0, np.zeros(3, np.float32))
    rig.clock.now = 300 * MS
    wanted = (
        r"required streams are not there: `q` \(topic joint_states\): silent for 0.30 s; "
        r"`front` \(topic front\): nothing was received yet"
    )
    with pytest.raises(RecordingError, match=wanted):
        rig.start()
    rig.play(300, 320)
    rig.start()
    with pytest.raises(RecordingError, match="is being recorded already; stop or discard it first"):
        rig.start()
    rig.session.discard()


def test_discard_leaves_nothing_and_labels_need_an_episode(tmp_path: Path):
    rig = Rig(tmp_path)
    for call in (rig.session.discard, rig.session.stop):
        with pytest.raises(RecordingError, match="no episode is being recorded; start one first"):
            call()
    with pytest.raises(RecordingError, match="none was saved by this recorder"):
        rig.session.label("success")
    rig.play(0, 100)
    rig.start()
    rig.play(100, 200)
    rig.session.discard()
    assert len(rig.store) == 0
    assert not list((tmp_path / "store" / "staging").iterdir())
    id = rig.start()
    rig.play(200, 300)
    rig.session.stop().result()
    assert rig.session.label("failure") == id
    assert rig.store.read(id).meta.outcome == "failure"


def test_an_episode_without_a_command_is_not_saved_and_says_so(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.play(0, 100)
    rig.start()
    rig.push("q", 110, np.zeros(3, np.float32))
    rig.push("front", 110, np.zeros(SHAPE, np.uint8))
    with pytest.raises(RecordingError, match=r"was not saved: streams \['action'\] are required and have no sample"):
        rig.session.stop().result()
    assert len(rig.store) == 0
    rig.play(120, 200)
    rig.start()


def test_bad_samples_are_counted_and_cost_nothing_else(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.play(0, 100)
    id = rig.start()
    rig.play(100, 200)
    rig.push("q", 201, np.array([0, np.nan, 0], np.float32))
    rig.push("q", 202, np.zeros(4, np.float32))
    rig.push("q", 203, np.zeros(3, np.float32))
    rig.push("q", 204, np.zeros(3, np.float32), stamp_ns=ROS)  # the clock stepped back
    rig.push("front", 204, np.zeros((2, 2, 3), np.uint8))
    rig.session.refuse("front", "an image of 2 x 2 needs 12 bytes, got 3")
    rig.play(206, 400)
    rig.session.stop().result()
    recording = rig.store.read(id)
    assert (ROS + np.array([201, 202, 203, 204]) * MS == recording.streams["q"].stamp_ns[50:54]).sum() == 0
    assert recording.streams["q"].stamp_ns[50] == ROS + 203 * MS
    quality = recording.meta.extra["quality"]
    assert quality["streams"]["q"]["dropped"] == {REFUSED: 2, LATE: 1}
    assert quality["streams"]["front"]["dropped"] == {REFUSED: 2}
    assert "1 not stored: stamp not later than the last" in quality["streams"]["q"]["reasons"]
    assert "`q` must be finite, got nan" in quality["refused"]["q"]
    assert quality["refused"]["front"] == "`front` must be uint8(80, 96, 3), got uint8(2, 2, 3)"


def test_pictures_that_are_jpeg_already_are_stored_byte_for_byte(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.play(0, 100)
    id = rig.start()
    pictures = [simplejpeg.encode_jpeg(np.full(SHAPE, i, np.uint8)) for i in range(5)]
    for i, picture in enumerate(pictures):
        rig.push("front", 100 + 20 * i, picture)
    rig.push("front", 200, b"\xff\xd8 cut short")
    rig.push("q", 200, np.zeros(3, np.float32))
    rig.push("action", 200, np.zeros(2, np.float32))
    rig.session.stop().result()
    recording = rig.store.read(id)
    rows = recording.streams["front"].data
    assert [rows.encoded(i) for i in range(len(rows))] == pictures  # type: ignore[attr-defined]
    assert recording.meta.extra["quality"]["streams"]["front"]["dropped"] == {REFUSED: 1}


def test_a_writer_that_cannot_keep_up_fills_the_queue_and_every_loss_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = make_plan()
    store = plan.open_store(tmp_path / "store")
    pools = {"front": FramePool(plan.streams["front"].spec, 3)}
    writer = store.writer(META)
    slow, append = threading.Event(), writer.append
    monkeypatch.setattr(writer, "append", lambda *sample: (slow.wait(), append(*sample)))
    attempt = Attempt(writer.id, lambda: writer, store.schema, pools)
    taken = [attempt.push("front", i, np.full(SHAPE, i, np.uint8)) for i in range(10)]
    assert taken == [True] * 3 + [False] * 7
    assert attempt.dropped("front") == {FULL: 7}
    slow.set()
    attempt.push("q", 1, np.zeros(3, np.float32))
    attempt.push("action", 1, np.zeros(2, np.float32))
    attempt.drain()
    assert attempt.push("q", 2, np.zeros(3, np.float32)) is False
    recording = store.read(attempt.commit(META))
    np.testing.assert_array_equal(recording.streams["front"].stamp_ns, [0, 1, 2])


def test_an_episode_that_cannot_be_begun_is_an_error_at_its_end(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.play(0, 100)
    (tmp_path / "store" / "staging").rmdir()
    (tmp_path / "store" / "staging").write_text("a file where a folder should be")
    rig.start()
    rig.play(100, 200)
    with pytest.raises(RecordingError, match=r"was not saved: .*staging"):
        rig.session.stop().result()
    assert rig.session.verdicts()["q"].level == "ok"


def test_many_threads_may_push_at_once(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.play(0, 100)
    id = rig.start()

    def send(stream: str, shape: tuple[int, ...], dtype: str) -> None:
        for i in range(300):
            value = np.full(shape, i % 250, dtype)
            rig.session.push(stream, ROS + 10**9 + i * MS, value, received_ns=ROS + 10**9 + i * MS)

    arguments: list[tuple[str, tuple[int, ...], str]] = [("q", (3,), "float32"), ("action", (2,), "float32")]
    threads = [threading.Thread(target=send, args=a) for a in [*arguments, ("reward", (), "float32")]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rig.push("front", 2000, np.zeros(SHAPE, np.uint8))
    rig.session.stop().result()
    streams = rig.store.read(id).streams
    for name in ("q", "action", "reward"):
        column = streams[name].data[:].reshape(300, -1)[:, 0]
        np.testing.assert_array_equal(column, np.arange(300) % 250)


def test_close_saves_what_is_being_recorded(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.play(0, 100)
    id = rig.start()
    rig.play(100, 200)
    rig.session.close()
    meta = rig.store.read(id).meta
    assert (meta.outcome, meta.truncated) == ("unknown", True)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.data.test_session import Rig
rig = Rig(Path(sys.argv[1]))
rig.play(0, 100)
rig.start()
rig.play(100, 400)
import time; time.sleep(0.3)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_recorder_leaves_a_whole_store_and_a_salvaged_episode(tmp_path: Path):
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=root, check=False, timeout=60)
    assert done.returncode == -9
    store = EpisodeStore.open(tmp_path / "store")
    assert [found.state for found in store.found] == ["salvaged"]
    streams = store.read(store.ids()[0]).streams
    np.testing.assert_array_equal(streams["q"].stamp_ns, ROS + np.arange(100, 400, 2) * MS)


def test_one_recorder_per_robot_and_store(tmp_path: Path):
    url = make_plan().open_store(tmp_path / "store").url
    first = RecorderLock(url, "arm", holder="node /arm/recorder")
    message = r"robot `arm` is already being recorded into .*store by node /arm/recorder \(process \d+\); there is one"
    with pytest.raises(RecordingError, match=message):
        RecorderLock(url, "arm", holder="node /other/recorder")
    RecorderLock(url, "arm2", holder="x").release()
    first.release()
    first.release()
    RecorderLock(url, "arm", holder="y").release()
