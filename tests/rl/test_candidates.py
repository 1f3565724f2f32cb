"""Candidates are drawn once an observation, from the episode's id, and come with the batch at the segment's end."""

from dataclasses import replace

import numpy as np
import pytest

from robot_rl.data.memory import MemorySink
from robot_rl.errors import ConfigError, SpecError, StoreError
from robot_rl.rl.candidates import CANDIDATES, CandidateLabels
from robot_rl.rl.feed import ReplayFeed
from robot_rl.rl.labelling import LabelCache
from robot_rl.rl.replay import FINAL
from robot_rl.rl.runner import runner_extras
from robot_rl.rl.sampling import SymmetricSampler
from tests.rl.chunks import Spread
from tests.rl.reach import SPEC, Reach, make_actor, residual


@pytest.fixture
def episode(tmp_path):
    sink = MemorySink(SPEC, extra=runner_extras(SPEC))
    played = make_actor(tmp_path, sink, residual(), env=Reach(success=0.0)).episode()
    return sink.episode(played.id)


def test_every_observation_has_its_own_and_the_same_each_time(episode):
    base = Spread()
    labels = CandidateLabels(base, n=3, horizon=2)
    first, again = labels(episode), labels(episode)
    drawn = first.extras[CANDIDATES]
    assert drawn.shape == (5, 3, 2, 1)
    assert np.array_equal(drawn, again.extras[CANDIDATES])
    assert len(np.unique(drawn[..., 0, 0])) > 10, "no two but those held to a limit are alike"
    assert first.meta.extra[FINAL][CANDIDATES].shape == (3, 2, 1)
    assert set(first.meta.extra[FINAL]) >= {"base_action"}, "what was recorded there stays"
    assert labels(first) is first
    other = labels(replace(episode, id="another"))
    assert not np.array_equal(drawn, other.extras[CANDIDATES])


def test_the_base_sees_what_an_actor_would_have_shown_it(episode):
    base = Spread()
    CandidateLabels(base, n=2, horizon=4)(episode)
    ((x, _),) = base.calls  # one call for the whole episode
    seen = np.concatenate([episode.obs["x"][:], episode.final_obs["x"][None]])[:, 0]
    assert x[::2, 1, 0].tolist() == seen.tolist()
    assert x[1::2, 1, 0].tolist() == seen.tolist()
    assert x[::2, 0, 0].tolist() == [seen[0], *seen[:-1]]


def test_without_a_final_observation_the_last_ones_repeat(episode):
    got = CandidateLabels(Spread(), n=2, horizon=4)(replace(episode, final_obs=None))
    assert np.array_equal(got.meta.extra[FINAL][CANDIDATES], got.extras[CANDIDATES][-1])


def test_long_episodes_are_drawn_in_parts_that_make_no_difference(episode, monkeypatch):
    whole = CandidateLabels(Spread(), n=3, horizon=2)(episode)
    monkeypatch.setattr("robot_rl.rl.candidates._ROWS", 6)
    base = Spread()
    parts = CandidateLabels(base, n=3, horizon=2)(episode)
    assert len(base.calls) == 3
    assert np.array_equal(whole.extras[CANDIDATES], parts.extras[CANDIDATES])


def test_they_are_kept_on_disk_and_wrong_ones_are_refused(episode, tmp_path):
    base, cache = Spread(), LabelCache(tmp_path / "labels", "base")
    first = CandidateLabels(base, n=3, horizon=2, cache=cache)(episode)
    second = CandidateLabels(base, n=3, horizon=2, cache=cache)(episode)
    assert len(base.calls) == 1
    assert np.array_equal(first.extras[CANDIDATES], second.extras[CANDIDATES])
    with pytest.raises(StoreError, match="delete it"):
        CandidateLabels(base, n=4, horizon=2, cache=cache)(episode)


def test_a_batch_brings_the_candidates_of_the_state_where_its_segment_ends(episode):
    labels = CandidateLabels(Spread(), n=3, horizon=2)
    feed = ReplayFeed(
        SPEC, SymmetricSampler(64, 0.0), n_step=2, gamma=0.9, streams={CANDIDATES: (3, 2, 1)}, horizon=2,
        prepare=labels,
    )  # fmt: skip
    assert feed.add(episode) == 5
    batch = feed.sample()
    assert batch.action.shape == (64, 2, 1)
    ready = labels(episode)
    drawn = np.concatenate([ready.extras[CANDIDATES], ready.meta.extra[FINAL][CANDIDATES][None]])
    seen = np.concatenate([episode.obs["x"][:], episode.final_obs["x"][None]])[:, 0]
    for i in range(64):
        at = int(np.flatnonzero(seen == batch.obs["x"][i, 0, 0].item())[0])
        end = min(at + 2, 5)
        assert np.array_equal(batch.next_extras[CANDIDATES][i], drawn[end])
        assert batch.mask[i].tolist() == [True, at + 1 < 5]


def test_what_the_base_cannot_give_is_refused(episode):
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        CandidateLabels(Spread(), n=0, horizon=2)
    with pytest.raises(ConfigError, match="a critic of 9 actions needs chunks of as many, the base's have 4"):
        CandidateLabels(Spread(), n=1, horizon=9)(episode)
    with pytest.raises(SpecError, match="the base reads `x`, which episode"):
        CandidateLabels(Spread(), n=1, horizon=2)(replace(episode, obs={}))
