"""Comparing ways to train on PushT at equal compute: calibrate, train, evaluate on the same seeds, pair the results.

Equal compute means equal time on one thread of a quiet machine. Each arm's cost of a step is measured first, in turns
with the others and in processor time, and each arm then trains for the number of steps that the budget buys: what else
runs on the machine changes how long a training takes, and nothing about its result.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.progress import Progress

from robot_rl.cli.config import load_config, plain
from robot_rl.cli.main import main as robot_rl
from robot_rl.cli.model_card import ModelCard, trained_model
from robot_rl.cli.train_command import datasets
from robot_rl.data.loader import BatchLoader
from robot_rl.data.normalizer import fit_stats
from robot_rl.data.relative import fit_relative_stats
from robot_rl.data.store import EpisodeStore
from robot_rl.evaluation.lockstep import BatchPolicy, run_lockstep
from robot_rl.evaluation.rollouts import EpisodeResult
from robot_rl.evaluation.statistics import Interval
from robot_rl.imitation.learner import Learner, LearnerSettings
from sim.pusht import PushTEnv

if TYPE_CHECKING:
    from policies.chunk_network import ChunkNetwork

STORE = Path("outputs/benchmarks/pusht_imitation/store")
EVALUATION_SEEDS = range(100_000, 100_500)
WARM_UP_STEPS = 20
SLICE_STEPS = 10
ENVIRONMENTS = 50


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Args:
        name: Its name in folders and results.
        overrides: What `robot-rl train task=pusht` is told beyond the budget.
    """

    name: str
    overrides: tuple[str, ...] = ()

    def arguments(self, store: Path = STORE) -> list[str]:
        """Return the overrides of `robot-rl train`, without seed, steps and folder."""
        return ["task=pusht", f"store={store}", "train.threads=1", *self.overrides]


class _Clocked:
    """An arm's training loop, and what its steps have cost."""

    def __init__(self, arm: Arm, store: Path, scratch: Path) -> None:
        config = load_config(arm.arguments(store))
        opened = EpisodeStore.open(store)
        train, val = datasets(config, opened)
        val.close()
        settings = plain(config.train)
        stats = fit_stats(train)
        if relative := plain(config.policy.relative_to):
            stats = {**stats, "action_relative": fit_relative_stats(train, relative)}
        card = ModelCard(
            task="pusht", policy=plain(config.policy), spec=opened.spec.select(plain(config.task.obs)), stats=stats,
            n_execute=config.task.n_execute, data_digest="",
        )  # fmt: skip
        learner = LearnerSettings(
            **{key: settings[key] for key in ("steps", "lr", "weight_decay", "warmup_steps", "precision", "compile")},
            betas=(0.95, 0.999), ema_decay=0.999, ema_power=0.75, grad_clip=1.0, seed=0,
        )  # fmt: skip
        self._learner = Learner(card.build_model(), learner, device=torch.device("cpu"), dump_dir=scratch)
        self._loader = BatchLoader(train, settings["batch_size"], prefetch=0)
        self.steps, self.seconds = 0, 0.0

    def run(self, steps: int, *, counted: bool = True) -> None:
        began = time.process_time()
        for _ in range(steps):
            self._learner.update(next(self._loader))
        if counted:
            self.steps, self.seconds = self.steps + steps, self.seconds + time.process_time() - began


def calibrate(arms: Sequence[Arm], seconds: float, root: Path, *, store: Path = STORE) -> dict[str, float]:
    """Measure each arm's training steps per second of processor time, in turns, and save them in `root`.

    Args:
        arms: The arms to measure; figures of others that `root` has are kept.
        seconds: Processor time for each arm.
        root: The benchmark's folder.
        store: The demonstrations.
    """
    torch.set_num_threads(1)
    root.mkdir(parents=True, exist_ok=True)
    clocked = {arm.name: _Clocked(arm, store, root) for arm in arms}
    for loop in clocked.values():
        loop.run(WARM_UP_STEPS, counted=False)
    while waiting := [loop for loop in clocked.values() if loop.seconds < seconds]:
        for loop in waiting:
            loop.run(SLICE_STEPS)
    path = root / "calibration.json"
    rates: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    rates |= {name: round(loop.steps / loop.seconds, 3) for name, loop in clocked.items()}
    path.write_text(json.dumps(rates, indent=1) + "\n")
    return rates


def budget_steps(arm: Arm, root: Path, minutes: float) -> int:
    """Return the training steps that so many minutes on one thread buy an arm.

    Raises:
        FileNotFoundError: The arms were not calibrated yet.
        KeyError: This one was not.
    """
    return round(60 * minutes * float(json.loads((root / "calibration.json").read_text())[arm.name]))


def run_folder(arm: Arm, seed: int, root: Path) -> Path:
    """Return where an arm's training with a seed lies."""
    return root / f"{arm.name}_s{seed}"


def train(arm: Arm, seed: int, root: Path, minutes: float, *, store: Path = STORE) -> None:
    """Train an arm with a seed for its calibrated number of steps; continues, or returns at once when it is done.

    Raises:
        RuntimeError: The command was refused or interrupted; its message is on the terminal.
    """
    steps, out = budget_steps(arm, root, minutes), run_folder(arm, seed, root)
    arguments = [*arm.arguments(store), f"out={out}", f"run={out}", f"seed={seed}", f"train.steps={steps}"]
    if robot_rl(["train", *arguments]) != 0:
        raise RuntimeError(f"robot-rl train {' '.join(arguments)} failed")
    if json.loads((out / "summary.json").read_text())["status"] != "finished":
        raise RuntimeError(f"{out} was interrupted; the same command continues it")


def trained(arm: Arm, seed: int, root: Path) -> tuple[ModelCard, ChunkNetwork]:
    """Return a training's card and its model with the averaged weights."""
    return trained_model(run_folder(arm, seed, root))


def evaluate(
    policy: BatchPolicy,
    path: Path,
    seeds: Sequence[int] = EVALUATION_SEEDS,
    *,
    environments: int = ENVIRONMENTS,
) -> list[EpisodeResult]:
    """Play one episode a seed, or read those that `path` holds already; return them in the order of `seeds`.

    Args:
        policy: Who acts.
        path: JSON lines, one episode each, written as they end.
        seeds: Seeds of the episodes.
        environments: How many episodes run side by side.
    """
    done = {result.seed: result for result in read_results(path)}
    waiting = [seed for seed in seeds if seed not in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(result.to_dict()) + "\n" for result in done.values()))  # drops a line cut off
    with path.open("a") as file, Progress(transient=True) as progress:
        bar = progress.add_task(path.stem, total=len(seeds), completed=len(seeds) - len(waiting))

        def keep(result: EpisodeResult) -> None:
            file.write(json.dumps(result.to_dict()) + "\n")
            file.flush()
            progress.advance(bar)

        envs = [PushTEnv() for _ in range(min(environments, len(waiting)))]
        results = run_lockstep(envs, policy, waiting, on_done=keep) if waiting else []
    done |= {result.seed: result for result in results}
    return [done[seed] for seed in seeds]


def read_results(path: Path) -> list[EpisodeResult]:
    """Return the episodes that a file of `evaluate` holds, none if there is no file; a line cut off is left out."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [EpisodeResult.from_dict(json.loads(line)) for line in lines if line.endswith("\n")]


Runs = Sequence[Sequence[EpisodeResult]]
"""Results of one arm: for each training seed the same evaluation seeds in the same order."""


def table(runs: Runs, what: str) -> np.ndarray:
    """Return one attribute of the results (`success`, `max_reward`), float64 [training seeds, evaluation seeds].

    Raises:
        ValueError: The training seeds were evaluated on different seeds.
    """
    seeds = [[result.seed for result in run] for run in runs]
    if any(other != seeds[0] for other in seeds[1:]):
        raise ValueError("every training seed must be evaluated on the same seeds in the same order")
    return np.array([[float(getattr(result, what)) for result in run] for run in runs])


def mean_interval(values: np.ndarray, *, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Return the mean of [training seeds, evaluation seeds], its interval by resampling both (a crossed bootstrap)."""
    return _crossed([values], lambda means: means[0], resamples, seed)


def difference_interval(first: np.ndarray, second: np.ndarray, *, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Return the mean of `first - second`, each [training seeds, evaluation seeds], over the same evaluation seeds.

    A resample draws evaluation seeds once for both arms, which is what pairing means, and training seeds for each arm
    by itself: seed 1 of two different networks has nothing in common.

    Raises:
        ValueError: The arms were evaluated on different numbers of seeds.
    """
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"paired arms need the same evaluation seeds, got {first.shape[1]} and {second.shape[1]}")
    return _crossed([first, second], lambda means: means[0] - means[1], resamples, seed)


def _crossed(tables: Sequence[np.ndarray], combine: Any, resamples: int, seed: int) -> Interval:
    """Return a combination of the tables' means with the percentile interval of a crossed bootstrap."""
    rng, n = np.random.default_rng(seed), tables[0].shape[1]
    # How often each seed was drawn says all about a resample's mean: [resamples, n] instead of a loop.
    columns = rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n
    rows = [rng.multinomial(len(t), np.full(len(t), 1 / len(t)), size=resamples) / len(t) for t in tables]
    drawn = combine([((columns @ t.T) * r).sum(axis=1) for t, r in zip(tables, rows, strict=True)])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(combine([t.mean() for t in tables])), float(low), float(high), 0.95, "bootstrap")
