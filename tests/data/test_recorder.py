from __future__ import annotations

import numpy as np
import pytest

from robot_rl.data.memory import MemorySink
from robot_rl.data.recorder import TickRecorder
from robot_rl.errors import SpecError, StoreError
from robot_rl.specs import ArraySpec
from robot_rl.values import RecordingMeta, Tick
from tests.contracts.episode_sink import SINK_SPEC


def tick(i: int, **fields: object) -> Tick:
    obs = {"q": np.full(3, i, np.float32), "force": np.asarray(i, np.float32)}
    return Tick(stamp_ns=i * 100, obs=obs, **fields)  # type: ignore[arg-type]


def act(i: int) -> np.ndarray:
    return np.full(2, i / 10, np.float32)


def test_ticks_become_an_on_grid_recording_with_one_observation_more():
    recorder = TickRecorder(SINK_SPEC, extra={"chunk": ArraySpec(name="chunk", shape=(), dtype="int64")})
    recorder.start(tick(0))
    for i in range(1, 5):
        recorder.add(
            tick(
                i, action=act(i), action_executed=act(-i), reward=float(i),
                by_human=i == 2, terminated=i == 4, success=i == 4,
            ),
            extras={"chunk": np.int64(i)},
        )  # fmt: skip
    assert (len(recorder), recorder.success) == (4, True)
    sink = MemorySink(SINK_SPEC, extra={"chunk": ArraySpec(name="chunk", shape=(), dtype="int64")})
    episode = sink.episode(sink.append(recorder.finish(RecordingMeta(task="t", seed=3))))
    np.testing.assert_array_equal(episode.stamp_ns, [0, 100, 200, 300])
    np.testing.assert_array_equal(episode.obs["force"][:], [0, 1, 2, 3])
    assert episode.final_obs is not None
    assert episode.final_obs["force"] == 4
    np.testing.assert_array_equal(episode.action, [act(i) for i in range(1, 5)])
    np.testing.assert_array_equal(episode.action_executed, [act(-i) for i in range(1, 5)])
    np.testing.assert_array_equal(episode.reward, [1, 2, 3, 4])
    np.testing.assert_array_equal(episode.by_human, [False, True, False, False])
    np.testing.assert_array_equal(episode.extras["chunk"][:], [1, 2, 3, 4])
    assert (episode.terminated, episode.truncated, episode.meta.on_grid, episode.meta.seed) == (True, False, True, 3)


def test_buffers_that_the_environment_reuses_are_copied():
    recorder = TickRecorder(SINK_SPEC)
    buffer = np.zeros(3, np.float32)
    recorder.start(Tick(stamp_ns=0, obs={"q": buffer, "force": np.float32(0)}))
    buffer[:] = 9
    recorder.add(Tick(stamp_ns=1, obs={"q": buffer, "force": np.float32(0)}, action=act(1)))
    np.testing.assert_array_equal(recorder.finish(RecordingMeta()).streams["q"].data[:, 0], [0, 9])


def test_start_drops_what_was_before():
    recorder = TickRecorder(SINK_SPEC)
    recorder.start(tick(0))
    recorder.add(tick(1, action=act(1), success=True))
    recorder.start(tick(0))
    assert (len(recorder), recorder.success) == (0, False)
    with pytest.raises(SpecError, match="needs at least one action"):
        recorder.finish(RecordingMeta())


def test_what_is_wrong_is_named_and_costs_no_tick():
    recorder = TickRecorder(SINK_SPEC)
    with pytest.raises(SpecError, match="`start` must be called"):
        recorder.add(tick(1, action=act(1)))
    recorder.start(tick(0))
    recorder.add(tick(1, action=act(1)))
    with pytest.raises(SpecError, match=r"`tick.action` must be the action"):
        recorder.add(tick(2))
    with pytest.raises(SpecError, match="`stamp_ns` must grow, got 100 after 100"):
        recorder.add(tick(1, action=act(1)))
    with pytest.raises(SpecError, match="`action` must be finite, got nan"):
        recorder.add(tick(2, action=np.full(2, np.nan, np.float32)))
    with pytest.raises(SpecError, match=r"`q` must be float32\(3\) \[rad\], got float64"):
        recorder.add(Tick(stamp_ns=200, obs={"q": np.zeros(3), "force": np.float32(0)}, action=act(2)))
    with pytest.raises(SpecError, match=r"`extras` must hold \[\], got \['a'\]"):
        recorder.add(tick(2, action=act(2)), extras={"a": 1})
    recorder.add(tick(2, action=act(2)))
    streams = recorder.finish(RecordingMeta()).streams
    assert {name: len(stream) for name, stream in streams.items()} == {
        "q": 3, "force": 3, "action": 2, "action_executed": 2, "reward": 2, "by_human": 2,
    }  # fmt: skip


def test_memory_sink_names_an_unknown_episode():
    with pytest.raises(StoreError, match="there is no episode 'x' in memory; there are 0"):
        MemorySink(SINK_SPEC).read("x")
