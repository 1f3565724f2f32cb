"""Episodes on a line that reach the origin and stay, or stop half a metre away; and a classifier of where they are."""

import numpy as np
import torch
from torch import nn

from robot_rl.data.memory import MemorySink
from robot_rl.data.recorder import TickRecorder
from robot_rl.deploy.success import ClassifierCard
from robot_rl.rl.success_classifier import SuccessNetwork
from robot_rl.values import PolicyInput, RecordingMeta
from tests.rl.reach import SPEC, Biased, Reach


class Position(nn.Module):
    """The newest position and its square."""

    out_dim = 2

    def forward(self, obs):
        x = obs["x"][:, -1]
        return torch.cat([x, 10 * x.square()], dim=1)


def network(seed=0, **more):
    torch.manual_seed(seed)
    return SuccessNetwork(Position(), ["x"], **{"hidden": 16, "dropout": 0.0, **more})


def card(**more):
    return ClassifierCard(**{"obs": dict(SPEC.obs), "threshold": 0.5, "consecutive": 2, **more})


def attempt(seed, *, bias, outcome, n_steps=8, extra=None):
    """Return a recording of an attempt that goes to `bias` in its third step and stays."""
    env, base = Reach(success=0.0, max_steps=n_steps), Biased(bias)
    recorder = TickRecorder(SPEC)
    tick = env.reset(seed)
    recorder.start(tick)
    while not tick.truncated:
        chunk = base.act(PolicyInput(obs={"x": tick.obs["x"][None]}, stamp_ns=tick.stamp_ns))
        move = chunk.action[0] if len(recorder) >= 2 else np.array([0.3], np.float32)
        tick = env.step(move)
        recorder.add(tick)
    return recorder.finish(RecordingMeta(outcome=outcome, extra=extra or {}))


def fill(sink, n=24):
    """Append n attempts, every second of them successful, and return their ids."""
    return [
        sink.append(
            attempt(seed, bias=0.0 if seed % 2 else 0.5 + 0.02 * seed, outcome="success" if seed % 2 else "failure")
        )
        for seed in range(n)
    ]


def episodes(n=24):
    sink = MemorySink(SPEC)
    return [sink.episode(id) for id in fill(sink, n)]
