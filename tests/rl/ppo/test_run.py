"""A run of iterations: what it leaves, and that it goes on where it was cut."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from robot_rl.errors import ConfigError, TrainingError
from robot_rl.metrics import read_metrics
from robot_rl.rl.ppo.run import RunSettings
from robot_rl.rl.publication import newest
from tests.rl.ppo.parts import make_run, same, weights


def test_a_run_leaves_episodes_weights_and_metrics(tmp_path):
    run = make_run(tmp_path, total_steps=25, evaluate=lambda: {"eval/success": 0.5})
    run.run()
    run.close()
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(1, run.ppo.updates + 1))
    assert records[-1]["online/steps"] == run.steps >= 25
    assert {"ppo/kl", "critic/explained_variance", "online/success", "collect/seconds"} <= set(records[-1])
    assert sum(entry.steps for entry in run.store.entries()) == run.steps
    saved = load_file(tmp_path / "checkpoints" / "last" / "ema.safetensors")
    published = newest(tmp_path / "published", belongs_to="reach")
    assert published.version == run.ppo.updates
    for name, value in run.ppo.chain.state_dict().items():
        assert torch.equal(saved[name], value)
        assert torch.equal(published.tensors[name], value)


def test_a_run_that_was_cut_in_mid_collection_ends_as_one_that_was_not(tmp_path):
    whole = make_run(tmp_path / "whole", episodes=6, total_steps=31)
    whole.run()
    whole.close()
    seen = 0

    def stop():
        return seen >= 7  # in the second iteration of six, of which three are being played

    def watch(run, played):
        nonlocal seen
        seen += played is not None

    cut = make_run(tmp_path / "cut", episodes=6, total_steps=31)
    cut.run(stop=stop, watch=watch)
    cut.close()
    assert (cut.ppo.updates, cut.finished) == (1, False)
    before = set(cut.store.ids())
    again = make_run(tmp_path / "cut", episodes=6, total_steps=31)
    assert same(weights(again.ppo.modules()), weights(cut.ppo.modules()))
    again.run()
    again.close()
    assert before < set(again.store.ids())
    assert again.ppo.updates == whole.ppo.updates
    assert sorted(e.seed for e in again.store.entries()) == sorted(e.seed for e in whole.store.entries())
    for name, value in weights(whole.ppo.chain).items():
        np.testing.assert_allclose(value, weights(again.ppo.chain)[name], atol=1e-4)


def test_a_run_with_other_constants_is_not_gone_on_with(tmp_path):
    make_run(tmp_path).close()
    with pytest.raises(ConfigError, match=r"`lr` was 0\.001 and is now 0\.01"):
        make_run(tmp_path, actor_lr=0.01)


def test_a_loss_that_is_not_finite_publishes_nothing(tmp_path):
    run = make_run(tmp_path)
    run.iterate()
    last = newest(tmp_path / "published", belongs_to="reach").version
    with torch.no_grad():
        run.ppo.critic.layers[0].weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="the critic's loss is not finite"):
        run.iterate()
    run.close()
    assert newest(tmp_path / "published", belongs_to="reach").version == last == 1


def test_counts_below_one_are_refused():
    with pytest.raises(ConfigError, match="must be at least 1"):
        RunSettings(total_steps=10, episodes=0)
