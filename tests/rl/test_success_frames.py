"""Frames get their labels from how episodes ended and from what people marked."""

from dataclasses import replace

import numpy as np
import pytest

from robot_rl.errors import ConfigError, StoreError
from robot_rl.rl.success_frames import (
    FRAME_LABELS,
    NEGATIVE,
    POSITIVE,
    UNCLEAR,
    LabelRule,
    TrainingFrames,
    frame_labels,
    labelled_episode,
)
from tests.rl.success_data import episodes

RULE = LabelRule(positives=2, unclear=3)


def with_meta(episode, **meta):
    return replace(episode, meta=replace(episode.meta, **meta))


def test_the_end_of_a_success_is_positive_what_is_right_before_unclear_and_the_rest_negative():
    bad, good = episodes(2)
    assert frame_labels(good, RULE, 9).tolist() == [NEGATIVE] * 4 + [UNCLEAR] * 3 + [POSITIVE] * 2
    assert frame_labels(bad, RULE, 9).tolist() == [NEGATIVE] * 9
    assert frame_labels(with_meta(good, outcome="unknown"), RULE, 9).tolist() == [UNCLEAR] * 9
    assert frame_labels(good, RULE, 3).tolist() == [UNCLEAR, POSITIVE, POSITIVE]


def test_what_people_marked_stands_above_all_else():
    bad, good = episodes(2)
    marked = with_meta(good, extra={FRAME_LABELS: {"success": [4], "failure": [8]}})
    assert frame_labels(marked, RULE, 9).tolist() == [NEGATIVE] * 4 + [POSITIVE] + [UNCLEAR] * 2 + [POSITIVE, NEGATIVE]
    later = frame_labels(marked, RULE, 9, {good.id: {"failure": [4]}, bad.id: {"success": [0]}})
    assert later[4] == NEGATIVE
    with pytest.raises(StoreError, match=r"must lie in \[0, 8\]"):
        frame_labels(good, RULE, 9, {good.id: {"success": [9]}})
    with pytest.raises(StoreError, match="success or failure, not both"):
        frame_labels(good, RULE, 9, {good.id: {"success": [3], "failure": [3]}})


def test_an_episode_gives_one_frame_more_than_steps_if_its_final_observation_was_recorded():
    _, good = episodes(2)
    whole = labelled_episode(good, ["x"], RULE)
    assert whole.frames["x"].shape == (9, 1)
    assert whole.frames["x"][-1] == good.final_obs["x"]
    assert (whole.first_success, whole.first_excusable) == (7, 4)
    short = labelled_episode(replace(good, final_obs=None), ["x"], RULE)
    assert short.frames["x"].shape == (8, 1)
    assert short.label[-2:].tolist() == [POSITIVE, POSITIVE]
    with pytest.raises(StoreError, match=r"has no \['depth'\]"):
        labelled_episode(good, ["x", "depth"], RULE)


def test_all_positive_frames_and_a_few_negative_ones_of_each_episode_are_trained_on():
    ready = [labelled_episode(episode, ["x"], RULE) for episode in episodes(4)]
    data = TrainingFrames.of(ready, negatives=2, rng=np.random.default_rng(0))
    assert data.label.sum() == 2 * 2
    assert (data.label == 0).sum() == 4 * 2
    positive = np.sort(data.frames["x"][data.label == 1, 0])
    assert positive == pytest.approx(np.zeros(4), abs=1e-6)
    with pytest.raises(StoreError, match="needs frames of both kinds, got 0 positive"):
        TrainingFrames.of(ready[::2], negatives=2, rng=np.random.default_rng(0))
    with pytest.raises(StoreError, match="of both kinds"):
        TrainingFrames.of([], negatives=2, rng=np.random.default_rng(0))


def test_a_rule_without_a_positive_frame_is_refused():
    with pytest.raises(ConfigError, match="`positives` must be at least 1"):
        LabelRule(positives=0)
