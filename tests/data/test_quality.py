from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.data.quality import Expected, StreamMonitor
from robot_rl.data.spread import Spread
from robot_rl.data.verdict import StreamVerdict, judge, measure, worst
from robot_rl.errors import ConfigError

MS = 1_000_000
SECOND = 1000 * MS
ROS = 1_700_000_000 * SECOND
"""ROS time when the monotonic clock shows zero."""


def feed(
    monitor: StreamMonitor, times_ms: np.ndarray, *, latency_ms: float = 2.0, clock_ms: np.ndarray | float = 0.0,
    late_ms: np.ndarray | float = 0.0,
) -> int:  # fmt: skip
    """Play samples captured at `times_ms` and return the monotonic time of the last receipt."""
    times, clock, late = np.broadcast_arrays(times_ms, clock_ms, late_ms)
    for t, c, more in zip(times, clock, late, strict=True):
        received = round((t + latency_ms + more) * MS)
        monitor.add(ROS + round((t + c) * MS), ROS + received, received)
    return received


def every(hz: float, seconds: float, start_ms: float = 0.0) -> np.ndarray:
    return start_ms + np.arange(round(hz * seconds)) * 1000.0 / hz


def verdict_on(monitor: StreamMonitor, now: int, *, live: bool = False) -> StreamVerdict:
    return judge(monitor, measure({monitor.name: monitor}, now)[monitor.name], live=live)


def test_a_steady_stream_is_fine_and_its_figures_are_exact():
    monitor = StreamMonitor("front", Expected(rate_hz=50))
    now = feed(monitor, every(50, 10))
    verdict = verdict_on(monitor, now, live=True)
    assert (verdict.level, verdict.reasons) == ("ok", ())
    figures = verdict.figures
    assert (figures.samples, figures.rate_hz, figures.recent_hz) == (500, 50.0, 50.0)
    assert (figures.age_ms, figures.gaps, figures.missing, figures.jitter_ms) == (0.0, 0, 0, 0.0)
    assert figures.latency_p50_ms == figures.latency_p99_ms == 2.0


def test_a_camera_that_stalls_for_half_a_second_is_one_gap_of_that_length():
    monitor = StreamMonitor("front", Expected(rate_hz=30))
    times = every(30, 10)
    now = feed(monitor, times[(times < 2000) | (times > 2500)])
    verdict = verdict_on(monitor, now)
    assert (verdict.figures.gaps, verdict.figures.missing) == (1, 16)
    assert verdict.figures.longest_gap_ms == pytest.approx(566.667, abs=0.001)
    assert verdict.level == "error"  # longer than a required stream may be silent
    assert verdict.reasons == ("1 gap, the longest 0.567 s, about 16 samples missing",)


def test_a_loop_slower_than_asked_is_named_with_both_rates():
    monitor = StreamMonitor("command", Expected(rate_hz=100))
    now = feed(monitor, every(70, 4))
    assert verdict_on(monitor, now).reasons == ("rate 70.0 Hz, 100 Hz expected",)
    assert verdict_on(monitor, now).level == "warn"
    half = StreamMonitor("command", Expected(rate_hz=100))
    assert verdict_on(half, feed(half, every(40, 4))).level == "error"


def test_silence_becomes_an_error_only_after_the_streams_own_time_out():
    monitor = StreamMonitor("front", Expected(rate_hz=30))
    now = feed(monitor, every(30, 3))
    assert verdict_on(monitor, now + 140 * MS, live=True).level == "ok"
    stale = verdict_on(monitor, now + 400 * MS, live=True)
    assert stale.level == "error"
    assert stale.reasons[0] == "silent for 0.40 s, stale after 0.15 s"
    optional = StreamMonitor("front", Expected(rate_hz=30, required=False))
    assert verdict_on(optional, feed(optional, every(30, 3)) + 400 * MS, live=True).level == "warn"
    assert Expected(rate_hz=500).stale_after_s == 0.1


def test_a_stream_that_never_came():
    assert verdict_on(StreamMonitor("front", Expected(rate_hz=30)), 0).reasons == ("required, and no sample came",)
    optional = StreamMonitor("wrench", Expected(rate_hz=30, required=False))
    assert verdict_on(optional, 0).level == "warn"
    event = StreamMonitor("reward", Expected(required=False))
    assert (verdict_on(event, 0).level, verdict_on(event, 0).reasons) == ("ok", ())


@pytest.mark.parametrize("jump_ms", [5000.0, -5000.0, 80.0, -80.0])
def test_a_clock_that_jumps_is_one_jump_of_that_size(jump_ms: float):
    monitor = StreamMonitor("front", Expected(rate_hz=100))
    times = every(100, 4)
    now = feed(monitor, times, clock_ms=np.where(times >= 2000, jump_ms, 0.0))
    figures = verdict_on(monitor, now).figures
    assert figures.clock_jumps == 1
    assert figures.largest_jump_ms == pytest.approx(jump_ms, abs=10.001)  # a period less, seen from the stamp before
    assert verdict_on(monitor, now).level == "error"
    assert "its clock jumped 1 time, by up to" in verdict_on(monitor, now).reasons[0]


def test_jumps_are_found_whenever_the_block_is_counted():
    monitor = StreamMonitor("front", Expected(rate_hz=100))
    for start in range(0, 4000, 250):
        feed(monitor, every(100, 0.25, start), clock_ms=1000.0 if start >= 2000 else 0.0)
        monitor.figures(0)
    assert monitor.figures(0).clock_jumps == 1


def test_a_stalled_receiver_is_late_but_no_clock_jumped_and_nothing_is_missing():
    monitor = StreamMonitor("front", Expected(rate_hz=100))
    times = every(100, 4)
    late = np.where((times >= 2000) & (times < 2600), 2600 - times, 0.0)
    figures = verdict_on(monitor, feed(monitor, times, late_ms=late)).figures
    assert (figures.clock_jumps, figures.gaps, figures.missing) == (0, 0, 0)
    assert figures.latency_p99_ms is not None
    assert figures.latency_p99_ms == pytest.approx(600, rel=0.07)


def test_a_late_first_sample_does_not_pass_for_a_jump():
    monitor = StreamMonitor("front", Expected(rate_hz=100))
    times = every(100, 2)
    assert verdict_on(monitor, feed(monitor, times, late_ms=np.maximum(0, 300 - times))).figures.clock_jumps == 0


def test_lost_messages_are_counted_by_the_publishers_own_numbers():
    monitor = StreamMonitor("joints", Expected(rate_hz=100))
    numbers = [1, 2, 3, 7, 8, 1, 2, 4]  # 3 lost, then the publisher starts anew and 1 more is lost
    for i, number in enumerate(numbers):
        monitor.add(ROS + i * 10 * MS, ROS + i * 10 * MS, i * 10 * MS, sequence=number)
    verdict = verdict_on(monitor, 70 * MS)
    assert verdict.figures.lost == 4
    assert verdict.level == "error"
    assert verdict.reasons[0] == "4 messages lost between publisher and recorder"


def test_dropped_samples_are_named_by_reason():
    monitor = StreamMonitor("front", Expected(rate_hz=100))
    now = feed(monitor, every(100, 10))
    monitor.drop("queue full", 3)
    assert verdict_on(monitor, now).reasons == ("3 not stored: queue full",)
    assert verdict_on(monitor, now).level == "warn"
    monitor.drop("queue full", 97)
    assert verdict_on(monitor, now).level == "error"


def test_skew_of_one_stream_against_the_others():
    monitors = {name: StreamMonitor(name, Expected(rate_hz=50, stale_s=1)) for name in ("front", "side", "wrist")}
    now = 0
    for name, latency in (("front", 5.0), ("side", 7.0), ("wrist", 205.0)):
        now = max(now, feed(monitors[name], every(50, 2), latency_ms=latency))
    figures = measure(monitors, now)
    assert [figures[name].skew_ms for name in monitors] == pytest.approx([-2, 0, 198], rel=0.08, abs=0.5)
    verdict = judge(monitors["wrist"], figures["wrist"], live=False)
    assert verdict.level == "warn"
    assert "skew of +198 ms against the other streams" in verdict.reasons
    assert worst({"front": judge(monitors["front"], figures["front"], live=False), "wrist": verdict}) == "warn"


def test_stamps_from_the_future_and_messages_without_stamps():
    monitor = StreamMonitor("front", Expected(rate_hz=50))
    verdict = verdict_on(monitor, feed(monitor, every(50, 2), latency_ms=1.0, clock_ms=101.0))
    assert verdict.reasons == ("stamps lie 100 ms in the future: synchronise the clocks",)
    bare = StreamMonitor("reward", Expected(required=False))
    bare.add(ROS, ROS, 0, on_receipt=True)
    assert verdict_on(bare, 0).level == "ok"
    assert verdict_on(bare, 0).reasons == ("stamped on receipt: its messages carry no stamp of their own",)


def test_jitter_of_half_a_period():
    monitor = StreamMonitor("front", Expected(rate_hz=50))
    times = every(50, 2) + np.where(np.arange(100) % 2, 6.0, 0.0)  # 26, 14, 26, 14 ... ms
    verdict = verdict_on(monitor, feed(monitor, times))
    assert verdict.figures.jitter_ms == pytest.approx(12, abs=0.001)
    assert verdict.reasons == ("jitter 12.0 ms (p95) at a period of 20.0 ms",)


def test_an_episode_counts_from_its_beginning():
    monitor = StreamMonitor("front", Expected(rate_hz=50))
    feed(monitor, every(50, 2))
    monitor.drop("queue full")
    monitor.begin()
    now = feed(monitor, every(50, 1, 10_000))  # eight seconds of silence lay before, not inside
    figures = verdict_on(monitor, now).figures
    assert (figures.samples, figures.gaps, dict(figures.dropped)) == (50, 0, {})


def test_memory_stays_and_totals_are_right_over_many_blocks():
    monitor = StreamMonitor("joints", Expected(rate_hz=500))
    now = feed(monitor, every(500, 20))
    figures = verdict_on(monitor, now, live=True).figures
    assert (figures.samples, figures.rate_hz, figures.recent_hz, figures.gaps) == (10_000, 500.0, 500.0, 0)
    assert monitor._new.shape == (2048, 4)
    assert len(monitor._seen) == 1024


@given(st.lists(st.integers(1, 400), min_size=3, max_size=60), st.integers(1, 59))
def test_when_the_arithmetic_is_done_changes_nothing(steps_ms: list[int], cut: int):
    times = np.cumsum(steps_ms).astype(float)
    at_once, in_parts = (StreamMonitor("s", Expected(rate_hz=20)) for _ in range(2))
    now = feed(at_once, times)
    for part in np.split(times, [min(cut, len(times) - 1)]):
        feed(in_parts, part)
        in_parts.figures(0)
    assert at_once.figures(now) == in_parts.figures(now)


def test_spread_never_flatters():
    durations = np.random.default_rng(0).lognormal(14, 1, 10_000)
    spread = Spread()
    spread.add(durations)
    for percent in (50, 99):
        true = float(np.percentile(durations, percent)) / 1e6
        assert true <= (spread.percentile_ms(percent) or 0) <= 1.07 * true
    assert spread.percentile_ms(100) == pytest.approx(durations.max() / 1e6, abs=1e-3)
    assert Spread().percentile_ms(50) is None


@pytest.mark.parametrize("name", ["rate_hz", "stale_s", "max_gap_s"])
def test_limits_of_zero_are_refused(name: str):
    with pytest.raises(ConfigError, match=f"`{name}` must be positive, got 0"):
        Expected(**{name: 0.0})
