"""RL-100 in whole on `lift` and `insert`, from mixed data: what each stage adds, and imitation alone would.

    python -m benchmarks.rl100_stages                               # everything; goes on where it stopped
    python -m benchmarks.rl100_stages --tasks lift --seeds 0        # one run of it
    python -m benchmarks.rl100_stages --quick                       # does it run? tiny numbers, a folder of its own
    python -m benchmarks.rl100_stages --report                      # rows and picture from what is there

Demonstrators of three qualities (`sim.misjudging`), the expert among them, leave successes and failures; a base
imitates the successes; then `robot-rl finetune algo=rl100` runs its rounds, imitation alone on the same data with as
many updates, online fine-tuning, and the distillation of a one-step head; last, filtered BC plays as many steps as the
online stage. All policies play the same unseen seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks._online_control import FOLDER, SUCCESS, UPDATES, filtered_bc
from benchmarks._online_control import NAME as FILTERED
from benchmarks._results import write_results
from benchmarks._rl100_report import ALONE, plot, rows
from benchmarks._runs import keep, kept
from benchmarks.gate import BASE_STEPS, collect
from benchmarks.residual import QUICK, command
from robot_rl.metrics import read_metrics

NAME = "rl100_stages"
QUALITIES = {"lift": (1.0, 0.5, 0.2), "insert": (1.0, 0.54, 0.23)}
"""The expert itself, and two who misjudge; a third of the episodes each."""
COMPARED = ("insert",)
"""Tasks whose online stage is compared with filtered BC: on `lift` imitation leaves nothing to gain."""
KEPT = ("finished", "rounds", "published", "evaluation")
STAGES = [
    "algo.offline.improve.lr=0.00003", "algo.offline.improve.updates=300", "algo.offline.improve.gate_every=100",
    "algo.offline.evaluation.kl=200", "algo.rounds.n=1", "algo.rounds.episodes=150", "algo.rounds.again=4",
    "algo.rounds.lanes=20", "algo.online.lanes=20", "algo.head=true", "distill.threads=1",
]  # fmt: skip
"""Updates large enough to matter, and a gate that lets them (docs/gate.md)."""
TINY = [
    "train.batch_size=32", "+denoiser.width=16", "policy.n_steps=2", "algo.offline.critic.steps=10",
    "algo.offline.critic.hidden=[16]", "algo.offline.dynamics.epochs=1", "algo.offline.dynamics.hidden=[16]",
    "algo.offline.dynamics.n_members=3", "algo.offline.dynamics.n_elites=2", "algo.offline.evaluation.n_starts=12",
    "algo.offline.evaluation.horizon=2", "algo.offline.improve.updates=2", "algo.offline.improve.gate_every=1",
    "algo.rounds.n=1", "algo.rounds.episodes=2", "algo.rounds.lanes=2", "algo.rounds.imitation.steps=4",
    "algo.rounds.imitation.warmup_steps=1", "algo.judge.test.max_pairs=2", "algo.judge.lanes=2",
    "algo.online.episodes=2", "algo.online.lanes=2", "algo.online.critic.hidden=[16]", "algo.online.ppo.epochs=1",
    "distill.steps=4", "distill.warmup_steps=1", "distill.batch_size=32", "distill.calls=2", "distill.observations=8",
]  # fmt: skip
"""Of `--quick`: every part runs and nothing is learned."""


def run_dir(root: Path, task: str, seed: int) -> Path:
    """Return the folder of a training seed's run."""
    return root / task / f"seed_{seed}"


def common(root: Path, task: str, seed: int, settings: Sequence[str]) -> list[str]:
    """Return the overrides of every command of a seed."""
    base = [f"task={task}", "encoder=state_relative", f"train.steps={BASE_STEPS}", *QUICK]
    return [*base, f"out={run_dir(root, task, seed)}", f"store={root / task / 'store'}", f"seed={seed}", *settings]


def overrides(root: Path, task: str, seed: int, options: argparse.Namespace, settings: Sequence[str]) -> list[str]:
    """Return the overrides of a seed's `robot-rl finetune algo=rl100`."""
    return [
        "algo=rl100", f"finetune.out={run_dir(root, task, seed) / 'rl100'}", f"finetune.steps={options.steps}",
        f"evaluate.episodes={options.evaluate}", "evaluate.video_episodes=0", *STAGES,
        *common(root, task, seed, settings),
    ]  # fmt: skip


def train(root: Path, task: str, seed: int, options: argparse.Namespace, settings: Sequence[str]) -> None:
    """Make the data, the base and all stages of one seed; what is done is not done again."""
    if (
        (found := read(root, task, seed)) is not None
        and found["finished"]
        and (task not in COMPARED or FILTERED in found["evaluation"])
    ):
        return
    collect(root / task, options.episodes, [f"task={task}"], task=task, qualities=QUALITIES[task])
    bare = [s for s in common(root, task, seed, settings) if "algo." not in s and not s.startswith("distill.")]
    command("train", *(s for s in bare if not s.startswith("finetune.")))
    stages = overrides(root, task, seed, options, settings)
    command("finetune", *stages)
    if task in COMPARED:
        filtered_bc(stages, updates=options.updates)


def read(root: Path, task: str, seed: int) -> dict[str, Any] | None:
    """Return what a seed's run says of itself, or said where it ran; `None` before it has said anything."""
    path = run_dir(root, task, seed) / "rl100" / "summary.json"
    if not path.is_file():
        return kept(NAME, f"{task}_{seed}") if root.name == NAME else None
    found: dict[str, Any] = json.loads(path.read_text())
    control = path.parent / FOLDER / SUCCESS
    if control.is_file():
        evaluation, filtered = list(found["evaluation"].items()), json.loads(control.read_text())
        place = [name for name, _ in evaluation].index(ALONE) + 1
        found["evaluation"] = dict([*evaluation[:place], (FILTERED, filtered), *evaluation[place:]])
    played = [r for r in read_metrics(path.parent / "online" / "metrics.jsonl") if "online/success" in r]
    told = [{key: stage[key] for key in ("name", "accepted", "why")} for stage in found["stages"]]
    curve = [[r["online/steps"], r["online/success"]] for r in played]
    return {**{key: found[key] for key in KEPT}, "stages": told, "curve": curve}


def finished(root: Path, seeds: Sequence[int]) -> dict[str, dict[int, dict[str, Any]]]:
    """Return by task the summaries of the seeds that are done and were evaluated; tasks without any are left out."""
    every = {task: {seed: read(root, task, seed) for seed in seeds} for task in QUALITIES}
    done = {
        task: {seed: s for seed, s in runs.items() if s is not None and s["finished"] and s["evaluation"]}
        for task, runs in every.items()
    }
    return {task: runs for task, runs in done.items() if runs}


def main() -> None:
    """Run what is not done, or make rows and picture from what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("outputs/benchmarks") / NAME)
    parser.add_argument("--tasks", nargs="+", choices=tuple(QUALITIES), default=list(QUALITIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=300, help="of demonstrators")
    parser.add_argument("--steps", type=int, default=160_000, help="environment steps of the online stage")
    parser.add_argument("--updates", type=int, default=UPDATES, help="of imitation, of filtered BC")
    parser.add_argument("--evaluate", type=int, default=200, help="unseen seeds that every policy plays")
    parser.add_argument("--report", action="store_true", help="only rows and picture")
    parser.add_argument("--quick", action="store_true", help="tiny: one seed of insert, no rows on the results page")
    parser.add_argument("overrides", nargs="*", help="robot-rl overrides")
    options = parser.parse_args()
    if options.quick:
        options.episodes, options.steps, options.evaluate, options.updates = 6, 20, 2, 4
        root = options.root.with_name(f"{options.root.name}_quick")
        settings = [*TINY, "train.steps=4", "train.warmup_steps=1", "task.env.max_steps=20", *options.overrides]
        train(root, "insert", 0, options, settings)
        for row in rows(finished(root, [0])):
            Console().print(
                f"{row['value']:.3g} {row['unit']}: {row['claim']}", markup=False
            )  # the figures of a smoke run
        return
    if not options.report:
        for seed in options.seeds:
            for task in options.tasks:
                train(options.root, task, seed, options, options.overrides)
    if every := finished(options.root, options.seeds):
        for task, runs in every.items():
            for seed, found in runs.items():
                if options.root.name == NAME:
                    keep(NAME, f"{task}_{seed}", found)
        plot(every, NAME)
        write_results(NAME, rows(every))


if __name__ == "__main__":
    main()
