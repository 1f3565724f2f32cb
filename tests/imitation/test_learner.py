"""One gradient step against a loop written out by hand."""

import numpy as np
import torch
from torch import nn

from robot_rl.imitation.learner import Learner, LearnerSettings, _decay_groups
from robot_rl.imitation.surroundings import stream_seed
from tests.imitation.linear_flow import LinearFlow, make_windows

SETTINGS = {
    "steps": 10, "lr": 1e-2, "weight_decay": 0.1, "betas": (0.9, 0.99), "warmup_steps": 0, "ema_decay": 0.5,
    "ema_power": None, "grad_clip": 0.1, "seed": 4, "precision": "fp32", "compile": False,
}  # fmt: skip


def make_learner(tmp_path, model=None, **changes) -> Learner:
    settings = LearnerSettings(**(SETTINGS | changes))
    return Learner(model or LinearFlow(), settings, device=torch.device("cpu"), dump_dir=tmp_path)


def test_three_steps_equal_the_same_three_written_out(tmp_path):
    windows = make_windows([30])
    batches = [windows.gather(np.arange(i, i + 8)) for i in range(3)]
    learner = make_learner(tmp_path)
    for batch in batches:
        learner.update(batch)

    model, generator = LinearFlow(), torch.Generator().manual_seed(stream_seed(4, 0))
    weight, bias = model.net[1].weight, model.net[1].bias
    optimizer = torch.optim.AdamW([{"params": [weight]}, {"params": [bias], "weight_decay": 0.0}],
                                  lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1)  # fmt: skip
    average = weight.detach().clone()
    losses = []
    for step, batch in enumerate(batches):
        noise, u = torch.randn(8, 4, 2, generator=generator), torch.rand(8, generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * 0.5 * (1 + np.cos(np.pi * step / 10))
        action, mask = torch.from_numpy(batch.action), torch.from_numpy(batch.mask)
        loss = model.loss({"pos": torch.from_numpy(batch.obs["pos"])}, action, noise, u, mask)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        average = 0.5 * average + 0.5 * weight.detach()
        losses.append(loss.item())
    torch.testing.assert_close(learner.model.net[1].weight, weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(learner.model.net[1].bias, bias, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(learner.ema.model.net[1].weight, average, rtol=1e-5, atol=1e-7)
    assert abs(learner.drain()["train/loss"] - np.mean(losses)) < 1e-6


def test_decay_acts_on_matrices_and_kernels_only():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.conv, self.norm = nn.Linear(2, 3), nn.Conv1d(2, 2, 3), nn.LayerNorm(3)
            self.task, self.position = nn.Embedding(4, 3), nn.Parameter(torch.zeros(1, 5, 3))
            self.frozen = nn.Linear(2, 2).requires_grad_(False)

    net = Net()
    decayed, rest = _decay_groups(net, 0.3)
    names = {id(p): name for name, p in net.named_parameters()}
    assert [names[id(p)] for p in decayed["params"]] == ["linear.weight", "conv.weight"]
    assert {names[id(p)] for p in rest["params"]} == {
        "position", "linear.bias", "conv.bias", "norm.weight", "norm.bias", "task.weight",
    }  # fmt: skip
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.3, 0.0)


def test_draining_twice_does_not_count_a_step_twice(tmp_path):
    windows, learner = make_windows([30]), make_learner(tmp_path)
    learner.update(windows.gather(np.arange(8)))
    first = learner.drain()["train/loss"]
    learner.update(windows.gather(np.arange(8)))
    assert first > 0
    assert learner.drain()["train/loss"] != first
    assert learner.drain()["train/loss"] == 0.0


def test_streams_of_a_run_have_different_seeds():
    seeds = [stream_seed(seed, stream) for seed in range(50) for stream in (0, 1)]
    assert len(set(seeds)) == 100
