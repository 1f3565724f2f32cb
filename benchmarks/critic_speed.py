"""Complete SAC updates a second, against Stable-Baselines3 in one run, and how their time grows with the critics.

Equal networks (two critics and an actor of 256x256, ReLU, no layer norm), batch 256, one thread, sampling from the
replay included; both sides update critics, targets, actor and temperature every time. Rounds take turns, so that what
else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from benchmarks._results import DOC_IMAGES, write_results
from robot_rl.allocator import keep_freed_memory
from robot_rl.evaluation.statistics import bootstrap_mean
from robot_rl.rl.actions import ActionScaler
from robot_rl.rl.algorithm import SacAlgorithm
from robot_rl.rl.feed import ReplayFeed
from robot_rl.rl.sac import SacSettings
from robot_rl.rl.sampling import SymmetricSampler
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Episode, RecordingMeta

mpl.use("Agg")
N_OBS, N_ACTION, BATCH, ROWS, WIDTH, STEPS = 17, 6, 256, 20_000, 256, 100
MEMBERS = (2, 3, 5, 10)
Timed = Callable[[int], float]


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


def ours(feed: ReplayFeed, n_members: int, *, layer_norm: bool) -> Timed:
    """Return a function that makes so many of our updates and says how long they took, in seconds."""
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


class Theirs:
    """Stable-Baselines3 in its own interpreter."""

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("_sb3_sac.py")
        arguments = [str(n) for n in (N_OBS, N_ACTION, BATCH, ROWS, WIDTH)]
        self._process = subprocess.Popen(
            [python, str(script), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.version = self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError("Stable-Baselines3 did not start; give an interpreter that has it with --sb3-python")
        return line

    def __call__(self, n: int) -> float:
        """Return the seconds that so many of its updates took."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{n}\n")
        self._process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def take_turns(subjects: dict[str, Timed], rounds: int, n: int) -> dict[str, np.ndarray]:
    """Return milliseconds per update [rounds] of each subject, measured by turns."""
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, run in subjects.items():
            taken[name].append(1e3 * run(n) / n)
    return {name: np.array(values) for name, values in taken.items()}


def rows(taken: dict[str, np.ndarray], version: str | None) -> list[dict[str, Any]]:
    """Return result rows from milliseconds per update."""
    two, found = taken["2 critics"], []
    if version is not None:
        ratio = bootstrap_mean((taken["sb3"] / two).tolist())
        found = [
            {"claim": "complete SAC updates per second, two critics, 256x256, batch 256, one thread",
             "value": 1e3 / float(np.median(two)), "unit": "1/s",
             "baseline": f"Stable-Baselines3 {version}: {1e3 / float(np.median(taken['sb3'])):.1f}/s"},
            {"claim": "speed against Stable-Baselines3, mean over rounds", "value": ratio.value, "unit": "times",
             "interval": [ratio.low, ratio.high], "baseline": "at least 1.3, goal 2"},
        ]  # fmt: skip
    for n in MEMBERS[1:]:
        growth = bootstrap_mean((taken[f"{n} critics"] / two).tolist())
        found.append(
            {"claim": f"time of an update with {n} critics over that with 2", "value": growth.value, "unit": "times",
             "interval": [growth.low, growth.high], "baseline": f"less than {n / 2:g}, the number of critics"}
        )  # fmt: skip
    norm = bootstrap_mean((taken["2 critics, layer norm"] / two).tolist())
    found.append(
        {"claim": "time of an update with layer norm over that without, two critics", "value": norm.value,
         "unit": "times", "interval": [norm.low, norm.high]}
    )  # fmt: skip
    return found


def plot(taken: dict[str, np.ndarray]) -> None:
    """Draw milliseconds per update."""
    fig, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    names: Sequence[str] = list(taken)
    axes.boxplot([taken[name] for name in names], orientation="horizontal")
    axes.set_yticks(range(1, len(names) + 1), ["Stable-Baselines3" if name == "sb3" else name for name in names])
    axes.set(xlabel="milliseconds per complete SAC update, one thread, rounds by turns", xlim=(0, None))
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / "critic_speed.png", dpi=110)
    plt.close(fig)


def main() -> None:
    """Measure and write benchmarks/results/critic_speed.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sb3-python", help="an interpreter with stable-baselines3; without it only ours is timed")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--updates", type=int, default=100, help="of a round")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    feed = filled_feed()
    subjects: dict[str, Timed] = {f"{n} critics": ours(feed, n, layer_norm=False) for n in MEMBERS}
    subjects["2 critics, layer norm"] = ours(feed, 2, layer_norm=True)
    theirs = None if args.sb3_python is None else Theirs(args.sb3_python)
    if theirs is not None:
        subjects = {"sb3": theirs, **subjects}
    taken = take_turns(subjects, args.rounds, args.updates)
    if theirs is not None:
        theirs.close()
    write_results("critic_speed", rows(taken, None if theirs is None else theirs.version))
    plot(taken)
    for name, values in taken.items():
        print(f"{name}: median {np.median(values):.2f} ms per update")


if __name__ == "__main__":
    main()
