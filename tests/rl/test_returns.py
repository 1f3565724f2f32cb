"""Known answers of discounted segments (specs, off-policy: rows 1-3, 5, 13, 14, 22)."""

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.rl.returns import episode_segments, segments, value_bounds
from robot_rl.values import Episode, RecordingMeta


def target(found, row, next_q):
    return found.reward[row] + found.bootstrap[row] * next_q


def test_a_full_segment_sums_n_rewards_and_bootstraps():
    found = segments(np.array([1.0, 2, 3, 0]), n=3, gamma=0.9, terminated=False)
    assert target(found, 0, 10.0) == pytest.approx(12.52)
    assert found.n_steps.tolist() == [3, 3, 2, 1]
    assert found.next_step.tolist() == [3, 4, 4, 4]


def test_a_task_that_ended_has_no_value_beyond_its_end():
    found = segments(np.array([1.0, 2]), n=3, gamma=0.9, terminated=True)
    assert target(found, 0, 10.0) == pytest.approx(2.8)
    assert found.bootstrap.tolist() == [0.0, 0.0]


def test_an_episode_cut_off_is_bootstrapped_at_its_final_observation():
    found = segments(np.array([1.0, 2]), n=3, gamma=0.9, terminated=False)
    assert target(found, 0, 10.0) == pytest.approx(10.9)
    assert segments(np.zeros(1), n=1, gamma=0.97, terminated=False).bootstrap[0] * 0.5 == pytest.approx(0.485)


def test_chunk_targets_use_the_steps_really_taken():
    full = np.array([0.0, 0, 1])
    assert target(segments(full, n=3, gamma=0.9, terminated=True), 0, 5.0) == pytest.approx(0.81)
    assert target(segments(full, n=3, gamma=0.9, terminated=False), 0, 5.0) == pytest.approx(4.455)
    short = segments(np.array([0.0, 1]), n=5, gamma=0.9, terminated=True)
    assert (target(short, 0, 5.0), short.n_steps[0]) == (pytest.approx(0.9), 2)


def test_without_a_final_observation_only_segments_that_need_it_are_left_out():
    found = segments(np.ones(5), n=2, gamma=0.9, terminated=False, has_final_obs=False)
    assert found.start.tolist() == [0, 1, 2]
    assert len(segments(np.ones(5), n=2, gamma=0.9, terminated=True, has_final_obs=False)) == 5


def test_segments_agree_with_the_sum_written_out():
    rng = np.random.default_rng(0)
    reward, n, gamma = rng.normal(size=17), 5, 0.95
    found = segments(reward, n=n, gamma=gamma, terminated=True)
    for t in range(17):
        assert found.reward[t] == pytest.approx(sum(gamma**i * r for i, r in enumerate(reward[t : t + n])))
        assert found.bootstrap[t] == (0.0 if t + n >= 17 else pytest.approx(gamma**n))


def episode(**changes):
    n = 4
    fields = {
        "id": "e", "stamp_ns": np.arange(n), "obs": {"x": np.arange(n)[:, None]}, "final_obs": {"x": np.array([n])},
        "action": np.zeros((n, 1)), "action_executed": np.zeros((n, 1)), "reward": np.array([0.0, 0, 0, 1]),
        "by_human": np.zeros(n, bool), "valid": np.array([True, False, True, True]), "terminated": True,
        "truncated": False, "meta": RecordingMeta(),
    }  # fmt: skip
    return Episode(**{**fields, **changes})


def test_an_episodes_segments_start_at_valid_ticks():
    found = episode_segments(episode(), n=2, gamma=0.5)
    assert found.start.tolist() == [0, 2, 3]
    assert found.reward.tolist() == [0.0, 0.5, 1.0]
    other = episode_segments(episode(), n=1, gamma=0.5, reward=np.array([-1.0, 0, 0, 0]))
    assert other.reward.tolist() == [-1.0, 0.0, 0.0]
    with pytest.raises(ConfigError, match="one value for each of 4 steps, got 3"):
        episode_segments(episode(), n=1, gamma=0.5, reward=np.zeros(3))


def test_values_are_bounded_by_the_geometric_series():
    assert value_bounds(-1.0, 0.0, 0.99) == (pytest.approx(-100.0), 0.0)
    with pytest.raises(ConfigError, match="gamma in"):
        value_bounds(0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("n", "gamma", "message"), [(0, 0.9, "`n` must"), (1, 0.0, "`gamma` must"), (1, 1.1, "got 1.1")]
)
def test_settings_that_make_no_sense_are_refused(n, gamma, message):
    with pytest.raises(ConfigError, match=message):
        segments(np.zeros(3), n=n, gamma=gamma, terminated=False)
