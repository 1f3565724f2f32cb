from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from robot_rl.errors import ConfigError
from robot_rl.evaluation.statistics import (
    Interval,
    bootstrap_mean,
    clopper_pearson,
    paired_mean,
    paired_success,
    student_t,
    wilson,
)

COUNTS = st.integers(1, 600).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS, st.sampled_from([0.8, 0.95, 0.99]))
def test_binomial_intervals_agree_with_scipy(counts, level):
    k, n = counts
    for ours, name in ((clopper_pearson, "exact"), (wilson, "wilson")):
        theirs = stats.binomtest(k, n).proportion_ci(level, method=name)
        found = ours(k, n, level=level)
        assert found.value == k / n
        np.testing.assert_allclose((found.low, found.high), (theirs.low, theirs.high), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(10, 10, 0.722, 1.0), (100, 100, 0.963, 1.0), (32, 50, 0.501, 0.759), (3, 3, 0.438, 1.0)],
)
def test_wilson_matches_published_values(k, n, low, high):
    found = wilson(k, n)
    np.testing.assert_allclose((found.low, found.high), (low, high), atol=6e-4)  # printed to three places


@pytest.mark.parametrize(("n", "low"), [(10, 0.6915), (100, 0.9638), (500, 0.9926)])
def test_exact_interval_at_the_edges_has_its_closed_form(n, low):
    # All succeed: low solves low^n = 0.025. None succeed: the mirror image.
    assert clopper_pearson(n, n).low == pytest.approx(0.025 ** (1 / n), rel=1e-12)
    assert round(clopper_pearson(n, n).low, 4) == low
    assert clopper_pearson(n, n).high == 1.0
    assert clopper_pearson(0, n).low == 0.0
    assert clopper_pearson(0, n).high == pytest.approx(1 - 0.025 ** (1 / n), rel=1e-12)


def test_exact_interval_covers_at_least_its_level():
    rate, n = 0.93, 40
    covered = [clopper_pearson(k, n) for k in range(n + 1)]
    probability = sum(stats.binom.pmf(k, n, rate) for k, i in enumerate(covered) if i.low <= rate <= i.high)
    assert probability >= 0.95


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(k, n):
    for interval in (clopper_pearson, wilson):
        with pytest.raises(ConfigError, match=f"need 0 <= successes <= trials and trials >= 1, got {k} of {n}"):
            interval(k, n)


def test_student_t_agrees_with_scipy():
    values = [1.0, 2.0, 4.0, 8.0]
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    found = student_t(values, level=0.9)
    np.testing.assert_allclose((found.value, found.low, found.high), (3.75, theirs.low, theirs.high), rtol=1e-12)


def test_bootstrap_is_repeatable_and_near_the_normal_interval():
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    found = bootstrap_mean(values, resamples=4000)
    assert found == bootstrap_mean(values, resamples=4000)
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose((found.low, found.high), (values.mean() - half, values.mean() + half), atol=0.01)


def test_bootstrap_of_a_coin_has_the_quantiles_of_a_binomial():
    found = bootstrap_mean([0.0] * 10 + [1.0] * 10, resamples=20_000)
    np.testing.assert_allclose((found.low, found.high), stats.binom.ppf([0.025, 0.975], 20, 0.5) / 20, atol=1e-12)


@pytest.mark.parametrize("interval", [student_t, bootstrap_mean])
def test_one_value_says_nothing_about_its_spread(interval):
    found = interval([2.5])
    assert (found.value, found.low, found.high) == (2.5, -math.inf, math.inf)
    assert found.to_dict()["low"] is None
    assert Interval.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("interval", [student_t, bootstrap_mean])
def test_values_must_exist_and_be_finite(interval):
    with pytest.raises(ConfigError, match=r"`values` must be one-dimensional with at least 1 values, got shape \(0,\)"):
        interval([])
    with pytest.raises(ConfigError, match="`values` must be finite, got nan"):
        interval([1.0, math.nan])


def test_level_is_checked():
    with pytest.raises(ConfigError, match="`level` must lie between 0 and 1, got 95"):
        clopper_pearson(1, 2, level=95)


def test_paired_success_is_mcnemar_exact():
    # Ten seeds only the first solves, two only the second: P(X <= 2 | 12, 1/2) * 2 = 2 * 79 / 4096.
    first = [True] * 10 + [False] * 2 + [True] * 5
    second = [False] * 10 + [True] * 2 + [True] * 5
    found = paired_success(first, second)
    assert (found.only_first, found.only_second) == (10, 2)
    assert found.difference == pytest.approx(8 / 17)
    assert found.p_value == pytest.approx(2 * 79 / 4096)
    assert found.p_value == pytest.approx(stats.binomtest(2, 12).pvalue)


def test_paired_success_without_a_difference_has_p_one():
    assert paired_success([True, False], [True, False]).p_value == 1.0
    with pytest.raises(ConfigError, match="one each per seed, got 1 and 2"):
        paired_success([True], [True, False])


def test_paired_mean_of_a_constant_shift_has_no_width():
    found = paired_mean([1.0, 5.0, 9.0], [0.5, 4.5, 8.5])
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
    with pytest.raises(ConfigError, match="one each per seed, got 1 and 2"):
        paired_mean([1.0], [1.0, 2.0])
