"""Interventions cut out of an episode as demonstrations of their own."""

import numpy as np
import pytest

from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.rl.segments import human_segments
from robot_rl.values import Episode, RecordingMeta
from tests.rl.reach import SPEC, STEP_NS


def episode(human, *, terminated=False, final=True):
    n = len(human)
    steps = np.arange(n, dtype=np.float32)[:, None]
    return Episode(
        id="played", stamp_ns=np.arange(n) * STEP_NS, obs={"x": steps}, action=steps / 10, action_executed=steps / 10,
        reward=np.zeros(n, np.float32), by_human=np.array(human, bool), valid=np.ones(n, bool), terminated=terminated,
        truncated=not terminated, final_obs={"x": np.array([n], np.float32)} if final else None, extras={},
        meta=RecordingMeta(task="reach", source="policy", outcome="failure", seed=7),
    )  # fmt: skip


def test_each_run_becomes_an_episode_with_its_own_observations_and_actions(tmp_path):
    store = EpisodeStore.create(tmp_path / "store", SPEC)
    for recording in human_segments(episode([0, 0, 1, 1, 1, 0, 1, 1]), SPEC):
        store.append(recording)
    first, second = (store.episode(id) for id in store.ids())
    assert first.obs["x"][:][:, 0].tolist() == [2, 3, 4]
    assert first.final_obs["x"].tolist() == [5]
    assert np.asarray(first.action)[:, 0] == pytest.approx([0.2, 0.3, 0.4])
    assert second.obs["x"][:][:, 0].tolist() == [6, 7]
    assert second.final_obs["x"].tolist() == [8]
    for segment in (first, second):
        assert np.asarray(segment.by_human).all()
        assert (segment.terminated, segment.truncated, segment.meta.source) == (False, True, "human")
    assert second.meta.extra["segment_of"] == {"episode": "played", "first_step": 6}
    assert second.meta.seed == 7


def test_only_a_segment_at_the_end_of_a_finished_task_is_finished():
    one, two = human_segments(episode([1, 1, 0, 1, 1], terminated=True), SPEC)
    assert (one.meta.terminated, one.meta.truncated) == (False, True)
    assert (two.meta.terminated, two.meta.truncated) == (True, False)


def test_short_runs_are_left_out_and_a_missing_final_observation_costs_a_step():
    assert len(list(human_segments(episode([1, 0, 1, 1]), SPEC))) == 1
    assert len(list(human_segments(episode([1, 0, 1, 1]), SPEC, least_steps=1))) == 2
    assert len(list(human_segments(episode([1, 0, 1, 1], final=False), SPEC))) == 0
    assert not list(human_segments(episode([0, 0, 0]), SPEC))
    with pytest.raises(ConfigError, match="`least_steps` must be at least 1, got 0"):
        list(human_segments(episode([1]), SPEC, least_steps=0))
