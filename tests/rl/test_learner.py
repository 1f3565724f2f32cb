"""The learner keeps its ratio, is not lost when killed, and never publishes what is not a number."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robot_rl.errors import CheckpointError, ConfigError, TrainingError
from robot_rl.metrics import read_metrics
from robot_rl.rl.learner import PUBLISHED
from robot_rl.rl.publication import newest
from tests.rl.reach import PACE, make_actor, make_feed, make_learner, make_store, residual, soft_actor_critic
from tests.rl.test_feed import recording

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store")


def play(store, folder, n_steps, algorithm=None):
    algorithm = residual() if algorithm is None else algorithm
    actor = make_actor(folder, store, algorithm, pace=replace(PACE, total_steps=n_steps))
    actor.run(stop=lambda: False)
    return actor.steps


def fed(store, algorithm):
    feed = make_feed(algorithm)
    for id in store.ids():
        feed.add(store.episode(id))
    return feed


def same(first, second):
    a, b = first.state_dict(), second.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


SLOWING = replace(PACE, actor_anneal=0.2)


@pytest.mark.parametrize("make", [residual, soft_actor_critic])
def test_a_learner_that_comes_back_goes_on_bit_for_bit(store, tmp_path, make):
    play(store, tmp_path / "elsewhere", 100, make())
    whole = make_learner(tmp_path / "a", make(), feed=fed(store, make()), pace=SLOWING)
    for _ in range(60):
        whole.update(whole.feed.sample())
    cut = make_learner(tmp_path / "b", make(), feed=fed(store, make()), pace=SLOWING)
    for _ in range(37):  # killed 12 updates after the last checkpoint
        cut.update(cut.feed.sample())
    cut.close()
    back = make_learner(tmp_path / "b", make(seed=5), feed=fed(store, make()), pace=SLOWING)
    assert back.updates == 25
    for _ in range(35):
        back.update(back.feed.sample())
    assert same(whole.algorithm.agent, back.algorithm.agent)
    assert [r["step"] for r in read_metrics(tmp_path / "b" / "metrics.jsonl")] == [25, 50]
    whole.close()
    back.close()


def test_updates_stop_at_the_ratio_and_go_on_with_new_steps(store, tmp_path):
    steps = play(store, tmp_path, 120)
    learner = make_learner(tmp_path / "run", residual(), feed=fed(store, residual()))
    assert learner.catch_up(learner.feed.sample) == PACE.allowed(steps) == learner.updates
    assert learner.owed == 0
    learner.feed.add(store.episode(store.append(recording(0, n=9))))
    assert learner.owed == 9
    assert learner.metrics()["learner/utd"] == pytest.approx(1.0, abs=0.2)
    learner.close()


def test_what_is_logged_tells_lag_ratio_bound_and_saturation(store, tmp_path):
    play(store, tmp_path, 100)
    store.append(recording(0, version=7, by_human=(1,)))
    learner = make_learner(tmp_path / "run", residual(), feed=fed(store, residual()))
    learner.catch_up(learner.feed.sample)
    learner.log()
    values = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert values["learner/lag"] == learner.updates - 7
    assert values["critic/q_max_over_bound"] == pytest.approx(values["critic/q_max"] - 1.0)
    assert values["online/intervention_rate"] == pytest.approx(1 / values["online/steps"])
    assert {"residual/saturated", "residual/mean", "online/success", "learner/utd", "critic/q_mean"} <= set(values)
    learner.close()


def test_a_loss_that_is_not_a_number_ends_it_and_leaves_the_last_weights(store, tmp_path):
    play(store, tmp_path, 100)
    learner = make_learner(tmp_path / "run", residual(), feed=fed(store, residual()))
    for _ in range(30):
        learner.update(learner.feed.sample())
    before = newest(tmp_path / "run" / PUBLISHED, belongs_to="reach")
    batch = learner.feed.sample()
    bad = replace(batch, reward=torch.full_like(batch.reward, float("nan")))
    with pytest.raises(TrainingError, match="the critic's loss became nan"):
        learner.update(bad)
    assert newest(tmp_path / "run" / PUBLISHED, belongs_to="reach").digest == before.digest
    assert before.version == 25
    learner.close()
    actor = make_actor(tmp_path / "run", store, residual(), pace=replace(PACE, total_steps=120))
    actor.run(stop=lambda: False)
    assert (actor.version, actor.finished) == (25, True)


def test_weights_that_are_not_numbers_are_not_published(store, tmp_path):
    learner = make_learner(tmp_path / "run", residual())
    with torch.no_grad():
        learner.algorithm.policy.actor.layers[-1].bias.fill_(float("inf"))
    learner.updates = 1
    with pytest.raises(TrainingError, match="not finite; nothing was published"):
        learner.publish()
    learner.close()


def test_a_checkpoint_that_was_altered_or_is_of_another_run_is_refused(store, tmp_path):
    learner = make_learner(tmp_path / "run", residual())
    path = learner.checkpoint()
    learner.close()
    with pytest.raises(ConfigError, match=r"`pace.utd` was 1.0 and is now 2.0"):
        make_learner(tmp_path / "run", residual(), pace=replace(PACE, utd=2.0))
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "step": 9}))
    with pytest.raises(CheckpointError, match="was altered"):
        make_learner(tmp_path / "run", residual())


def start_learner(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.rl.reach", "learner", str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    assert condition()


@pytest.mark.slow
def test_killed_with_no_chance_to_save_it_resumes_and_learns_from_all_that_was_lived(store, tmp_path):
    play(store, tmp_path / "elsewhere", 120)
    first = start_learner(tmp_path)
    wait_for(lambda: (tmp_path / "checkpoints" / "last").exists())
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    play(store, tmp_path / "elsewhere", PACE.total_steps)  # the robot went on meanwhile
    steps = sum(entry.steps for entry in store.entries())
    second = start_learner(tmp_path)
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 0
    assert int(out) == PACE.allowed(steps)
    last = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert last["replay/online"] == last["online/steps"] == steps
    assert newest(tmp_path / PUBLISHED, belongs_to="reach").version == int(out)
