import math

import numpy as np
import pytest
from scipy import special

from robot_rl.errors import ConfigError
from robot_rl.evaluation.paired import PairCounts, PairedTest, compare_rates, cumulated, difference_interval, log_wealth


def shares(test: PairedTest, wins: float, losses: float, *, runs: int, pairs: int, seed: int) -> tuple[float, float]:
    """Return shares of runs accepted and rejected, given how often only one of the two succeeds."""
    draw = np.random.default_rng(seed).random((runs, pairs))
    after = cumulated((draw < wins).astype(int) - ((draw >= wins) & (draw < wins + losses)).astype(int))
    accepts = log_wealth(*after, -test.margin) >= -math.log(test.alpha)
    rejects = log_wealth(*after, -test.margin, below=True) >= -math.log(test.beta)
    first = [np.where(hit.any(1), hit.argmax(1), pairs + 1) for hit in (accepts, rejects)]
    return float((first[0] < first[1]).mean()), float((first[1] < first[0]).mean())


def test_without_margin_the_wealth_is_mcnemars_likelihood_ratio_with_a_uniform_prior():
    w, lost = 9, 3
    exact = 2 ** (w + lost + 1) * special.beta(w + 1, lost + 1) * special.betaincc(w + 1, lost + 1, 0.5)
    assert log_wealth(np.array(w), np.array(1000), np.array(lost), 0.0) == pytest.approx(math.log(exact), abs=1e-3)


def test_a_candidate_worse_by_the_margin_is_accepted_no_more_often_than_promised():
    test = PairedTest(margin=0.1, alpha=0.1)
    accepted, _ = shares(test, wins=0.1, losses=0.2, runs=250, pairs=100, seed=0)
    assert accepted <= 0.1 + 2 * math.sqrt(0.1 * 0.9 / 250)
    accepted, _ = shares(PairedTest(margin=0.0, alpha=0.1), wins=0.2, losses=0.2, runs=250, pairs=100, seed=1)
    assert accepted <= 0.1 + 2 * math.sqrt(0.1 * 0.9 / 250)


def test_a_better_candidate_is_accepted_and_a_worse_one_rejected():
    test = PairedTest(margin=0.05)
    assert shares(test, wins=0.25, losses=0.05, runs=40, pairs=200, seed=2)[0] >= 0.95
    assert shares(test, wins=0.05, losses=0.35, runs=40, pairs=200, seed=3)[1] >= 0.95


def test_equal_policies_without_margin_are_told_apart_by_nobody():
    same = [True, False] * 50
    progress = PairedTest(margin=0.0, max_pairs=100).judge(same, same)
    assert (progress.verdict, progress.counts) == ("undecided", PairCounts(0, 100, 0))
    assert progress.evidence_for == pytest.approx(1.0)


def test_the_decision_is_taken_at_the_first_pair_that_allows_it():
    wins, losses = [True] * 40, [False] * 40
    progress = PairedTest(margin=0.0).judge(wins, losses)
    assert progress.verdict == "accept"
    n = progress.counts.wins
    # 2^(n+1) (1 - 2^-(n+1)) / (n + 1) is first beyond 20 at n = 7.
    assert n == 7
    assert PairedTest(margin=0.0).judge(wins[: n - 1], losses[: n - 1]).verdict == "continue"
    assert PairedTest(margin=0.0).judge(losses, wins).verdict == "reject"


def test_the_interval_of_the_difference_holds_the_truth_at_every_moment():
    rng, runs, n, kept = np.random.default_rng(4), 30, 120, 0
    for _ in range(runs):
        draw = rng.random(n)
        w, ties, lost = cumulated((draw < 0.3).astype(int) - ((draw >= 0.3) & (draw < 0.4)).astype(int))
        looks = [PairCounts(int(w[m]), int(ties[m]), int(lost[m])) for m in (10, 30, 60, 120)]
        kept += all(i.low <= 0.2 <= i.high for i in map(difference_interval, looks))
    assert kept / runs >= 0.95
    whole = difference_interval(PairCounts(0, 0, 0))
    assert (whole.low, whole.value, whole.high) == (-1.0, 0.0, 1.0)


def test_exact_comparisons_of_two_rates_are_those_published():
    assert compare_rates((29, 50), (25, 50)).barnard == pytest.approx(0.265458, abs=1e-3)
    assert compare_rates((20, 20), (15, 20)).barnard == pytest.approx(0.008357, abs=1e-3)
    assert compare_rates((19, 20), (15, 20)).barnard == pytest.approx(0.053, abs=2e-3)
    assert compare_rates((47, 50), (35, 50)).fisher == pytest.approx(0.001652, abs=1e-3)
    assert compare_rates((20, 20), (20, 20)).barnard == 1.0


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ConfigError, match="one each per start, got 1 and 2"):
        PairedTest().judge([True], [True, False])
    with pytest.raises(ConfigError, match="got 3 of 2"):
        compare_rates((3, 2), (1, 2))
    with pytest.raises(ConfigError, match=r"`margin` must be in \[0, 1\), got -0.1"):
        PairedTest(margin=-0.1)
