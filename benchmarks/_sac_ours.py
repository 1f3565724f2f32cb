"""Times this project's SAC updates; run by critic_speed, each number of critics in a process of its own.

Reads a number of updates a line from standard input and answers with the seconds they took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks.critic_speed import BATCH, N_ACTION, N_OBS, ROWS, WIDTH
from robot_rl.allocator import keep_freed_memory
from robot_rl.rl.actions import ActionScaler
from robot_rl.rl.algorithm import SacAlgorithm
from robot_rl.rl.feed import ReplayFeed
from robot_rl.rl.sac import SacSettings
from robot_rl.rl.sampling import SymmetricSampler
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Episode, RecordingMeta

STEPS = 100
"""Of an episode."""


class State(nn.Module):
    """Features that are the newest state."""

    out_dim = N_OBS

    def forward(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return [B, out_dim]."""
        return obs["state"][:, -1]


def spec() -> RobotSpec:
    """Return a robot with one state and an action in [-1, 1]."""
    action = ActionSpec(name="action", shape=(N_ACTION,), low=-1.0, high=1.0, kind="position")
    obs = {"state": ArraySpec(name="state", shape=(N_OBS,))}
    return RobotSpec(name="random", obs=obs, action=action, control_hz=20.0)


def filled_feed() -> ReplayFeed:
    """Return a replay of random episodes, 100 steps each."""
    feed = ReplayFeed(spec(), SymmetricSampler(BATCH, 0.0), n_step=1, gamma=0.99, streams={})
    rng = np.random.default_rng(0)
    for i in range(ROWS // STEPS):
        state = rng.standard_normal((STEPS + 1, N_OBS), dtype=np.float32)
        action = rng.uniform(-1, 1, (STEPS, N_ACTION)).astype(np.float32)
        feed.add(
            Episode(
                id=str(i), stamp_ns=np.arange(STEPS) * 50_000_000, obs={"state": state[:-1]},
                final_obs={"state": state[-1]}, action=action, action_executed=action,
                reward=rng.random(STEPS).astype(np.float32), by_human=np.zeros(STEPS, bool),
                valid=np.ones(STEPS, bool), terminated=False, truncated=True, meta=RecordingMeta(source="policy"),
            )
        )  # fmt: skip
    return feed


def ours(feed: ReplayFeed, n_members: int, *, layer_norm: bool) -> Callable[[int], float]:
    """Return a function that makes so many updates and says how long they took, in seconds."""
    scaler = ActionScaler(np.zeros(N_ACTION), np.ones(N_ACTION))
    algorithm = SacAlgorithm(
        State(), scaler, ["state"], settings=SacSettings(), n_members=n_members, hidden=(WIDTH, WIDTH),
        layer_norm=layer_norm,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    keep_freed_memory()  # as every command that learns does

    def run(n: int) -> float:
        began = time.perf_counter()
        for _ in range(n):
            algorithm.update(feed.sample(), generator, actor=True)
        return time.perf_counter() - began

    run(20)
    return run


def main() -> None:
    """Answer until the input ends; arguments are the number of critics, and 1 for layer norm."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = ours(filled_feed(), int(sys.argv[1]), layer_norm=sys.argv[2] == "1")
    sys.stdout.write(f"{torch.__version__}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(f"{run(int(line))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
