"""Advantages of chunks, by known answers (specs, RL-100 and DPPO: rows 1-5)."""

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.rl.ppo.gae import chunk_segments, explained_variance, gae

REWARD, VALUE = np.array([0.0, 0.0, 1.0]), np.array([0.5, 0.6, 0.7])


def episode(*, after, terminated, lam=0.95, gamma=0.99):
    """Return advantages and targets of three steps, chunks of one, with value `after` at the end."""
    found = chunk_segments(REWARD, np.arange(3), gamma=gamma, terminated=terminated)
    return gae(
        found.reward, found.bootstrap, VALUE, np.append(VALUE[1:], after), np.array([True, True, False]), lam=lam
    )


def test_a_task_that_ended_is_worth_nothing_afterwards():
    advantage, target = episode(after=123.0, terminated=True)
    assert advantage == pytest.approx([0.446829, 0.37515, 0.3], abs=1e-6)
    assert target == pytest.approx([0.946829, 0.97515, 1.0], abs=1e-6)


def test_lambda_one_is_the_whole_return_and_zero_the_next_difference():
    assert episode(after=0.0, terminated=True, lam=1.0)[0] == pytest.approx([0.4801, 0.39, 0.3])
    assert episode(after=0.0, terminated=True, lam=0.0)[0] == pytest.approx([0.094, 0.093, 0.3])


def test_an_episode_that_was_cut_off_is_bootstrapped():
    advantage, _ = episode(after=0.8, terminated=False)
    assert advantage == pytest.approx([1.147384, 1.120026, 1.092], abs=1e-6)


@pytest.mark.parametrize(("terminated", "first"), [(True, -0.5), (False, 0.094)])
def test_nothing_after_an_episodes_end_reaches_back_over_it(terminated, first):
    bootstrap = np.array([0.0 if terminated else 0.99, 0.99, 0.0])
    for later in (0.0, 100.0):
        reward = np.array([0.0, later, later])
        advantage, _ = gae(
            reward, bootstrap, VALUE, np.array([0.6, 0.7, 0.0]), np.array([False, True, False]), lam=0.95
        )
        assert advantage[0] == pytest.approx(first)


def test_many_environments_at_once_are_each_alone():
    rng = np.random.default_rng(0)
    reward, bootstrap, value, after = (rng.uniform(size=(7, 4)) for _ in range(4))
    continues = rng.uniform(size=(7, 4)) < 0.7
    continues[-1] = False
    together = gae(reward, bootstrap, value, after, continues, lam=0.9)
    for e in range(4):
        alone = gae(*(array[:, e] for array in (reward, bootstrap, value, after, continues)), lam=0.9)
        for whole, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(whole[:, e], one)


def test_a_chunks_reward_stops_where_its_episode_does():
    found = chunk_segments(np.array([0.0, 1.0]), np.array([0]), gamma=0.9, terminated=True)
    assert (found.reward.tolist(), found.bootstrap.tolist()) == ([pytest.approx(0.9)], [0.0])
    going_on = chunk_segments(np.array([0.0, 1.0, 5.0]), np.array([0, 2]), gamma=0.9, terminated=False)
    assert going_on.reward == pytest.approx([0.9, 5.0])
    assert going_on.bootstrap == pytest.approx([0.81, 0.9])
    for gamma, power in ((0.997, 0.953065), (0.99, 0.851458)):
        full = chunk_segments(np.zeros(16), np.array([0]), gamma=gamma, terminated=False)
        assert full.bootstrap[0] == pytest.approx(power, abs=1e-6)


def test_a_chunk_that_was_cut_short_is_discounted_by_the_steps_it_took():
    found = chunk_segments(np.ones(7), np.array([0, 3, 4]), gamma=0.5, terminated=False)
    assert found.n_steps.tolist() == [3, 1, 3]
    assert found.reward == pytest.approx([1.75, 1.0, 1.75])
    assert found.bootstrap == pytest.approx([0.125, 0.5, 0.125])


def test_without_a_final_observation_the_last_chunk_of_a_cut_off_episode_is_left_out():
    found = chunk_segments(np.ones(4), np.array([0, 2]), gamma=0.9, terminated=False, has_final_obs=False)
    assert found.start.tolist() == [0]
    assert len(chunk_segments(np.ones(4), np.array([0, 2]), gamma=0.9, terminated=True, has_final_obs=False)) == 2


def test_explained_variance_is_one_for_the_truth_and_zero_for_a_constant():
    target = np.array([0.0, 1.0, 2.0])
    assert explained_variance(target, target) == 1.0
    assert explained_variance(np.ones(3), target) == 0.0
    assert explained_variance(-target, target) == pytest.approx(-3.0)
    assert np.isnan(explained_variance(target, np.ones(3)))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match=r"`start` must rise within the 3 steps of the episode, got \[0, 3\]"):
        chunk_segments(REWARD, np.array([0, 3]), gamma=0.9, terminated=True)
    with pytest.raises(ConfigError, match=r"`gamma` must be in \(0, 1\], got 1.1"):
        chunk_segments(REWARD, np.array([0]), gamma=1.1, terminated=True)
    with pytest.raises(ConfigError, match="whose last row does not continue"):
        gae(REWARD, REWARD, VALUE, VALUE, np.array([True, True, True]), lam=0.9)
    with pytest.raises(ConfigError, match=r"`lam` must be in \[0, 1\], got 2"):
        gae(REWARD, REWARD, VALUE, VALUE, np.zeros(3, bool), lam=2)
