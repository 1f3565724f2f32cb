"""Paired bounds by hand and by simulation, and what makes a score fit to choose by."""

import numpy as np
import pytest
from scipy import stats

from robot_rl.errors import ConfigError
from robot_rl.rl.offline.evidence import paired_bound, validity


def test_the_bound_of_five_differences_is_students():
    found = paired_bound(np.arange(1.0, 6.0), np.arange(5), resamples=1)
    assert (found.mean, found.se) == pytest.approx((3.0, 0.707107), abs=1e-6)
    assert paired_bound(np.arange(1.0, 6.0), np.arange(5)).low <= 1.492557 + 1e-6
    t = found.mean - stats.t.ppf(0.95, 4) * found.se
    assert t == pytest.approx(1.492557, abs=1e-6)


def test_without_pairs_ten_percent_of_noise_passes_a_margin_of_five_percent_every_third_time():
    assert stats.norm.sf(0.05, scale=0.1 * np.sqrt(2)) == pytest.approx(0.361837, abs=1e-6)


def test_starts_of_one_episode_count_as_one_where_they_agree():
    d, episode = np.repeat([1.0, 2.0, 3.0, 4.0], 25), np.repeat(np.arange(4), 25)
    clustered, alone = paired_bound(d, episode), paired_bound(np.array([1.0, 2.0, 3.0, 4.0]), np.arange(4))
    assert clustered.se == pytest.approx(alone.se)
    assert clustered.low == pytest.approx(alone.low)
    assert clustered.low < paired_bound(d, np.arange(100)).low


def test_the_bound_holds_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(300):
        size = rng.integers(1, 12, size=25)
        effect = np.repeat(rng.normal(size=25), size)
        d, episode = effect + rng.normal(size=len(effect)), np.repeat(np.arange(25), size)
        held += paired_bound(d, episode, resamples=300, seed=seed).low <= 0.0
    assert held >= 0.92 * 300, "a one-sided bound of 95 %, with the rounding of 300 trials"


def test_scores_that_are_not_numbers_and_a_single_episode_are_refused():
    with pytest.raises(ConfigError, match="scores must be finite, got nan"):
        paired_bound(np.array([0.0, np.nan]), np.arange(2))
    with pytest.raises(ConfigError, match="at least 2 episodes, got 1"):
        paired_bound(np.zeros(3), np.zeros(3))


def test_a_score_that_orders_checkpoints_by_success_may_select():
    success = [0.1, 0.2, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8]
    found = validity([10 * s for s in success], success)
    assert found.may_select
    assert (found.rank_correlation, found.worst_inversion) == (1.0, 0.0)


def test_one_bad_inversion_is_enough_to_protect_only():
    success = [0.1, 0.2, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8]
    score = [1, 2, 3, 4, 5, 6, 8, 7]
    found = validity(score, [*success[:6], 0.65, 0.8])
    assert found.rank_correlation > 0.9
    assert found.worst_inversion == pytest.approx(0.15)
    assert not found.may_select
    assert found.sentence().startswith("may only protect")


def test_too_few_checkpoints_and_a_constant_score_protect_only():
    assert not validity(range(7), [i / 10 for i in range(7)]).may_select
    constant = validity([1.0] * 8, [i / 10 for i in range(8)])
    assert not constant.may_select
    assert np.isnan(constant.rank_correlation)
