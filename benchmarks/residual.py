"""Residual RL on `lift` and `insert` from a weak imitation base, against RLPD from scratch and filtered BC.

Three stages, each resumable: a base from few demonstrations and few updates; for each seed 30,000 (`lift`) or 60,000
(`insert`) environment steps by turns in one process; success of the deterministic policies on unseen seeds. Filtered BC
plays the same number of steps with the base, adds its successes to the demonstrations, and imitates anew with the
base's own settings. Each task is played in a folder of its own; the report takes all that are there.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from rich.console import Console
from rich.progress import Progress

from benchmarks._results import DOC_IMAGES, write_results
from benchmarks._success import of_summaries, success_interval
from robot_rl.cli.config import build, load_config
from robot_rl.cli.main import main as robot_rl
from robot_rl.cli.model_card import torch_policy
from robot_rl.data.store import EpisodeStore
from robot_rl.evaluation.rollouts import run_episode
from robot_rl.evaluation.summary import EvaluationSummary
from robot_rl.metrics import read_metrics
from robot_rl.values import RecordingMeta

mpl.use("Agg")
FIRST_SEED = 1_000_000
ARMS = ("residual", "rlpd", "filtered_bc")
QUICK = ["train.warmup_steps=100", "train.threads=1", "policy.n_steps=4"]
BASES = {
    "lift": ["task=lift", "collect.episodes=30", "train.steps=600", "finetune.max_steps=100", *QUICK],
    "insert": ["task=insert", "collect.episodes=30", "train.steps=900", *QUICK],
}
"""What makes a base that leaves room, by task; a cube not lifted within 100 steps of playing has been missed."""
RESIDUAL = {"lift": ["finetune.repeat_failed=0.5", "algo.learner.settings.alpha=0.08"], "insert": []}
"""What a task's residual has other than the defaults."""
STEPS = {"lift": 30_000, "insert": 60_000}
GOALS = {"lift": "at least 0.95", "insert": "at least 0.70, goal 0.85"}


def command(name: str, *arguments: str) -> None:
    """Run a command of the program.

    Raises:
        RuntimeError: It was refused; its message is on the terminal.
    """
    if robot_rl([name, *arguments]) != 0:
        raise RuntimeError(f"robot-rl {name} {' '.join(arguments)} failed")


def make_base(out: Path, settings: Sequence[str]) -> None:
    """Collect demonstrations, train the base and evaluate it on the seeds that every policy is told on."""
    for name in ("collect", "train"):
        command(name, f"out={out}", *settings)
    if not (out / "evaluate" / "summary.json").exists():
        command(
            "evaluate",
            f"out={out}",
            f"evaluate.out={out / 'evaluate'}",
            "evaluate.what=run",
            "evaluate.video_episodes=0",
            *settings,
        )


def finetune(out: Path, arm: str, seed: int, *, steps: int, settings: Sequence[str]) -> None:
    """Run one reinforcement learning arm of one seed."""
    more = RESIDUAL[out.name] if arm == "residual" else []
    command(
        "finetune", f"out={out}", f"algo={arm}", f"seed={seed}", f"finetune.out={out}/{arm}_{seed}",
        "finetune.workers=0", f"finetune.steps={steps}", f"finetune.first_seed={FIRST_SEED * (seed + 1)}",
        "finetune.eval_every=2500", "evaluate.video_episodes=0", *settings, *more,
    )  # fmt: skip


def filtered_bc(out: Path, seed: int, *, steps: int, settings: Sequence[str]) -> None:
    """Play so many steps with the base, keep what succeeded, and imitate demonstrations and successes together."""
    folder = out / f"filtered_bc_{seed}"
    store = _play(out, folder, seed, steps, settings)
    Console().print(f"filtered BC, seed {seed}: {len(store)} demonstrations and successes")
    same = [f"out={folder}", f"seed={seed}", *settings]
    command("train", *same)
    command("evaluate", *same, f"evaluate.out={folder / 'evaluate'}", "evaluate.what=run", "evaluate.video_episodes=0")


def _play(out: Path, folder: Path, seed: int, steps: int, settings: Sequence[str]) -> EpisodeStore:
    """Return the store of demonstrations and successes, made whole before it takes its name."""
    target, part = folder / "store", folder / "store.part"
    if target.exists():
        return EpisodeStore.open(target)
    shutil.rmtree(part, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(out / "store", part)
    store, config = EpisodeStore.open(part), load_config(list(settings))
    env, policy, played, episode = build(config.task.env), torch_policy(str(out / "train")), 0, 0
    with Progress() as progress:
        task = progress.add_task("playing with the base", total=steps)
        while played < steps:
            meta = RecordingMeta(task=config.task.description, source="policy")
            recording, result = run_episode(
                env, policy, FIRST_SEED * (seed + 1) + episode, meta=meta, max_steps=config.finetune.max_steps
            )
            if result.success and recording is not None:
                store.append(recording)
            episode, played = episode + 1, played + result.steps
            progress.update(task, completed=played)
    env.close()
    part.rename(target)
    return EpisodeStore.open(target)


def final(out: Path, arm: str, seed: int) -> EvaluationSummary:
    """Return an arm's evaluation: the newest one of its fine-tuned policy."""
    folder = out / f"{arm}_{seed}"
    if arm == "filtered_bc":
        return EvaluationSummary.read(folder / "evaluate" / "summary.json")
    card = json.loads((folder / "summary.json").read_text())["card"]
    found = max(folder.glob(f"evaluate/{card}_*/summary.json"), key=lambda path: path.stat().st_mtime)
    return EvaluationSummary.read(found)


def rows(task: str, out: Path, seeds: Sequence[int], steps: int) -> list[dict[str, Any]]:
    """Return a task's result rows: each arm's success over all seeds, with the exact interval, and seed by seed."""
    base = EvaluationSummary.read(out / "evaluate" / "summary.json")
    found: list[dict[str, Any]] = [
        {"claim": f"{task}, the imitation base", "value": base.success.value, "unit": "success",
         "interval": [base.success.low, base.success.high], "seeds": len(base.results),
         "baseline": "between 0.3 and 0.7"}
    ]  # fmt: skip
    for arm in ARMS:
        there = [s for s in seeds if finished(out, arm, s)]
        if not there:
            continue
        summaries = [final(out, arm, s) for s in there]
        pooled = success_interval(of_summaries(summaries))
        each = ", ".join(f"{s.successes}/{len(s.results)}" for s in summaries)
        found.append(
            {"claim": f"{task}, {arm} after {steps} steps ({each})", "value": pooled.value,
             "unit": "success", "interval": [pooled.low, pooled.high], "seeds": f"training seeds {there}",
             "baseline": GOALS[task] if arm == "residual" else f"base {base.success.value:.2f}"}
        )  # fmt: skip
    return found


def finished(out: Path, arm: str, seed: int) -> bool:
    """Return whether an arm of a seed has been evaluated."""
    folder = out / f"{arm}_{seed}"
    return (folder / ("evaluate/summary.json" if arm == "filtered_bc" else "summary.json")).exists()


def plot(tasks: Mapping[str, Path], seeds: Sequence[int]) -> None:
    """Draw success over environment steps, a panel a task: deterministic policies on the curve's own seeds."""
    fig, panels = plt.subplots(
        1, len(tasks), figsize=(6 * len(tasks) + 2, 3.8), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (task, out) in zip(panels[0], tasks.items(), strict=True):
        _draw(axes, task, out, seeds)
    panels[0][0].set(ylabel="success, 20 seeds a point", ylim=(-0.02, 1.02))
    for axes in panels[0]:
        axes.legend(loc="upper right", bbox_to_anchor=(1.0, 0.5))
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / "residual.png", dpi=110)
    plt.close(fig)


def _draw(axes: Any, task: str, out: Path, seeds: Sequence[int]) -> None:
    for arm, colour in zip(ARMS[:2], ("tab:blue", "tab:orange"), strict=True):
        for seed in seeds:
            path = out / f"{arm}_{seed}" / "curve" / "metrics.jsonl"
            if path.exists() and (points := read_metrics(path)):
                axes.plot(
                    [p["step"] for p in points], [p["eval/success"] for p in points], color=colour, alpha=0.7,
                    label=arm if seed == seeds[0] else None,
                )  # fmt: skip
    base = EvaluationSummary.read(out / "evaluate" / "summary.json").success.value
    axes.axhline(base, color="grey", linestyle=":", label="base")
    done = [s for s in seeds if finished(out, "filtered_bc", s)]
    if done:
        mean = sum(final(out, "filtered_bc", s).success.value for s in done) / len(done)
        axes.axhline(mean, color="tab:green", linestyle="--", label="filtered BC, all steps")
    axes.set(xlabel="environment steps", title=task)


def main() -> None:
    """Train what is missing, then write benchmarks/results/residual.json and its picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/residual"), help="a folder a task in it")
    parser.add_argument("--task", choices=sorted(BASES), default="lift", help="what to train")
    parser.add_argument("--train", action="store_true", help="play and learn; continues where it stopped")
    parser.add_argument("--report", action="store_true", help="write rows and picture from what is there")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of the task to train; 30,000 for lift and 60,000 for insert")
    parser.add_argument("--overrides", nargs="*", default=[], help="robot-rl overrides for every stage")
    args = parser.parse_args()
    steps = {**STEPS, **({} if args.steps is None else {args.task: args.steps})}
    if args.train:
        out, settings = args.out / args.task, [*BASES[args.task], *args.overrides]
        make_base(out, settings)
        for seed in args.seeds:
            for arm in args.arms:
                act = filtered_bc if arm == "filtered_bc" else partial(finetune, arm=arm)
                act(out, seed=seed, steps=steps[args.task], settings=settings)
    if args.report:
        there = {task: args.out / task for task in BASES if (args.out / task / "evaluate" / "summary.json").exists()}
        write_results(
            "residual", [row for task, out in there.items() for row in rows(task, out, args.seeds, steps[task])]
        )
        begun = {task: out for task, out in there.items() if any(out.glob("*/curve/metrics.jsonl"))}
        if begun:
            plot(begun, args.seeds)


if __name__ == "__main__":
    main()
