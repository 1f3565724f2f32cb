"""The search chooses on its own seeds, the report tells the truth on others."""

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.evaluation.rollouts import EpisodeResult
from robot_rl.evaluation.weight_search import (
    Search,
    Trial,
    compare,
    parent_weights,
    report_on,
    search_weights,
    trial_row,
    weight_grid,
)


def result(seed: int, success: bool, reward: float | None = None) -> EpisodeResult:
    reward = float(success) if reward is None else reward
    return EpisodeResult(
        seed=seed, success=success, return_=reward, max_reward=reward, steps=1, terminated=success,
        truncated=not success, seconds=0.1, inference_p50_ms=1.0,
    )  # fmt: skip


def luck(rates, noise_seed=0):
    """Return an `Evaluate` whose success depends on the weights' rate and, independently, on the seed."""
    asked = []

    def evaluate(weights, seeds):
        asked.append((weights, tuple(seeds)))
        key = [round(100 * w) for w in weights]
        return [
            result(seed, bool(np.random.default_rng([seed, noise_seed, *key]).random() < rates(weights)))
            for seed in seeds
        ]

    return evaluate, asked


def trial(weights, n_success, n=100, start=0, reward=None):
    return Trial(weights, tuple(result(start + i, i < n_success, reward) for i in range(n)))


def test_the_grid_holds_every_weighting_once_and_each_sums_to_one():
    grid = weight_grid(2, 0.1)
    assert len(grid) == len(set(grid)) == 11
    assert all(sum(weights) == pytest.approx(1.0, abs=1e-12) for weights in grid)
    assert {(1.0, 0.0), (0.3, 0.7), (0.0, 1.0)} <= set(grid)
    three = weight_grid(3, 0.25)
    assert len(three) == 15
    assert (0.25, 0.25, 0.5) in three


@pytest.mark.parametrize(("n", "step"), [(1, 0.1), (2, 0.3), (2, 0.0), (2, 2.0), (2, -0.5)])
def test_a_grid_that_misses_its_ends_is_refused(n, step):
    with pytest.raises(ConfigError, match="`step` that divides 1"):
        weight_grid(n, step)


def test_parents_are_run_first_and_only_once():
    evaluate, asked = luck(lambda w: 0.5)
    search = search_weights(evaluate, weight_grid(2, 0.5), range(10))
    assert [weights for weights, _ in asked] == [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]
    assert [t.weights for t in search.parents] == [(1.0, 0.0), (0.0, 1.0)]
    without = search_weights(evaluate, [(0.5, 0.5)], range(10))
    assert [t.weights for t in without.trials] == [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]


def test_the_best_is_chosen_by_success_then_by_reward():
    search = Search((trial((1.0, 0.0), 60), trial((0.0, 1.0), 50), trial((0.5, 0.5), 61)), 2)
    assert search.best.weights == (0.5, 0.5)
    assert search.strongest == 0
    tie = Search((trial((1.0, 0.0), 60, reward=0.7), trial((0.0, 1.0), 50), trial((0.5, 0.5), 60, reward=0.8)), 2)
    assert tie.best.weights == (0.5, 0.5)


def test_equal_arms_look_better_where_they_were_chosen_than_on_the_report_seeds():
    """The inflation that disjoint seeds are for: 11 arms of one rate, 200 search seeds, mean over 20 repetitions."""
    chosen, reported = [], []
    for repetition in range(20):
        evaluate, _ = luck(lambda w: 0.6, repetition)
        search = search_weights(evaluate, weight_grid(2, 0.1), range(200))
        report = report_on(evaluate, search, range(1000, 1200))
        chosen.append(search.best.rate)
        reported.append(report.chosen.rate)
    assert np.mean(chosen) - 0.6 == pytest.approx(0.055, abs=0.02)
    assert np.mean(reported) == pytest.approx(0.6, abs=0.025)


def test_the_report_runs_parents_chosen_and_others_on_the_same_unseen_seeds():
    evaluate, asked = luck(lambda w: 0.9 if w == (0.5, 0.5) else 0.4)
    search = search_weights(evaluate, weight_grid(2, 0.25), range(200))
    asked.clear()
    report = report_on(
        evaluate, search, range(1000, 1300), others={"and": lambda seeds: [result(s, s % 2 == 0) for s in seeds]}
    )
    assert report.chosen.weights == search.best.weights == (0.5, 0.5)
    assert report.oracle is None
    assert [weights for weights, _ in asked] == [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]
    assert {seeds for _, seeds in asked} == {tuple(range(1000, 1300))}
    assert report.others["and"].rate == 0.5
    gain = report.gain()
    assert gain.difference.low > 0.3
    assert gain.paired.p_value < 1e-6
    row = trial_row("chosen", report.chosen, report.parents[report.strongest])
    assert row["difference"]["value"] == pytest.approx(report.chosen.rate - report.parents[report.strongest].rate)


def test_the_oracle_is_the_best_of_all_on_the_report_seeds():
    evaluate, asked = luck(lambda w: 0.5)
    search = search_weights(evaluate, weight_grid(2, 0.25), range(50))
    asked.clear()
    report = report_on(evaluate, search, range(1000, 1050), oracle=True)
    assert {weights for weights, _ in asked} == set(weight_grid(2, 0.25))
    assert report.oracle is not None
    assert report.oracle.successes >= max(t.successes for t in (report.chosen, *report.parents))


def test_seeds_that_the_search_has_seen_are_refused():
    evaluate, _ = luck(lambda w: 0.5)
    search = search_weights(evaluate, weight_grid(2, 0.5), range(10))
    with pytest.raises(ConfigError, match=r"the search has not seen, both hold \[9\]"):
        report_on(evaluate, search, range(9, 20))


def test_trials_on_other_seeds_are_not_compared():
    with pytest.raises(ConfigError, match="the same seeds in the same order"):
        compare(trial((1.0, 0.0), 5, 10), trial((0.0, 1.0), 5, 10, start=1))


def test_a_hopeless_parent_is_too_weak_only_if_no_mixture_beats_the_strong_one():
    """5 of 100 has the upper bound .113; 70 of 100 the lower bound .600."""
    strong, weak = trial((1.0, 0.0), 70), trial((0.0, 1.0), 5)
    assert Search((strong, weak, trial((0.5, 0.5), 70)), 2).too_weak(0.5) == 1
    assert Search((strong, weak, trial((0.5, 0.5), 71)), 2).too_weak(0.5) is None
    assert Search((strong, weak, trial((0.5, 0.5), 60)), 2).too_weak(0.15) is None
    assert Search((strong, trial((0.0, 1.0), 40), trial((0.5, 0.5), 60)), 2).too_weak(0.5) is None
    assert Search((weak, strong, trial((0.5, 0.5), 10)), 2).too_weak(0.5) == 0
    with pytest.raises(ConfigError, match=r"`min_strength` must lie in \[0, 1\], got 2"):
        Search((strong, weak), 2).too_weak(2.0)


def test_weights_of_one_parent_alone():
    assert parent_weights(3, 1) == (0.0, 1.0, 0.0)
