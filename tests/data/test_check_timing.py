"""Rates, gaps, jitter and skew, planted into streams of different rates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robot_rl.data.checks import Finding, StoreVerdict
from robot_rl.values import Recording, RecordingMeta, Stream
from tests.data.check_stores import among_sound, off_grid, only, raised, verdict_on


def keep(recording: Recording, name: str, rows: np.ndarray) -> Recording:
    """Return a recording with only `rows` (bool) of one stream."""
    stream = recording.streams[name]
    return replace(recording, streams={**recording.streams, name: Stream(stream.stamp_ns[rows], stream.data[:][rows])})


def move(recording: Recording, name: str, ms: float) -> Recording:
    """Return a recording with the stamps of one stream moved."""
    stream = recording.streams[name]
    moved = Stream(stream.stamp_ns + round(ms * 1e6), stream.data)
    return replace(recording, streams={**recording.streams, name: moved})


def one_among_sound(url: Path, faulty: Recording, **thresholds: object) -> StoreVerdict:
    return verdict_on(among_sound(url, faulty, grid=False), **thresholds)


def seconds(recording: Recording, name: str) -> np.ndarray:
    return (recording.streams[name].stamp_ns - 5_000_000_000) / 1e9


def test_sound_streams_of_five_rates_raise_nothing(tmp_path: Path):
    verdict = one_among_sound(tmp_path, off_grid(3))
    assert raised(verdict) == []
    assert {name: round(hz) for name, hz in verdict.measures["nominal_hz"].items()} == {
        "q": 100, "force": 50, "object": 10, "camera": 30, "action": 20,
    }  # fmt: skip


def test_a_gap_is_measured_in_milliseconds_and_placed(tmp_path: Path):
    sound = off_grid(3)
    t = seconds(sound, "q")
    found = only(one_among_sound(tmp_path, keep(sound, "q", (t < 2.0) | (t > 2.4))), "gap")
    assert (found.severity, found.stream) == ("fail", "q")  # longer than a 100 Hz stream may be silent
    assert found.value == pytest.approx(410, abs=12)
    assert found.start_s == pytest.approx(2.0, abs=0.02)
    assert found.what.startswith("1 gap, the longest 4")


def test_a_short_gap_only_warns(tmp_path: Path):
    sound = off_grid(3)
    t = seconds(sound, "q")
    found = only(one_among_sound(tmp_path, keep(sound, "q", (t < 2.0) | (t > 2.06))), "gap")
    assert (found.severity, found.threshold) == ("warn", 30.0)


def test_a_camera_at_two_thirds_of_its_rate(tmp_path: Path):
    sound = off_grid(3)
    rows = np.arange(len(sound.streams["camera"])) % 3 != 2
    found = [f for f in raised(one_among_sound(tmp_path, keep(sound, "camera", rows))) if f.check == "rate"]
    assert [(f.episode, f.stream, f.severity) for f in found] == [("e3", "camera", "warn")]
    assert found[0].value == pytest.approx(20.0, abs=0.1)
    assert found[0].threshold == pytest.approx(30.0, abs=0.1)


def test_a_rate_that_all_episodes_miss_shows_against_the_stated_one(tmp_path: Path):
    verdict = one_among_sound(tmp_path, off_grid(3), rates_hz={"force": 120.0})
    found = raised(verdict)
    assert {(f.check, f.stream, f.severity) for f in found} == {("rate", "force", "fail")}
    assert len(found) == 6


def test_stamps_of_receipt_show_as_jitter(tmp_path: Path):
    sound = off_grid(3)
    stream, rng = sound.streams["camera"], np.random.default_rng(0)
    late = np.sort(stream.stamp_ns + rng.integers(0, 30_000_000, len(stream)))
    jittered = replace(sound, streams={**sound.streams, "camera": Stream(late, stream.data)})
    found = only(one_among_sound(tmp_path, jittered), "jitter")
    assert found.stream == "camera"
    assert found.value is not None
    assert found.value > found.threshold == pytest.approx(16.7, abs=0.1)


@pytest.mark.parametrize("ms", [150.0, -150.0])
def test_a_stream_on_another_clock_is_a_skew_of_that_size(tmp_path: Path, ms: float):
    found = only(one_among_sound(tmp_path, move(off_grid(3), "camera", ms)), "skew")
    assert found.stream == "camera"
    assert found.value == pytest.approx(ms, abs=25)


def test_a_camera_that_wakes_late(tmp_path: Path):
    sound = off_grid(3)
    found = only(one_among_sound(tmp_path, keep(sound, "camera", seconds(sound, "camera") > 1.0)), "cover")
    assert found.value == pytest.approx(1.0, abs=0.05)
    assert "begins" in found.what


def test_streams_that_never_met_are_a_failed_episode_and_no_crash(tmp_path: Path):
    apart = move(off_grid(3), "action", -20_000)
    found = only(one_among_sound(tmp_path, apart), "read")
    assert found.severity == "fail"
    assert "do not overlap" in found.what


def quality(level: str, samples: int) -> dict[str, object]:
    stream = {"level": level, "reasons": ["2 gaps"] if level != "ok" else [], "samples": samples, "dropped": {}}
    return {"quality": {"level": level, "streams": {"q": stream}}}


def told(url: Path, level: str, samples: int) -> tuple[StoreVerdict, list[Finding]]:
    sound = off_grid(3)
    verdict = one_among_sound(url, Recording(sound.streams, replace(sound.meta, extra=quality(level, samples))))
    return verdict, raised(verdict)


def test_what_the_recorder_said_is_shown(tmp_path: Path):
    verdict, found = told(tmp_path, "error", 600)
    assert [(f.check, f.severity, f.stream, f.what) for f in found] == [
        ("recorder", "fail", "q", "the recorder said error: 2 gaps")
    ]
    assert [e.recorder for e in verdict.episodes] == ["", "", "", "error", "", ""]


def test_samples_that_the_recorder_took_in_and_the_store_lacks(tmp_path: Path):
    verdict, found = told(tmp_path, "ok", 700)
    assert [(f.check, f.value, f.threshold) for f in found] == [("lost", 600.0, 700.0)]
    assert verdict.exit_status() == 3


def test_meta_without_a_recorder_is_not_judged(tmp_path: Path):
    sound = off_grid(3)
    odd = Recording(sound.streams, RecordingMeta(task="reach", outcome="success", extra={"quality": "fine"}))
    assert raised(one_among_sound(tmp_path, odd)) == []
