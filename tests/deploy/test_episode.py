"""Only the named moves between states are possible."""

import pytest

from robot_rl.deploy.episode import EpisodeStates
from robot_rl.deploy.takeover import Now
from robot_rl.errors import ConfigError, EpisodeError

S = 1_000_000_000
EPOCH = 1_700_000_000 * S


def at(seconds: float) -> Now:
    return Now(round(seconds * S), EPOCH + round(seconds * S))


@pytest.mark.parametrize("outcome", ["success", "failure", "discard"])
def test_a_whole_round(outcome):
    episode = EpisodeStates(max_episode_s=10.0, task="lift")
    assert (episode.state, episode.index) == ("idle", -1)
    episode.start(at(1), seed=7)
    assert not episode.update(at(10.9))
    episode.finish(outcome)
    assert episode.to_dict() == {
        "state": outcome, "index": 0, "task": "lift", "outcome": outcome, "started_ns": EPOCH + S, "seed": 7,
    }  # fmt: skip
    assert not episode.update(at(11))
    assert episode.state == outcome
    assert episode.update(at(11.01))
    assert (episode.state, episode.outcome) == ("resetting", outcome)
    assert not episode.update(at(1000))
    episode.reset_done()
    assert (episode.state, episode.outcome) == ("idle", outcome)
    episode.start(at(20))
    assert (episode.state, episode.index, episode.outcome, episode.seed) == ("running", 1, None, None)


def test_time_runs_out_by_the_monotonic_clock():
    episode = EpisodeStates(max_episode_s=2.0)
    episode.start(at(1))
    assert not episode.update(Now(3 * S - 1, EPOCH + 999 * S))  # the wall clock jumped
    assert episode.update(Now(3 * S, EPOCH))
    assert (episode.state, episode.outcome) == ("timeout", "timeout")


MOVES = {
    "start": lambda e: e.start(at(0)),
    "success": lambda e: e.finish("success"),
    "failure": lambda e: e.finish("failure"),
    "discard": lambda e: e.finish("discard"),
    "reset": lambda e: e.reset(),
    "reset_done": lambda e: e.reset_done(),
}
ALLOWED = {
    "idle": {"start", "reset"},
    "running": {"success", "failure", "discard"},
    "success": set(),
    "resetting": {"reset_done"},
}


@pytest.mark.parametrize("state", ALLOWED)
@pytest.mark.parametrize("move", MOVES)
def test_every_other_move_is_refused_with_a_reason(state, move):
    episode = EpisodeStates(max_episode_s=10.0)
    if state != "idle":
        episode.start(at(0))
    if state in ("success", "resetting"):
        episode.finish("success")
    if state == "resetting":
        episode.update(at(1))
        episode.update(at(1))
    if move in ALLOWED[state]:
        MOVES[move](episode)
    else:
        with pytest.raises(EpisodeError, match=rf"`{move}` is possible only while \w+, the episode is {state}"):
            MOVES[move](episode)
        assert episode.state == state


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match=r"`max_episode_s` must be positive, got 0.0"):
        EpisodeStates(max_episode_s=0.0)
    episode = EpisodeStates(max_episode_s=1.0)
    episode.start(at(0))
    with pytest.raises(EpisodeError, match=r"ends with one of .*, got 'won'"):
        episode.finish("won")
