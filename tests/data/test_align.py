from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.data.align import Alignment, align, to_episode
from robot_rl.errors import SpecError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream
from tests.contracts.episode_sink import SINK_SPEC, sink_recording
from tests.data.store_data import MS, SPEC, recording

ONE = RobotSpec(
    name="one",
    obs={"x": ArraySpec(name="x", shape=(), dtype="int64")},
    action=ActionSpec(name="action", shape=(1,), dtype="float64"),
    control_hz=20.0,
)
STEP = 50 * MS


def one(x_ns: np.ndarray, action_ns: np.ndarray, **streams: Stream) -> Recording:
    """Return a recording whose observation is its stamp and whose action is its index."""
    x = Stream(np.asarray(x_ns, np.int64), np.asarray(x_ns, np.int64))
    stamps = np.asarray(action_ns, np.int64)
    action = Stream(stamps, np.arange(len(stamps), dtype=np.float64)[:, None])
    return Recording({"x": x, "action": action, **streams})


def test_the_mix_of_30_500_and_20_hz():
    index = align(recording(1.0), SPEC, Alignment())
    # Ticks start when both exist (camera at 5 ms) and end at the last command (962 ms).
    np.testing.assert_array_equal(index.stamp_ns, 5 * MS + STEP * np.arange(20))
    np.testing.assert_array_equal(index.obs["q"], (5 + 50 * np.arange(20)) // 2)
    camera_ns = 5 * MS + (np.arange(30) * 1_000_000_000) // 30
    for n, tick in enumerate(index.stamp_ns):
        assert camera_ns[index.obs["camera"][n]] <= tick
        assert index.obs["camera"][n] == 29 or camera_ns[index.obs["camera"][n] + 1] > tick
    np.testing.assert_array_equal(index.action, np.arange(20))
    assert index.valid.all()
    assert not index.on_grid


def test_action_is_the_first_in_the_interval_else_the_one_in_force():
    given_ns = np.array([60, 70, 80, 260]) * MS  # ticks 0, 50, 100, ... 250
    index = align(one(np.arange(0, 300 * MS, MS), given_ns), ONE, Alignment())
    np.testing.assert_array_equal(index.stamp_ns, STEP * np.arange(6))
    np.testing.assert_array_equal(index.valid, [False, True, True, True, True, True])
    np.testing.assert_array_equal(index.action[1:], [0, 2, 2, 2, 3])


def test_latency_is_subtracted_so_that_a_ramp_comes_out_where_it_was():
    latency = 37 * MS
    captured = np.arange(0, 2000 * MS, MS)
    stamped = Recording(
        {
            "x": Stream(captured + latency, captured),
            "action": Stream(np.arange(0, 1500 * MS, STEP), np.zeros((30, 1))),
        }
    )
    episode = to_episode(stamped, ONE, Alignment(latency_ns={"x": latency}))
    np.testing.assert_array_equal(episode.obs["x"][:], episode.stamp_ns)
    late = to_episode(stamped, ONE, Alignment())
    np.testing.assert_array_equal(late.obs["x"][:], late.stamp_ns - latency)


def test_a_stall_of_half_a_second_is_kept_and_marked():
    x = np.concatenate((np.arange(0, 500, 2), np.arange(1000, 1500, 2))) * MS
    action = np.concatenate((np.arange(0, 500, 50), np.arange(1000, 1500, 50))) * MS
    index = align(one(x, action), ONE, Alignment(max_age_ns=40 * MS))
    assert index.stamp_ns[-1] - index.stamp_ns[0] == 1450 * MS, "time is not squeezed"
    stalled = (index.stamp_ns > 498 * MS + 40 * MS) & (index.stamp_ns < 1000 * MS)
    np.testing.assert_array_equal(index.valid, ~stalled)
    np.testing.assert_array_equal(x[index.obs["x"][stalled]], 498 * MS)
    assert (index.action[stalled] == 9).all()
    per_stream = align(one(x, action), ONE, Alignment(max_age_ns={"x": 40 * MS}))
    np.testing.assert_array_equal(per_stream.valid, index.valid)


def test_another_control_rate():
    index = align(one(np.arange(0, 1000 * MS, MS), np.arange(0, 1000 * MS, 50 * MS)), ONE, Alignment(control_hz=10.0))
    np.testing.assert_array_equal(index.stamp_ns, 100 * MS * np.arange(10))
    np.testing.assert_array_equal(index.action, np.arange(0, 20, 2))


def test_final_observation_only_when_it_was_recorded():
    action = np.arange(0, 500 * MS, STEP)
    until_after = one(np.arange(0, 502 * MS, 2 * MS), action)
    assert to_episode(until_after, ONE, Alignment()).final_obs == {"x": 500 * MS}
    too_short = one(np.arange(0, 460 * MS, 2 * MS), action)
    assert to_episode(too_short, ONE, Alignment()).final_obs is None


def test_on_grid_maps_by_identity_with_and_without_the_final_observation():
    given_ = sink_recording(1, n=6)
    episode = to_episode(given_, SINK_SPEC, Alignment(latency_ns={"q": 5}), id="e")
    np.testing.assert_array_equal(episode.obs["q"][:], given_.streams["q"].data[:6])
    np.testing.assert_array_equal(episode.obs["q"][np.array([5, 0])], given_.streams["q"].data[:][[5, 0]])
    assert episode.final_obs is not None
    np.testing.assert_array_equal(episode.final_obs["q"], given_.streams["q"].data[6])
    np.testing.assert_array_equal(episode.action, given_.streams["action"].data[:])
    np.testing.assert_array_equal(episode.action_executed, episode.action)
    np.testing.assert_array_equal(episode.reward, np.ones(6))
    assert (episode.id, len(episode), episode.valid.all(), episode.by_human.any()) == ("e", 6, True, False)
    cut = {n: Stream(s.stamp_ns[:6], s.data[:6]) for n, s in given_.streams.items()}
    assert to_episode(Recording(cut, given_.meta), SINK_SPEC, Alignment()).final_obs is None


def test_on_grid_data_can_be_seen_at_half_the_rate():
    episode = to_episode(sink_recording(0, n=6), SINK_SPEC, Alignment(control_hz=5.0))
    np.testing.assert_array_equal(episode.obs["force"][:], [0, 20, 40])
    np.testing.assert_array_equal(episode.action[:, 0], [0, 20, 40])
    np.testing.assert_array_equal(episode.reward, [2, 2, 2])


def test_reward_off_the_grid_is_summed_and_flags_go_with_the_action():
    at = np.array([10, 60, 90, 140]) * MS
    streams = {
        "reward": Stream(at, np.array([1, 2, 4, 8], np.float32)),
        "by_human": Stream(np.array([0, 70]) * MS, np.array([False, True])),
        "action_executed": Stream(np.array([5, 55, 105]) * MS, np.array([[10.0], [11.0], [12.0]])),
        "note": Stream(np.array([0, 101]) * MS, np.array([3, 4])),
    }
    episode = to_episode(one(np.arange(0, 200 * MS, MS), np.arange(0, 150 * MS, STEP), **streams), ONE, Alignment())
    np.testing.assert_array_equal(episode.reward, [1, 6, 8])
    np.testing.assert_array_equal(episode.by_human, [False, True, True])
    np.testing.assert_array_equal(episode.action_executed[:, 0], [10, 11, 12])
    np.testing.assert_array_equal(episode.extras["note"][:], [3, 3, 4])


@pytest.mark.parametrize(
    ("recording_", "alignment", "message"),
    [
        (Recording({"action": one([0], [0]).streams["action"]}), Alignment(), r"lacks streams \['x'\]"),
        (one([100], [0]), Alignment(), "the streams do not overlap, check their clocks"),
        (one([0], [1]), Alignment(latency_ns={"y": 1}), r"alignment names streams \['y'\] that the recording lacks"),
        (one([], []), Alignment(), r"streams \['x', 'action'\] have no sample"),
    ],
)
def test_what_cannot_be_aligned_is_named(recording_, alignment, message):
    with pytest.raises(SpecError, match=message):
        align(recording_, ONE, alignment)


stamps = st.lists(st.integers(0, 3000), min_size=1, max_size=60, unique=True).map(lambda x: np.array(sorted(x)) * MS)


@settings(max_examples=150, deadline=None)
@given(x=stamps, action=stamps, latency=st.integers(0, 200).map(lambda v: v * MS), age=st.integers(0, 500))
def test_never_from_the_future_and_never_an_older_one_than_needed(x, action, latency, age):
    alignment = Alignment(latency_ns={"x": latency}, max_age_ns=age * MS)
    if action[-1] < x[0] - latency:
        return
    index = align(one(x, action), ONE, alignment)
    seen = x[index.obs["x"]] - latency
    assert (seen <= index.stamp_ns).all()
    following = np.append(x, np.iinfo(np.int64).max)[index.obs["x"] + 1] - latency
    assert (following > index.stamp_ns).all(), "the newest sample at or before the tick"
    assert (np.diff(index.stamp_ns) == STEP).all()
    assert index.stamp_ns[-1] <= action[-1] < index.stamp_ns[-1] + STEP
    for n, tick in enumerate(index.stamp_ns):
        inside = np.flatnonzero((action >= tick) & (action < tick + STEP))
        before = np.flatnonzero(action < tick)
        fresh = tick - seen[n] <= age * MS
        assert index.valid[n] == bool((len(inside) or len(before)) and fresh)
        if len(inside) or len(before):
            assert index.action[n] == (inside[0] if len(inside) else before[-1])


@settings(max_examples=25, deadline=None)
@given(shift=st.integers(-(10**18), 10**18))
def test_alignment_does_not_depend_on_when_it_was_recorded(shift):
    base = recording(0.3)
    moved = Recording({n: Stream(s.stamp_ns + shift, s.data) for n, s in base.streams.items()}, RecordingMeta())
    a, b = align(base, SPEC, Alignment()), align(moved, SPEC, Alignment())
    np.testing.assert_array_equal(a.stamp_ns + shift, b.stamp_ns)
    for name in SPEC.obs:
        np.testing.assert_array_equal(a.obs[name], b.obs[name])
    np.testing.assert_array_equal(a.action, b.action)
