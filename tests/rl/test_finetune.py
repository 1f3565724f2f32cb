"""Actor and learner together: the smoke tests of the specs' section G, in one process and in two."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from robot_rl.data.memory import MemorySink
from robot_rl.evaluation.rollouts import run_episode
from robot_rl.rl.finetune import interleave
from robot_rl.rl.learner import PUBLISHED
from robot_rl.rl.pace import Pace
from robot_rl.rl.publication import newest
from robot_rl.rl.runner import StepwisePolicy, runner_extras
from tests.rl.reach import (
    PACE,
    SPEC,
    Biased,
    Reach,
    make_actor,
    make_feed,
    make_learner,
    make_store,
    residual,
    soft_actor_critic,
)  # fmt: skip
from tests.rl.test_actor import start


def train(folder, *, bias=0.05, pace=PACE, algorithm=None, base=True, sink=None, success=0.02):
    """Run actor and learner by turns in one process; return the algorithm, the learner and what was played."""
    algorithm = residual() if algorithm is None else algorithm
    sink = MemorySink(SPEC, extra=runner_extras(SPEC)) if sink is None else sink
    actor = make_actor(folder, sink, algorithm, pace=pace, bias=bias, base=base, env=Reach(success=success))
    learner = make_learner(folder, algorithm, pace=pace, every=500)
    played = []
    interleave(actor, learner, sink.episode, on_episode=played.append)
    learner.close()
    return algorithm, learner, played


def final_error(algorithm, bias):
    """Return the mean distance from the goal after the first five steps, deterministic, over 40 starts."""
    policy, errors = StepwisePolicy(SPEC, base=Biased(bias), step=algorithm.policy), []
    for seed in range(40):
        recording, _ = run_episode(Reach(success=0.0), policy, seed)
        errors.append(abs(float(recording.streams["x"].data[-1, 0])))
    return float(np.mean(errors))


def test_a_small_bias_of_the_base_is_learned_away(tmp_path):
    pace = Pace(total_steps=1500, warm_up_steps=300, critic_first=300, utd=2.0, actor_every=2)
    algorithm, learner, played = train(tmp_path, pace=pace)
    assert learner.updates <= 5000
    assert final_error(algorithm, 0.05) < 0.5 * 0.05
    early, late = played[10:40], played[-40:]
    assert np.mean([p.success for p in late]) > np.mean([p.success for p in early])


def test_a_bias_beyond_the_bound_cannot_be_learned_away(tmp_path):
    pace = Pace(total_steps=300, warm_up_steps=50, critic_first=20)
    algorithm, _, _ = train(tmp_path, bias=0.5, pace=pace)
    assert final_error(algorithm, 0.5) >= 0.4 - 1e-6


def test_by_turns_the_same_seed_gives_the_same_run_bit_for_bit(tmp_path):
    first, _, played = train(tmp_path / "a")
    second, _, again = train(tmp_path / "b")
    assert [(p.seed, p.steps, p.version) for p in played] == [(p.seed, p.steps, p.version) for p in again]
    assert all(torch.equal(a, b) for a, b in zip(first.agent.parameters(), second.agent.parameters(), strict=True))


def test_the_weights_of_an_episode_are_the_newest_there_were(tmp_path):
    store = make_store(tmp_path / "store")
    _, learner, played = train(tmp_path, sink=store)
    assert learner.finished
    assert played[-1].version > played[0].version == 0
    for p in played:
        assert store.episode(p.id).extras["policy_version"][:].tolist() == [p.version] * p.steps
    assert newest(tmp_path / PUBLISHED, belongs_to="reach").version == learner.updates


def test_without_a_base_it_learns_from_scratch(tmp_path):
    pace = Pace(total_steps=300, warm_up_steps=100, critic_first=20)
    _, learner, played = train(tmp_path, algorithm=soft_actor_critic(), base=False, pace=pace)
    assert learner.updates == pace.allowed(sum(p.steps for p in played))
    assert np.isfinite(learner.metrics()["actor/entropy"])


def test_a_run_that_was_stopped_makes_the_updates_it_owes_and_goes_on(tmp_path):
    store = make_store(tmp_path / "store")
    _, _, played = train(tmp_path, sink=store, pace=replace(PACE, total_steps=120))
    feed = make_feed(residual())
    for id in store.ids():
        feed.add(store.episode(id))
    algorithm = residual()
    settings = {"pace": PACE, "played": store.entries(), "env": Reach()}
    actor = make_actor(tmp_path / "again", store, algorithm, **settings)
    learner = make_learner(tmp_path / "again", algorithm, feed=feed)  # no checkpoint there: every update is owed
    more = []
    interleave(actor, learner, store.episode, on_episode=more.append)
    learner.close()
    assert more[0].seed == played[-1].seed + 1
    assert more[0].version >= PACE.allowed(sum(p.steps for p in played))
    assert learner.updates == PACE.allowed(sum(entry.steps for entry in store.entries()))


@pytest.mark.slow
def test_two_processes_joined_by_the_store_learn_from_every_step_that_was_sent(tmp_path):
    store = make_store(tmp_path / "store")
    learner, actor = start("learner", tmp_path), start("actor", tmp_path)
    sent, _ = actor.communicate(timeout=240)
    made, _ = learner.communicate(timeout=240)
    assert (actor.returncode, learner.returncode) == (0, 0)
    steps = sum(entry.steps for entry in store.entries())
    assert set(sent.split()) == set(store.ids())
    assert int(made) == PACE.allowed(steps)
    versions = [int(store.episode(id).extras["policy_version"][0]) for id in store.ids()]
    assert versions == sorted(versions)
    assert versions[-1] > 0
