import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.evaluation.sequential import RateTest, anytime_interval
from robot_rl.evaluation.statistics import clopper_pearson


def simulated(test: RateTest, p: float, *, runs: int, seed: int) -> tuple[float, float]:
    """Return shares of accepted and rejected runs."""
    success = np.random.default_rng(seed).random((runs, test.max_trials)) < p
    down, up = test.steps
    ratio = np.cumsum(np.where(success, up, down), axis=1)
    low, high = test.bounds
    accepts, rejects = ratio >= high - 1e-9, ratio <= low + 1e-9
    first = [np.where(hit.any(1), hit.argmax(1), test.max_trials) for hit in (accepts, rejects)]
    return float((first[0] < first[1]).mean()), float((first[1] < first[0]).mean())


def test_steps_bounds_and_the_shortest_ways_are_those_of_the_rule():
    test = RateTest()
    assert test.steps == pytest.approx((-1.386294, 0.171850), abs=1e-6)
    assert test.bounds == pytest.approx((-2.944439, 2.944439), abs=1e-6)
    assert [test.judge([True] * n).verdict for n in (17, 18)] == ["continue", "accept"]
    assert [test.judge([False] * n).verdict for n in (2, 3)] == ["continue", "reject"]
    assert test.judge([True, False] + [True] * 24).verdict == "continue"  # a failure costs eight successes
    assert test.judge([False] + [True] * 26).verdict == "accept"


def test_error_rates_over_twenty_thousand_runs_are_the_exact_ones_and_below_the_promise():
    test = RateTest()
    for p in (test.p0, test.p1):
        exact, (accepted, rejected) = test.rates(p), simulated(test, p, runs=20_000, seed=1)
        assert accepted == pytest.approx(exact.accept, abs=0.01)
        assert rejected == pytest.approx(exact.reject, abs=0.01)
    assert simulated(test, test.p0, runs=20_000, seed=2)[0] <= 0.06
    assert test.rates(test.p0).accept <= test.alpha
    assert test.rates(test.p1).reject <= 0.06
    assert test.to_dict()["wrongly_accepted_at_p0"] == test.rates(0.8).accept


def test_exact_rates_of_a_short_test_are_those_counted_by_hand():
    test = RateTest(max_trials=3)  # only three failures decide
    assert test.rates(0.8).reject == pytest.approx(0.2**3)
    assert test.rates(0.8).accept == 0.0
    assert test.rates(0.8).trials == pytest.approx(3.0)


def test_cutting_off_is_never_an_acceptance():
    test = RateTest(max_trials=17)
    assert test.judge([True] * 17).verdict == "undecided"
    assert test.rates(1.0 - 1e-12).accept == 0.0


def test_what_came_after_the_decision_says_nothing():
    progress = RateTest().judge([False] * 3 + [True] * 50)
    assert (progress.verdict, progress.trials, progress.successes) == ("reject", 3, 0)


def test_an_anytime_interval_holds_at_every_moment_where_the_fixed_one_does_not():
    rng, p, n, runs = np.random.default_rng(0), 0.8, 200, 400
    kept = {"anytime": 0, "fixed": 0}
    fixed = {(k, m): clopper_pearson(k, m) for m in range(1, n + 1) for k in range(m + 1) if abs(k / m - p) < 0.35}
    anytime: dict[tuple[int, int], bool] = {}
    for _ in range(runs):
        k = np.cumsum(rng.random(n) < p)
        pairs = [(int(a), m) for m, a in enumerate(k, 1)]
        for pair in pairs:
            if pair not in anytime:
                found = anytime_interval(*pair)
                anytime[pair] = found.low <= p <= found.high
        kept["anytime"] += all(anytime[pair] for pair in pairs)
        kept["fixed"] += all(fixed[pair].low <= p <= fixed[pair].high for pair in pairs if pair in fixed)
    assert kept["anytime"] / runs >= 0.95
    assert kept["fixed"] / runs < 0.85


def test_an_anytime_interval_is_wider_than_the_exact_one_and_whole_without_trials():
    loose, exact = anytime_interval(45, 50), clopper_pearson(45, 50)
    assert loose.low < exact.low < exact.high < loose.high
    empty = anytime_interval(0, 0)
    assert (empty.low, empty.high) == (0.0, 1.0)
    assert anytime_interval(20, 20).high == 1.0


@pytest.mark.parametrize(
    ("n", "low"), [(10, 0.741134), (20, 0.860892), (50, 0.941845), (250, 0.988089), (1000, 0.997009)]
)
def test_one_sided_bounds_of_all_successes(n, low):
    assert clopper_pearson(n, n, level=0.9).low == pytest.approx(low, abs=1e-6)


def test_one_sided_bounds_with_failures_and_trials_needed_without():
    assert clopper_pearson(45, 50, level=0.9).low == pytest.approx(0.801167, abs=1e-6)
    assert clopper_pearson(47, 50, level=0.9).low == pytest.approx(0.852163, abs=1e-6)
    for rate, n in ((0.90, 29), (0.95, 59), (0.99, 299)):
        assert clopper_pearson(n, n, level=0.9).low >= rate > clopper_pearson(n - 1, n - 1, level=0.9).low


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p0": 0.95, "p1": 0.95}, "need 0 < p0 < p1 < 1"),
        ({"alpha": 0.5}, "`alpha` and `beta` must lie between 0 and 0.5"),
        ({"max_trials": 0}, "`max_trials` must be at least 1"),
    ],
)
def test_settings_that_make_no_test_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        RateTest(**change)
