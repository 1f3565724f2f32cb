import json

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.evaluation.ab import KEY, SHEET, AbSession, Plan
from robot_rl.evaluation.paired import compare_rates


def play(session: AbSession, good: dict[str, float], *, rng, most: int = 10**6) -> None:
    """Label trials by chance, with a success rate by bundle."""
    for _ in range(most):
        trial = session.next()
        if trial is None:
            return
        session.record(trial, "success" if rng.random() < good[session.bundle(trial.arm)] else "failure")


def test_every_block_has_as_many_of_either_in_an_order_that_the_seed_decides():
    plan = Plan(trials=20, block=4)
    order = plan.order(3)
    assert len(order) == 40
    assert all(sorted(order[i : i + 4]) == ["A", "A", "B", "B"] for i in range(0, 40, 4))
    assert order == plan.order(3) != plan.order(4)
    assert len({tuple(order[i : i + 4]) for i in range(0, 40, 4)}) > 2


def test_the_sheet_says_nothing_of_who_acted_and_the_key_does(tmp_path):
    session = AbSession(tmp_path, ("one", "two"), Plan(trials=2, block=2), seed=1)
    play(session, {"one": 1.0, "two": 0.0}, rng=np.random.default_rng(0))
    rows = (tmp_path / SHEET).read_text().splitlines()[1:]
    assert not any(word in row for row in rows for word in ("one", "two", '"A"', '"B"'))
    key = json.loads((tmp_path / KEY).read_text())
    assert {key["A"], key["B"]} == {"one", "two"}
    assert (tmp_path / KEY).stat().st_mode & 0o077 == 0


def test_which_bundle_is_called_a_is_drawn(tmp_path):
    names = [AbSession(tmp_path / str(i), ("one", "two"), Plan(trials=2), seed=i).bundle("A") for i in range(20)]
    assert set(names) == {"one", "two"}


def test_nothing_is_shown_before_the_fixed_number_is_played(tmp_path):
    session, rng = AbSession(tmp_path, ("one", "two"), Plan(trials=10)), np.random.default_rng(0)
    play(session, {"one": 1.0, "two": 0.5}, rng=rng, most=19)
    with pytest.raises(ConfigError, match="19 of 20 trials are labelled; nothing is shown before the end"):
        session.compare()
    play(session, {"one": 1.0, "two": 0.5}, rng=rng)
    found = session.compare()
    of = {session.bundle("A"): found.a, session.bundle("B"): found.b}
    assert of["one"].value == 1.0
    won = round(10 * of["two"].value)
    assert found.tests == compare_rates((10, 10), (won, 10))
    assert found.progress is None


def test_a_killed_comparison_goes_on_with_the_same_order_and_a_void_trial_is_repeated(tmp_path):
    plan = Plan(trials=4, block=4)
    session = AbSession(tmp_path, ("one", "two"), plan)
    first = session.next()
    session.record(first, "void", note="cable")
    again = AbSession(tmp_path, ("two", "one"), plan)  # the order of the arguments says nothing
    second = again.next()
    assert (second.slot, second.attempt, second.arm, second.id) == (first.slot, 1, first.arm, "0000.1")
    again.record(second, "success")
    assert again.next().slot == 1
    play(again, {"one": 1.0, "two": 1.0}, rng=np.random.default_rng(0))
    assert again.compare().voids == 1
    assert again.compare().counts.ties == 4


def test_both_trials_of_a_pair_have_its_number(tmp_path):
    session = AbSession(tmp_path, ("one", "two"), Plan(trials=6, block=4), seed=2)
    pairs: dict[int, list[str]] = {}
    while (trial := session.next()) is not None:
        pairs.setdefault(trial.pair, []).append(trial.arm)
        session.record(trial, "success")
    assert sorted(pairs) == list(range(6))
    assert all(sorted(arms) == ["A", "B"] for arms in pairs.values())


def test_a_sequential_comparison_stops_early_where_the_difference_is_plain(tmp_path):
    session = AbSession(tmp_path, ("one", "two"), Plan(trials=50, sequential=True), seed=0)
    play(session, {"one": 1.0, "two": 0.1}, rng=np.random.default_rng(0))
    assert session.done[0] < 40
    better = {"accept": "A", "reject": "B"}[session.compare().progress.verdict]
    assert session.bundle(better) == "one"


def test_equal_bundles_are_told_apart_no_more_often_than_promised():
    from robot_rl.evaluation.paired import cumulated, log_wealth

    rng = np.random.default_rng(5)
    a, b = rng.random((300, 50)) < 0.7, rng.random((300, 50)) < 0.7
    after, limit = cumulated(a.astype(int) - b.astype(int)), np.log(2 / 0.05)
    found = (log_wealth(*after, 0.0) >= limit) | (log_wealth(*after, 0.0, below=True) >= limit)
    assert found.any(axis=1).mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="two bundles are compared, got one twice"):
        AbSession(tmp_path, ("one", "one"), Plan())
    with pytest.raises(ConfigError, match="`block` must be even and divide twice `trials`"):
        Plan(trials=5, block=4)
    session = AbSession(tmp_path, ("one", "two"), Plan(trials=2))
    with pytest.raises(ConfigError, match="comparison of other bundles"):
        AbSession(tmp_path, ("one", "three"), Plan(trials=2))
    with pytest.raises(ConfigError, match="holds trials of something else: `plan`"):
        AbSession(tmp_path, ("one", "two"), Plan(trials=4))
    with pytest.raises(ConfigError, match="got 'maybe'"):
        session.record(session.next(), "maybe")
