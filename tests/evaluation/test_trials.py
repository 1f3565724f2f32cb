import json

import pytest

from robot_rl.errors import ConfigError
from robot_rl.evaluation.paired import PairedTest
from robot_rl.evaluation.rungs import RungResult, SupervisedLimits, judge_supervised
from robot_rl.evaluation.sequential import RateTest
from robot_rl.evaluation.trial_log import TrialLog
from robot_rl.evaluation.trials import paired_rung, play_until, rate_rung, succeeded
from robot_rl.values import RecordingMeta


class Game:
    """Succeeds except on some seeds, and remembers what was asked."""

    def __init__(self, bad=()) -> None:
        self.bad, self.asked = set(bad), []

    def __call__(self, seeds):
        self.asked += list(seeds)
        return [{"seed": s, "success": s not in self.bad} for s in seeds]


def climb(path, game, test, **settings):
    log = TrialLog(path, {"bundle": "b"})
    standing = play_until(
        log, game, lambda rows: test.judge(succeeded(rows)), first_seed=100, max_trials=test.max_trials, **settings
    )
    return log, standing


def test_trials_go_on_until_the_test_decides_and_no_further(tmp_path):
    game = Game()
    log, standing = climb(tmp_path / "t.jsonl", game, RateTest())
    assert (standing.verdict, len(log), game.asked) == ("accept", 18, list(range(100, 118)))
    log, standing = climb(tmp_path / "b.jsonl", Game(), RateTest(), block=4)
    assert (standing.trials, len(log)) == (18, 20)
    _, standing = climb(tmp_path / "short.jsonl", Game(), RateTest(max_trials=5))
    assert standing.verdict == "undecided"


def test_a_killed_validation_plays_only_what_is_missing(tmp_path):
    def dying(seeds):
        if seeds[0] >= 107:
            raise KeyboardInterrupt
        return Game()(seeds)

    with pytest.raises(KeyboardInterrupt):
        climb(tmp_path / "t.jsonl", dying, RateTest())
    with (tmp_path / "t.jsonl").open("a") as file:
        file.write('{"seed": 107, "succ')  # a line torn by the kill
    game = Game()
    log, standing = climb(tmp_path / "t.jsonl", game, RateTest())
    assert game.asked == list(range(107, 118))
    assert (standing.verdict, [row["seed"] for row in log.rows]) == ("accept", list(range(100, 118)))


def test_trials_of_something_else_are_refused(tmp_path):
    path = tmp_path / "t.jsonl"
    TrialLog(path, {"bundle": "a"}).add({"seed": 3, "success": True})
    with pytest.raises(ConfigError, match="holds trials of something else: `bundle` is 'a', expected 'b'"):
        TrialLog(path, {"bundle": "b"})
    with pytest.raises(ConfigError, match="does not hold the seeds from 100 on"):
        play_until(TrialLog(path, {"bundle": "a"}), Game(), RateTest().judge, first_seed=100, max_trials=5)
    path.write_text("nonsense\n")
    with pytest.raises(ConfigError, match="is not a file of trials"):
        TrialLog(path, {})


def test_a_rung_says_what_it_found_and_comes_back_from_json():
    fallen = rate_rung(RateTest().judge([False] * 3), RateTest())
    assert not fallen.ok
    assert "0 of 3 trials: rejected (refuse at 80 %, pass at 95 %)" in fallen.reason
    assert RungResult.from_dict(json.loads(json.dumps(fallen.to_dict()))).reason == fallen.reason
    undecided = rate_rung(RateTest(max_trials=4).judge([True] * 4), RateTest(max_trials=4))
    assert "undecided, which is no acceptance" in undecided.reason
    test = PairedTest(margin=0.0)
    pair = paired_rung(test.judge([True] * 9, [False] * 9), test, "old")
    assert (pair.ok, pair.reason, pair.figures["bundle"]) == (True, "", "old")
    assert not paired_rung(test.judge([True] * 9, [True] * 9), test, "old").ok


def labelled(*words):
    known = {"+": "success", "-": "failure", "?": "unknown", "!": "failure", "r": "success"}
    extra = {"!": {"safety_stop": True}, "r": {"taken_over": True}}
    return [RecordingMeta(outcome=known[w], extra=extra.get(w, {})) for w in words]


@pytest.mark.parametrize(
    ("words", "ok", "reason"),
    [
        ("+++++", True, ""),
        ("+-+++", True, ""),
        ("++++", False, "trials: 4 labelled trials; 5 needed"),
        ("?++++", False, "trials: 4 labelled"),
        ("-+-+++++++", False, "failures: 2 failures; at most 1 allowed"),
        ("++!+++++", False, "safety stops: 1 safety stops; at most 0 allowed"),
        ("+++++---", True, ""),
        ("r++++", True, ""),
        ("rrrrr", False, "failures: 2 failures, 2 of them rescued by a person; at most 1 allowed"),
    ],
)
def test_supervised_trials_end_at_a_stop_or_at_two_failures(words, ok, reason):
    result = judge_supervised(labelled(*words), SupervisedLimits())
    assert result.ok is ok
    assert reason in result.reason
