"""A round's scenes are played once, and again where they failed, with other noise each time."""

from itertools import pairwise

import numpy as np
import pytest

from robot_rl.data.store import EpisodeStore
from robot_rl.rl.ppo.rollouts import chain_extras
from robot_rl.rl.rounds.collection import play_round
from tests.rl.ppo.parts import make_chain, make_player
from tests.rl.reach import SPEC, Reach

SEEDS, AGAIN = range(40, 52), 3


@pytest.fixture
def store(tmp_path) -> EpisodeStore:
    return EpisodeStore.create(tmp_path / "store", SPEC, extra=chain_extras(make_chain()))


def play(store, again=AGAIN, calls=None, **options):
    chain = make_chain(std_min=0.3, std_max=0.5)

    def player(sink, attempt):
        if calls is not None:
            calls.append(attempt)
        return make_player(chain, sink, envs=[Reach(success=0.2) for _ in range(3)], draw=attempt)

    return play_round(player, store, SEEDS, "v", again=again, **options)


def played(store, version):
    return {e.seed: e.outcome == "success" for e in store.entries() if e.policy_version == version}


def recordings(store, version):
    return {e.seed: store.read(e.id) for e in store.entries() if e.policy_version == version}


def test_what_failed_is_played_again_until_it_succeeds_and_nothing_else_is(store):
    attempts = play(store)
    rounds = [played(store, name) for name in ("v", "v-again-1", "v-again-2", "v-again-3")]
    assert set(rounds[0]) == set(SEEDS)
    assert 0 < sum(rounds[0].values()) < len(SEEDS)
    for before, after in pairwise(rounds):
        assert set(after) == {seed for seed, won in before.items() if not won}
    assert any(rounds[1].values())
    assert (len(attempts.first), len(attempts.again)) == (len(SEEDS), sum(map(len, rounds[1:])))
    assert set(attempts.first + attempts.again) == set(store.ids())


def test_an_attempt_is_other_noise_on_the_same_scene(store):
    play(store, again=1)
    one, other = recordings(store, "v"), recordings(store, "v-again-1")
    assert other
    for seed, recording in other.items():
        first = one[seed].streams
        np.testing.assert_array_equal(first["x"].data[0], recording.streams["x"].data[0])
        assert np.abs(first["action"].data[0] - recording.streams["action"].data[0]).max() > 1e-3


def test_a_round_goes_on_where_it_was_stopped_and_ends_the_same(store, tmp_path):
    count = {"n": 0}

    def stop():
        count["n"] += 1
        return count["n"] > 20  # in the second attempt

    play(store, stop=stop)
    assert len(SEEDS) < len(store) < len(SEEDS) + 9
    attempts = play(store)
    whole = EpisodeStore.create(tmp_path / "whole", SPEC, extra=chain_extras(make_chain()))
    expected = play(whole)
    assert (len(attempts.first), len(attempts.again)) == (len(expected.first), len(expected.again))
    for name in ("v", "v-again-1", "v-again-2", "v-again-3"):
        assert played(store, name) == played(whole, name)
    calls: list[int] = []
    assert play(store, calls=calls) == attempts
    assert calls == []


def test_episodes_that_another_run_left_under_the_same_name_are_not_this_rounds(store):
    first = play(store, again=0)
    mine = play(store, again=0, before=set(store.ids()))
    assert len(mine.first) == len(SEEDS)
    assert not set(mine.first) & set(first.first)
