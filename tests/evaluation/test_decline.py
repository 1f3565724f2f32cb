import itertools

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.evaluation.decline import DEPTHS, Decline

BOUND = 0.85


def alarm_after(outcomes, **kwargs):
    """Return the episode of the alarm, `None` where there is none."""
    watch = Decline(BOUND, **kwargs)
    return next((n for n, success in enumerate(outcomes, start=1) if watch.add([bool(success)]).alarm), None)


def test_evidence_is_the_sum_over_beginnings_of_likelihood_ratios():
    outcomes = [True, False, False, True, False]
    by_hand = 0.0
    for depth in DEPTHS:
        q = depth * BOUND
        ratio = {True: q / BOUND, False: (1 - q) / (1 - BOUND)}
        begins = [np.prod([ratio[x] for x in outcomes[first:]]) for first in range(len(outcomes))]
        by_hand += sum(begins) / len(DEPTHS)
    assert Decline(BOUND, patience=1e9).add(outcomes).evidence == pytest.approx(by_hand)


def test_at_the_mark_evidence_grows_by_one_an_episode_on_average():
    for n in (1, 4):  # exactly, over all sequences: what bounds the false alarms
        mean = sum(
            np.prod([BOUND if x else 1 - BOUND for x in xs]) * Decline(BOUND, patience=1e9).add(xs).evidence
            for xs in itertools.product([True, False], repeat=n)
        )
        assert mean == pytest.approx(n)


@pytest.mark.parametrize("rate", [BOUND, 0.92])
def test_false_alarms_are_rarer_than_stated(rate):
    rng = np.random.default_rng(0)
    found = [alarm_after(rng.random(2000) < rate, patience=20) or 2000 for _ in range(100)]
    assert np.mean(found) - 3 * np.std(found) / 10 > 20


def test_it_is_quick_where_much_is_lost_and_calm_where_nothing_is():
    rng = np.random.default_rng(0)
    bad = [alarm_after(rng.random(200) < 0.5) for _ in range(200)]
    good = [alarm_after(rng.random(200) < 0.95) for _ in range(200)]
    assert None not in bad
    assert np.median(bad) <= 10
    assert sum(found is not None for found in good) <= 0.06 * 200


def test_many_successes_buy_no_credit():
    fresh = Decline(BOUND).add([True] * 50).add([False] * 3).evidence
    assert Decline(BOUND).add([True] * 5000).add([False] * 3).evidence == pytest.approx(fresh, rel=0.05)
    assert fresh > Decline(BOUND).add([False] * 3).evidence  # declines may have begun before


def test_an_alarm_stays():
    watch = Decline(BOUND).add([False] * 10)
    assert watch.alarm
    assert watch.add([True] * 1000).alarm


@pytest.mark.parametrize(("bound", "failures"), [(0.0, None), (1.0, 1)])
def test_nothing_is_below_nothing_and_one_failure_is_below_certainty(bound, failures):
    watch = Decline(bound).add([True] * 20)
    assert not watch.alarm
    assert watch.add([False] * (failures or 100)).alarm is (failures is not None)


@pytest.mark.parametrize(("bound", "patience"), [(1.1, 100), (-0.1, 100), (float("nan"), 100), (0.5, 1.0), (0.5, 0)])
def test_numbers_out_of_range_are_refused(bound, patience):
    with pytest.raises(ConfigError, match="`bound` from 0 to 1 and `patience` above 1 episode, got"):
        Decline(bound, patience=patience)
