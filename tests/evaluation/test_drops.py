from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.evaluation.delayed import DelaySetting, run_delayed
from robot_rl.evaluation.drops import DropPattern, DroppingEnv, measured_drops
from robot_rl.values import Recording, RecordingMeta, Stream
from tests.evaluation.point_mass import SPEC, PointMass


def test_losses_have_the_share_and_the_length_that_were_asked_for():
    losses = DropPattern(fraction=0.1, burst=3.0).losses(np.random.default_rng(0))
    lost = np.array([losses.next() for _ in range(50_000)])
    assert lost.mean() == pytest.approx(0.1, abs=0.01)
    begins = lost[1:] & ~lost[:-1]
    assert lost.sum() / begins.sum() == pytest.approx(3.0, rel=0.08)
    none = DropPattern().losses(np.random.default_rng(0))
    assert not any(none.next() for _ in range(1000))


def test_a_lost_observation_is_the_one_before_and_the_outcome_is_of_the_moment():
    env, bare = DroppingEnv(PointMass(), DropPattern(fraction=0.5, burst=2.0)), PointMass()
    shown, truth = [int(env.reset(50).obs["count"][0])], [int(bare.reset(50).obs["count"][0])]
    for _ in range(20):
        tick, other = env.step(np.zeros(1, np.float32)), bare.step(np.zeros(1, np.float32))
        assert (tick.reward, tick.truncated) == (other.reward, other.truncated)
        shown.append(int(tick.obs["count"][0]))
        truth.append(int(other.obs["count"][0]))
    repeats = [a == b for a, b in pairwise(shown)]
    assert sum(repeats) == env.lost > 3
    assert all(s == t for s, t, lost in zip(shown[1:], truth[1:], repeats, strict=True) if not lost)
    env.reset(50)
    again = [int(env.step(np.zeros(1, np.float32)).obs["count"][0]) for _ in range(20)]
    assert again == shown[1:]


class Steady:
    """A chunk sampler that goes 1 cm a tick to the right and counts its calls."""

    spec, n_obs, n_execute, noise_shape = SPEC, 1, 2, (4, 1)
    action_range = (np.array([-1.0], np.float32), np.array([1.0], np.float32))

    def __init__(self) -> None:
        self.calls = 0

    def chunks(self, obs, noise, promise=None):
        self.calls += 1
        return np.full((len(noise), 4, 1), 0.01, np.float32)


def test_a_lost_chunk_is_asked_for_again_and_the_arm_holds_meanwhile():
    def play(lost: DropPattern | None):
        sampler, setting = Steady(), DelaySetting(delay_steps=1, n_execute=2, lost_chunks=lost)
        (result,) = run_delayed(
            [PointMass(max_steps=40)], sampler, [100], setting=setting, rest=lambda obs: np.zeros(1)
        )
        return result, sampler.calls

    whole, calls = play(None)
    lossy, more = play(DropPattern(fraction=0.6, burst=3.0))
    assert whole.episode.steps == lossy.episode.steps == 40
    assert calls == whole.requests
    assert more == lossy.requests
    assert lossy.held > whole.held


def test_drops_are_measured_from_the_gaps_of_a_recording(tmp_path):
    store = EpisodeStore.create(tmp_path / "store", SPEC)
    n, lost = 100, {10, 11, 12, 50}
    kept = np.array([i for i in range(n) if i not in lost])
    stamps = kept.astype(np.int64) * 100_000_000
    every = np.arange(n, dtype=np.int64) * 100_000_000
    streams = {
        "position": Stream(stamps, np.zeros((len(kept), 1), np.float32)),
        "count": Stream(every, np.zeros((n, 1), np.int64)),
        "action": Stream(every, np.zeros((n, 1), np.float32)),
    }
    store.append(Recording(streams, RecordingMeta(source="human")))
    found = measured_drops(store)
    assert found["position"] == DropPattern(fraction=4 / 99, burst=2.0)
    assert found["count"] == DropPattern()
    on_grid = EpisodeStore.create(tmp_path / "grid", SPEC)
    same = {name: replace(stream, stamp_ns=stream.stamp_ns) for name, stream in streams.items() if name != "position"}
    same["position"] = Stream(every, np.zeros((n, 1), np.float32))
    on_grid.append(Recording(same, RecordingMeta(on_grid=True)))
    assert measured_drops(on_grid) == {}


def test_impossible_patterns_are_refused():
    with pytest.raises(ConfigError, match=r"`fraction` must be in \[0, 1\) and `burst` at least 1, got 1.0 and 1.0"):
        DropPattern(fraction=1.0)
    with pytest.raises(ConfigError, match=r"got 0\.1 and 0\.5"):
        DropPattern(fraction=0.1, burst=0.5)
