"""The actor plays on whatever the learner does, and what it lived through is in the store, whole."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robot_rl.data.store import EpisodeStore
from robot_rl.errors import EpisodeError, StoreError
from robot_rl.rl.learner import PUBLISHED
from robot_rl.rl.pace import Pace
from robot_rl.rl.publication import Publication, publish
from robot_rl.rl.replay import FINAL
from robot_rl.rl.runner import runner_extras
from tests.rl.reach import PACE, Reach, make_actor, make_store, residual

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store")


def weights(algorithm, version, value=None, **more):
    tensors = {k: v if value is None else torch.full_like(v, value) for k, v in algorithm.policy.state_dict().items()}
    return Publication(version, {**tensors, **more}, {})


def test_each_episode_says_who_drove_it_and_ends_with_the_bases_next_action(store, tmp_path):
    algorithm = residual()
    actor = make_actor(tmp_path, store, algorithm, env=Reach(success=0.0))
    publish(tmp_path / PUBLISHED, weights(algorithm, 5), belongs_to="reach")
    assert actor.refresh()
    episode = store.episode(actor.episode().id)
    assert episode.extras["policy_version"][:].tolist() == [5] * 5
    assert episode.meta.policy_version == "reach@5"
    assert episode.meta.seed == 1_000_000
    assert (episode.truncated, episode.terminated, episode.meta.outcome) == (True, False, "failure")
    assert episode.meta.extra[FINAL]["base_action"] == pytest.approx(0.05 - episode.final_obs["x"], abs=1e-6)
    assert np.array_equal(episode.action, episode.extras["action_policy"][:])


class Ending(Reach):
    """Tells of its first `n` episodes that an operator discards them, or loses sight of the arm in them."""

    def __init__(self, n, *, error=None):
        super().__init__(success=0.0)
        self.left, self.error, self.seeds = n, error, []

    def reset(self, seed):
        self.seeds.append(seed)
        return super().reset(seed)

    def step(self, action):
        tick = super().step(action)
        if self.left == 0 or not tick.truncated:
            return tick
        self.left -= 1
        if self.error is not None:
            raise self.error
        return replace(tick, info={"outcome": "discard"})


@pytest.mark.parametrize("error", [None, EpisodeError("there is no observation at this tick")])
def test_an_episode_that_is_discarded_or_breaks_off_is_played_again(store, tmp_path, caplog, error):
    env, played = Ending(2, error=error), []
    pace = Pace(total_steps=10, warm_up_steps=0)
    actor = make_actor(tmp_path, store, residual(), env=env, pace=pace)
    actor.run(stop=lambda: False, on_episode=played.append)
    assert env.seeds == [1_000_000, 1_000_000, 1_000_000, 1_000_001]
    assert [p.seed for p in played] == [1_000_000, 1_000_001]
    assert len(store) == len(played)
    assert actor.dropped == 2
    assert "episode 0 is not kept" in caplog.text


def test_asked_to_stop_it_leaves_the_episode_and_stores_nothing_of_it(store, tmp_path):
    asked = iter([False] * 4 + [True] * 100)
    actor = make_actor(tmp_path, store, residual(), env=Reach(success=0.0))
    actor.run(stop=lambda: next(asked))
    assert (len(store), actor.steps, actor.dropped) == (0, 0, 1)


def test_it_warms_up_then_explores_and_goes_on_where_it_was_stopped(store, tmp_path):
    pace = Pace(total_steps=20, warm_up_steps=6)
    actor = make_actor(tmp_path, store, residual(), env=Reach(success=0.0), pace=pace)
    played = [actor.episode() for _ in range(3)]
    assert [store.read(p.id).meta.extra["mode"] for p in played] == ["warm_up", "warm_up", "explore"]
    again = make_actor(tmp_path, store, residual(), env=Reach(success=0.0), pace=pace, played=store.entries())
    done = []
    again.run(stop=lambda: False, on_episode=done.append)
    assert [p.seed for p in done] == [1_000_003]
    assert again.finished


def test_a_run_that_goes_on_repeats_what_one_that_never_stopped_would(store, tmp_path):
    env, again = Reach(success=0.0), Reach(success=0.0)
    seeds = []
    actor = make_actor(tmp_path, store, residual(), env=env, repeat_failed=0.5)
    seeds += [actor.episode().seed for _ in range(12)]
    other = EpisodeStore.create(tmp_path / "other", again.spec, extra=runner_extras(again.spec))
    first = make_actor(tmp_path, other, residual(), env=again, repeat_failed=0.5)
    halves = [first.episode().seed for _ in range(6)]
    second = make_actor(tmp_path, other, residual(), env=again, repeat_failed=0.5, played=other.entries())
    halves += [second.episode().seed for _ in range(6)]
    assert halves == seeds
    assert len(set(seeds)) < len(seeds)


def test_weights_that_must_not_be_used_are_refused_and_the_last_ones_kept(store, tmp_path, caplog):
    algorithm = residual()
    actor = make_actor(tmp_path, store, algorithm)
    publish(tmp_path / PUBLISHED, weights(algorithm, 1, 0.25), belongs_to="reach")
    actor.refresh()
    publish(tmp_path / PUBLISHED, weights(algorithm, 2, 1.0, stranger=torch.zeros(1)), belongs_to="reach")
    publish(tmp_path / PUBLISHED, weights(algorithm, 3, 1.0), belongs_to="another run")
    assert not actor.refresh()
    assert actor.version == 1
    assert all(bool((value == 0.25).all()) for value in algorithm.policy.state_dict().values())
    assert "of another network" in caplog.text
    assert "belongs to 'another run'" in caplog.text


def test_it_waits_for_a_learner_that_is_behind_and_plays_on_without_one(store, tmp_path, caplog):
    pace = replace(PACE, total_steps=100, warm_up_steps=1, critic_first=0)
    actor = make_actor(tmp_path, store, residual(), pace=pace, env=Reach(success=0.0), max_ahead=10, patience_s=0.3)
    publish(tmp_path / PUBLISHED, weights(residual(), 0), belongs_to="reach")
    began = time.monotonic()
    actor.run(stop=lambda: False)
    assert actor.finished
    assert caplog.text.count("no newer weights than version 0") == 1
    assert time.monotonic() - began >= 0.3


def test_an_episode_cut_off_by_the_actor_is_truncated_not_terminated(store, tmp_path):
    actor = make_actor(tmp_path, store, residual(), env=Reach(success=0.0, max_steps=99), max_steps=3)
    episode = store.episode(actor.episode().id)
    assert (len(episode), episode.truncated, episode.terminated) == (3, True, False)
    assert FINAL in episode.meta.extra


def test_a_store_that_takes_nothing_stops_it_with_the_reason_and_counts_nothing(store, tmp_path):
    class Full:
        def append(self, recording):
            raise StoreError("no space left on device")

    actor = make_actor(tmp_path, Full(), residual())
    with pytest.raises(StoreError, match="no space left"):
        actor.episode()
    assert (actor.steps, actor.episodes, len(store)) == (0, 0, 0)


def start(role, folder):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.rl.reach", role, str(folder)], stdout=subprocess.PIPE, text=True,
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_an_actor_killed_in_mid_episode_leaves_the_store_whole(store, tmp_path):
    process = start("actor", tmp_path)
    try:
        ids = [process.stdout.readline().strip() for _ in range(2)]
        time.sleep(0.1)  # an episode of five steps takes a quarter of a second
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    process.stdout.close()
    after = EpisodeStore.open(tmp_path / "store")
    assert set(ids) <= set(after.ids())
    for id in after.ids():
        after.verify(id)
        assert len(after.episode(id)) == 5
