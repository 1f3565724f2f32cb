"""Actor and learner on `lift` while the learner is killed ten times and the actor three: is anything lost?

Kills are SIGKILL at random moments. Afterwards every episode in the store must verify, the learner must have
taken in every step that is stored, and the updates made must be those that the pace allows; the same after a disk that
was full for a while and a lock that another process held. Then a learner whose loss is made not finite must end with
our error while the actor plays its steps to the end.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from benchmarks._results import write_results
from benchmarks._store_faults import disk_rows, lock_rows
from robot_rl.cli.config import load_config
from robot_rl.cli.finetune_command import prepare
from robot_rl.cli.finetune_roles import REFUSED, online_store, pace_of, run_both, start_role
from robot_rl.cli.main import main as robot_rl
from robot_rl.data.store import EpisodeStore
from robot_rl.metrics import METRICS_FILE, read_metrics
from robot_rl.rl.learner import PUBLISHED
from robot_rl.rl.publication import newest

TINY = [
    "collect.episodes=10",
    "train.steps=300",
    "train.warmup_steps=50",
    "train.threads=1",
    "policy.n_steps=2",
    "+denoiser.width=64",
]
SMALL = [
    "algo.learner.hidden=[64,64]", "algo.learner.n_members=2", "algo.pace.warm_up_steps=400",
    "algo.pace.critic_first=400", "finetune.publish_every=100", "finetune.checkpoint_every=200",
    "finetune.log_every=100", "finetune.demonstrations=10",
]  # fmt: skip


class Killer:
    """Kills each role so many times, spread over the run at random; asked to look now and then.

    Args:
        config: Of the run.
        kills: How many times, by role.
        seed: Of the moments.
    """

    def __init__(self, config: DictConfig, kills: dict[str, int], *, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._at = {role: np.sort(rng.uniform(0.02, 0.95, n)).tolist() for role, n in kills.items()}
        self.done = dict.fromkeys(kills, 0)
        self._config, self._store, self._killed = config, online_store(config), set[int]()

    def __call__(self) -> None:
        """Kill the processes whose time has come."""
        for process in active_children():
            waiting = self._at.get(process.name)
            if process.pid is None or not waiting or process.pid in self._killed:
                continue
            if self._progress(process.name) >= waiting[0]:
                os.kill(process.pid, signal.SIGKILL)
                waiting.pop(0)
                self._killed.add(process.pid)
                self.done[process.name] += 1
                print(f"killed the {process.name}, {self.done[process.name]} times, {len(waiting)} to come")

    def _progress(self, role: str) -> float:
        """Return the share of the run's steps played, or of its updates published."""
        pace = pace_of(self._config)
        if role == "actor":
            return sum(entry.steps for entry in self._store.entries()) / pace.total_steps
        versions = sorted((Path(self._config.finetune.out) / PUBLISHED).glob("v*"))
        return int(versions[-1].name[1:]) / pace.allowed(pace.total_steps) if versions else 0.0


def damaged(store: EpisodeStore) -> int:
    """Return how many episodes do not verify, and raise for none of them."""
    bad = 0
    for id in store.ids():
        try:
            store.verify(id)
        except Exception as error:  # whatever is wrong with it counts
            print(f"episode {id}: {error}")
            bad += 1
    return bad


def accounts(config: DictConfig, what: str) -> list[dict[str, Any]]:
    """Return what became of episodes, replay and updates after `what` happened."""
    store = online_store(config)
    steps, last = sum(entry.steps for entry in store.entries()), _last(config)
    lost = steps - int(last["online/steps"])
    short = pace_of(config).allowed(steps) - int(last["step"])
    return [
        {"claim": f"{what}: episodes damaged, of {len(store)}", "value": damaged(store), "unit": "episodes",
         "baseline": 0},
        {"claim": f"{what}: steps in the store that the learner never took in, of {steps}", "value": lost,
         "unit": "steps", "baseline": 0},
        {"claim": f"{what}: updates missing at the end, of {int(last['step'])}", "value": short, "unit": "updates",
         "baseline": 0},
    ]  # fmt: skip


def _last(config: DictConfig) -> dict[str, Any]:
    return read_metrics(Path(config.finetune.out) / METRICS_FILE)[-1]


def nan_rows(config: DictConfig) -> list[dict[str, Any]]:
    """Let a learner diverge and return how it and the actor ended, and whether what was published is finite."""
    card = prepare(config)
    processes = {role: start_role(config, role) for role in ("learner", "actor")}
    for process in processes.values():
        process.join()
    store, found = online_store(config), newest(Path(config.finetune.out) / PUBLISHED, belongs_to=card.id)
    steps = sum(entry.steps for entry in store.entries())
    finite = found is not None and all(bool(value.isfinite().all()) for value in found.tensors.values())
    return [
        {"claim": "loss not finite: the learner ends with our error", "value": int(
            processes["learner"].exitcode == REFUSED), "unit": "1 is yes", "baseline": 1},
        {"claim": f"loss not finite: the actor plays on to the end ({steps} steps)", "value": int(
            processes["actor"].exitcode == 0 and steps >= config.finetune.steps), "unit": "1 is yes", "baseline": 1},
        {"claim": "loss not finite: the last published weights are finite", "value": int(finite), "unit": "1 is yes",
         "baseline": 1},
    ]  # fmt: skip


def main() -> None:
    """Run both and write benchmarks/results/learner_faults.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/learner_faults"))
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in ("collect", "train"):
        if robot_rl([name, f"out={args.out}", *TINY]) != 0:
            raise RuntimeError(f"robot-rl {name} failed")

    def settings(name: str, steps: int, *more: str) -> DictConfig:
        shutil.rmtree(args.out / name, ignore_errors=True)
        return load_config(
            [f"out={args.out}", *SMALL, f"finetune.out={args.out}/{name}", f"finetune.steps={steps}", *more]
        )

    config = settings("killed", args.steps)
    prepare(config)
    killer = Killer(config, {"learner": 10, "actor": 3}, seed=args.seed)
    run_both(config, killer)
    kills = f"learner killed {killer.done['learner']} times, actor {killer.done['actor']}"
    diverging = ("finetune.patience_s=5", f"algo.learner.settings.critic_lr={math.inf}")
    rows = [
        *accounts(config, kills),
        *disk_rows(settings("full", 1500), accounts),
        *lock_rows(settings("locked", 1500), accounts),
        *nan_rows(settings("nan", 1500, *diverging)),
    ]
    write_results("learner_faults", rows)


if __name__ == "__main__":
    main()
