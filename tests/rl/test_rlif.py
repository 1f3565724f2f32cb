"""What RLIF makes of an episode (specs, off-policy: rows 35 to 38)."""

from dataclasses import replace

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.rl.feed import ReplayFeed
from robot_rl.rl.rlif import InterventionLabels, rewards_of, value_bounds
from robot_rl.rl.sampling import SymmetricSampler
from robot_rl.values import Episode, RecordingMeta
from tests.rl.reach import SPEC, STEP_NS

HUMAN = np.array([0, 0, 1, 1, 1, 0, 0, 1, 0, 0], dtype=bool)


def episode(human=HUMAN, *, source="policy", reward=1.0):
    """Return an episode whose action says its step, with a task reward that nothing here may use."""
    n = len(human)
    steps = np.arange(n, dtype=np.float32)
    return Episode(
        id=f"{source}-{human.astype(int)}", stamp_ns=np.arange(n) * STEP_NS, obs={"x": steps[:, None]},
        action=steps[:, None], action_executed=steps[:, None], reward=np.full(n, reward, np.float32), by_human=human,
        valid=np.ones(n, bool), terminated=False, truncated=True, final_obs={"x": np.array([n], np.float32)}, extras={},
        meta=RecordingMeta(task="reach", source=source, outcome="success"),
    )  # fmt: skip


def feed(labels, *, n_step=1):
    return ReplayFeed(
        SPEC, SymmetricSampler(8, 0.5), n_step=n_step, gamma=0.9, streams={}, reward=labels,
        demonstration_reward=labels, keep=labels.kept,
    )  # fmt: skip


def rows(pool):
    batch = pool.gather(np.arange(len(pool)))
    return {int(a): float(r) for a, r in zip(batch.action[:, 0, 0], batch.reward, strict=True)}


def test_all_ten_steps_are_learned_from_and_only_takeovers_cost():
    both = feed(InterventionLabels())
    assert both.add(episode()) == 10
    assert rows(both.online) == {n: (-1.0 if n in (1, 6) else 0.0) for n in range(10)}
    assert rows(both.demonstrations) == {n: 0.0 for n in (2, 3, 4, 7)}  # the person's steps, beside
    assert both.counts.takeovers == 2


def test_every_rule_and_reaction_lag_change_the_labels_alone():
    assert np.flatnonzero(InterventionLabels(label_rule="every")(episode())).tolist() == [1, 2, 3, 6]
    assert np.flatnonzero(InterventionLabels(reaction_lag_steps=1)(episode())).tolist() == [0, 1, 5, 6]


def test_without_the_interior_only_the_last_human_step_of_each_intervention_is_kept():
    labels = InterventionLabels(keep_expert_interior=False)
    both = feed(labels)
    assert both.add(episode()) == 8
    # The released code drops the same interior {2, 3}, and the last step {9} as well, which we keep.
    assert sorted(rows(both.online)) == [0, 1, 4, 5, 6, 7, 8, 9]
    assert sorted(rows(both.demonstrations)) == [4, 7]
    assert rows(both.online)[1] == rows(both.online)[6] == -1.0


def test_prior_data_is_relabelled_with_nothing_whoever_recorded_it():
    both = feed(InterventionLabels(label_rule="every"))
    both.add_demonstration(episode(source="scripted"))
    both.add_demonstration(episode(np.ones(10, bool), source="teleop"))
    assert set(rows(both.demonstrations).values()) == {0.0}
    assert len(both.demonstrations) == 20


def test_an_episode_that_begins_with_a_person_costs_nothing_there():
    assert not InterventionLabels()(episode(np.array([1, 1, 0, 0], bool))).any()


def test_segments_sum_the_penalty_and_go_on_through_the_end_of_an_episode_that_was_cut_off():
    both = feed(InterventionLabels(), n_step=3)
    both.add(episode())
    assert rows(both.online)[0] == pytest.approx(-0.9)
    assert rows(both.online)[4] == pytest.approx(-0.81)
    last = both.online.gather(np.array([9]))
    assert last.bootstrap[0] == pytest.approx(0.9)


def test_configurations_name_their_reward():
    labels, keep = rewards_of({"reward": "interventions", "rlif": {"keep_expert_interior": False}})
    assert keep(episode()).sum() == 8
    assert labels(episode()).sum() == -2
    recorded, keep = rewards_of({"reward": "recorded"})
    assert keep is None
    assert recorded(episode()).tolist() == [1.0] * 10
    with pytest.raises(ConfigError, match=r"`algo.reward` must be one of .*'interventions'.*, got 'none'"):
        rewards_of({"reward": "none"})
    with pytest.raises(ConfigError, match=r"`algo.rlif`: .*rule.*; it has \['keep_expert_interior', 'label_rule'"):
        rewards_of({"reward": "interventions", "rlif": {"rule": "start"}})
    with pytest.raises(ConfigError, match="`rule` must be `start` or `every`, got 'first'"):
        replace(InterventionLabels(), label_rule="first")


def test_values_are_between_a_takeover_at_every_step_and_none():
    assert value_bounds(0.99) == pytest.approx((-100.0, 0.0))
