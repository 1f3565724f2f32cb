"""A success classifier learns from whole episodes, is judged on others, and leaves for the robot as ONNX."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from robot_rl.deploy.success import CARD, GRAPH, Bounds, SuccessClassifier
from robot_rl.errors import BundleError, ConfigError, SpecError, TrainingError
from robot_rl.rl.classified_env import ClassifiedEnv
from robot_rl.rl.success_classifier import (
    ClassifierTraining,
    VoteCounts,
    choose_threshold,
    count_votes,
    frame_accuracy,
    frame_probabilities,
    train_classifier,
    vote_curve,
)
from robot_rl.rl.success_export import export_classifier
from robot_rl.rl.success_frames import LabelledEpisode, LabelRule, TrainingFrames, labelled_episode
from robot_rl.specs import ArraySpec
from tests.rl.reach import SPEC, Reach
from tests.rl.success_data import card, episodes, network

RULE = LabelRule(positives=4, unclear=2)


@pytest.fixture(scope="module")
def ready():
    return [labelled_episode(episode, ["x"], RULE) for episode in episodes()]


@pytest.fixture(scope="module")
def trained(ready):
    model = network()
    data = TrainingFrames.of(ready[:12], negatives=6, rng=np.random.default_rng(0))
    losses = train_classifier(model, data, ClassifierTraining(steps=300, batch_size=32, lr=1e-2))
    assert np.mean(losses[-20:]) < 0.4 * np.mean(losses[:5])
    return model


@pytest.fixture(scope="module")
def folder(trained, ready, tmp_path_factory):
    out = tmp_path_factory.mktemp("classifier")
    export_classifier(trained, out, card(), ready[-1])
    return out


def made_up(label):
    return LabelledEpisode("e", {}, np.array(label, np.int8))


def test_it_tells_frames_of_episodes_apart_that_it_never_saw(trained, ready):
    held_out = ready[12:]
    told = [frame_probabilities(trained, episode) for episode in held_out]
    for right, n in frame_accuracy(held_out, told, threshold=0.5).values():
        assert right / n > 0.9
    votes = count_votes(held_out, told, threshold=0.5, consecutive=2)
    assert (votes.recall, votes.precision) == (1.0, 1.0)


def test_training_repeats_bit_for_bit(ready):
    data = TrainingFrames.of(ready[:4], negatives=6, rng=np.random.default_rng(0))
    runs = [train_classifier(network(), data, ClassifierTraining(steps=5, seed=s)) for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_a_vote_is_right_from_the_unclear_frames_on_and_wrong_before_or_in_a_failure():
    success, failure = made_up([0, 0, -1, 1, 1]), made_up([0, 0, 0, 0, 0])
    late, early = np.array([0, 0, 0.8, 0.9, 0.9]), np.array([0.9, 0.9, 0, 0, 0])
    assert count_votes([success], [late], threshold=0.5, consecutive=2) == VoteCounts(1, 1, 1, 1, (0,))
    assert count_votes([success], [late], threshold=0.85, consecutive=2).delay == (1,)
    assert count_votes([success], [late], threshold=0.5, consecutive=1).delay == (-1,)
    assert count_votes([success], [early], threshold=0.5, consecutive=2).right == 0
    assert count_votes([failure], [late], threshold=0.5, consecutive=2) == VoteCounts(1, 0, 0, 1, ())
    assert np.isnan(count_votes([failure], [early], threshold=0.95, consecutive=1).precision)


def test_the_threshold_has_the_best_recall_at_the_precision_asked_for():
    curve = {
        0.2: VoteCounts(10, 6, 6, 12, ()), 0.4: VoteCounts(6, 5, 6, 12, ()), 0.5: VoteCounts(5, 5, 6, 12, ()),
        0.6: VoteCounts(5, 5, 6, 12, ()), 0.7: VoteCounts(5, 5, 6, 12, ()), 0.9: VoteCounts(1, 1, 6, 12, ()),
    }  # fmt: skip
    assert choose_threshold(curve, precision=0.95) == 0.6
    assert choose_threshold(curve, precision=0.6) == 0.2
    with pytest.raises(TrainingError, match=r"precision of 0.9 on held-out episodes \(best 0.600\)"):
        choose_threshold({0.2: curve[0.2]}, precision=0.9)
    with pytest.raises(ConfigError, match=r"`precision` must be in \(0, 1\], got 0"):
        choose_threshold(curve, precision=0)


def test_a_curve_holds_what_each_threshold_would_have_done(trained, ready):
    told = [frame_probabilities(trained, episode) for episode in ready]
    curve = vote_curve(ready, told, consecutive=2)
    assert len(curve) == 99
    assert curve[0.5] == count_votes(ready, told, threshold=0.5, consecutive=2)
    assert curve[0.01].fired >= curve[0.99].fired


def test_the_robots_side_gives_the_probabilities_that_torch_gives(folder, trained, ready):
    classifier = SuccessClassifier(folder)
    for episode in ready[:3]:
        told = classifier.probabilities({"x": episode.frames["x"]})
        assert told == pytest.approx(frame_probabilities(trained, episode), abs=1e-5)
    assert classifier.counts({"x": np.zeros(1, np.float32), "else": np.zeros(3)})
    assert not classifier.counts({"x": np.full(1, 0.5, np.float32)})
    with pytest.raises(SpecError, match="reads `x`, which is not observed"):
        classifier.counts({})


def test_a_classifier_that_was_altered_or_is_not_there_is_refused(folder, trained, ready, tmp_path):
    with pytest.raises(BundleError, match="holds no success classifier"):
        SuccessClassifier(tmp_path)
    export_classifier(trained, tmp_path, card(), ready[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == [CARD, GRAPH]
    (tmp_path / GRAPH).write_bytes(b"another")
    with pytest.raises(BundleError, match="is not the graph"):
        SuccessClassifier(tmp_path)
    data = json.loads((folder / CARD).read_text())
    (tmp_path / CARD).write_text(json.dumps({**data, "format_version": 9}))
    with pytest.raises(BundleError, match="of format 9, this release reads 1"):
        SuccessClassifier(tmp_path)


def drive(env, moves, seed=0):
    """Return the ticks after the given moves, to the origin first and then by those."""
    tick = env.reset(seed)
    ticks = [env.step(np.array([-tick.obs["x"][0] + moves[0]], np.float32))]
    for before, now in pairwise(moves):
        ticks.append(env.step(np.array([now - before], np.float32)))
    return ticks


def test_reward_and_end_come_from_frames_in_a_row(folder):
    env = ClassifiedEnv(Reach(success=0.0), SuccessClassifier(folder))
    ticks = drive(env, [0.0, 0.5, 0.0, 0.0])
    assert [tick.reward for tick in ticks] == [0.0, 0.0, 0.0, 1.0]
    assert [tick.terminated for tick in ticks] == [False, False, False, True]
    assert ticks[-1].success
    assert [tick.reward for tick in drive(env, [0.0, 0.5])] == [0.0, 0.0], "a new episode begins a new count"


def test_what_the_environment_says_of_success_is_passed_over(folder):
    env = ClassifiedEnv(Reach(success=0.02), SuccessClassifier(folder))
    (tick,) = drive(env, [0.0])
    assert (tick.reward, tick.terminated, tick.success) == (0.0, False, False)
    assert tick.truncated, "an end that the vote did not see is a cut, not a success"
    assert tick.info["env_success"]


def test_outside_its_bounds_nothing_counts(trained, ready, tmp_path):
    bounded = card(bounds=(Bounds(obs="x", low=0.1),), consecutive=1)
    classifier = export_classifier(trained, tmp_path, bounded, ready[0])
    assert not classifier.counts({"x": np.zeros(1, np.float32)})
    assert SuccessClassifier(tmp_path).card == classifier.card
    with pytest.raises(SpecError, match="`bounds` are on `y`"):
        Bounds(obs="y").holds({"x": np.zeros(1)})


def test_a_robot_without_what_the_classifier_reads_is_refused(trained, ready, tmp_path):
    export_classifier(trained, tmp_path, card(), ready[0])

    class Blind(Reach):
        spec = replace(SPEC, obs={"y": ArraySpec(name="y", shape=(1,))})

    with pytest.raises(SpecError, match=r"reads \['x'\], which robot `reach` does not observe"):
        ClassifiedEnv(Blind(), SuccessClassifier(tmp_path))


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"`threshold` must be in \(0, 1\)"):
        card(threshold=1.0)
    with pytest.raises(ConfigError, match="`steps` must be at least 1"):
        ClassifierTraining(steps=0)
