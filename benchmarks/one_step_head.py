"""One-step ONNX heads against their own ten-step teachers: time of denoising, distance, success on the same seeds.

    python -m benchmarks.lift_imitation                              # makes the teacher of lift, and its store
    python -m benchmarks.one_step_head --run lift same_noise         # distils, packages and measures; continues
    python -m benchmarks.one_step_head --run pusht same_noise --episodes 500
    python -m benchmarks.one_step_head --report

`--run` is `robot-rl distill` and `robot-rl package` with limits that nothing fails, so that losses are told like gains.
The teacher at 1, 2 and 4 steps, which needs no distillation, plays the same seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks._results import DOC_IMAGES, write_results
from benchmarks._runs import keep, kept
from robot_rl.bundle import PolicyBundle
from robot_rl.bundle.certificate import Certificate, read_certificates
from robot_rl.cli.main import main as robot_rl

mpl.use("Agg")
NAME = "one_step_head"
ROOT = Path("outputs/benchmarks") / NAME
HEADS = ("same_noise", "shortcut", "mean_flow", "lcm")
NO_LIMITS = ("success_loss=1", "episodes=0", "distance=1000", "latency_ratio=1000")


@dataclass(frozen=True)
class Task:
    """Where a task's teacher and its demonstrations lie; another benchmark made them.

    Args:
        name: The task.
        made_by: The benchmark.
    """

    name: str
    made_by: str

    @property
    def teacher(self) -> Path:
        """Training run of the teacher."""
        return Path("outputs/benchmarks") / self.made_by / "train"

    @property
    def store(self) -> Path:
        """Demonstrations."""
        return Path("outputs/benchmarks") / self.made_by / "store"


TASKS = {"lift": Task("lift", "lift_imitation"), "pusht": Task("pusht", "pusht_imitation")}


def arguments(task: Task, head: str, teacher: Path, store: Path, root: Path) -> list[str]:
    """Return what both commands are told."""
    return [f"task={task.name}", f"store={store}", f"head={head}", f"distill.out={root / f'{task.name}_{head}'}",
            f"distill.teacher={teacher}", f"distill.played={root / f'{task.name}_episodes'}"]  # fmt: skip


def run(task: Task, head: str, options: argparse.Namespace) -> None:
    """Distil, compare, package and measure one head; continues where it stopped.

    Raises:
        SystemExit: The teacher is missing.
        RuntimeError: A command was refused or interrupted; its message is on the terminal.
    """
    teacher, store = options.teacher or task.teacher, options.store or task.store
    if not (teacher / "model.json").is_file():
        raise SystemExit(
            f"no teacher in {teacher}; make it with python -m benchmarks.{task.made_by}, or give --teacher"
        )
    out, bundle = options.root / f"{task.name}_{head}", options.root / f"{task.name}_{head}_bundle"
    common = [
        *arguments(task, head, teacher, store, options.root), f"distill.steps={options.steps}",
        f"distill.episodes={options.episodes}", "distill.threads=1", *options.overrides,
    ]  # fmt: skip
    limits = [f"distill.limits.{limit}" for limit in NO_LIMITS]
    for command in (["distill", f"run={teacher}"], ["package", f"run={out}", f"bundle={bundle}", *limits]):
        if robot_rl([*command, *common]) != 0:
            raise RuntimeError(f"robot-rl {' '.join([*command, *common])} failed")
    certificate = read_certificates(PolicyBundle.open(bundle))[-1]
    raw = {
        "task": task.name, "head": head, "steps": options.steps, "certificate": certificate.to_dict(),
        "report": json.loads((out / "report.json").read_text()),
    }  # fmt: skip
    keep(NAME, f"{task.name}_{head}", raw)


def read_raw() -> list[dict[str, Any]]:
    """Return the raw figures of all heads that were measured, wherever that was."""
    found = [kept(NAME, f"{task}_{head}") for task in TASKS for head in HEADS]
    return [raw for raw in found if raw is not None]


def rows(raws: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the results page."""
    return [row for raw in raws for row in (*_certified(raw), *_compared(raw))]


def _row(claim: str, value: float, unit: str = "", **rest: Any) -> dict[str, Any]:
    return {
        "claim": claim,
        "value": value,
        "unit": unit,
        "command": f"python -m benchmarks.{NAME} --report",
        **rest,
    }


def _certified(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the figures of a head's certificate, all in ONNX Runtime on one thread."""
    got, name = Certificate.from_dict(raw["certificate"]), f"{raw['task']}, {raw['head']}"
    steps = f"teacher, {got.teacher_steps} steps"
    done = [
        _row(f"{name}: median denoising time over that of its teacher ({got.teacher_steps} steps)", got.latency_ratio)
    ]
    for part in ("denoise", "end_to_end"):
        mine, theirs, words = got.latency[part], got.teacher_latency[part], part.replace("_", " ")
        done.append(_row(f"{name}: {words} p50", mine.p50_ms, "ms", baseline=f"{theirs.p50_ms:.3g} ms ({steps})"))
        if mine.first_ms is not None and theirs.first_ms is not None:
            done.append(
                _row(f"{name}: {words} p50, first call after another network's", mine.first_ms, "ms",
                     baseline=f"{theirs.first_ms:.3g} ms ({steps})")
            )  # fmt: skip
        done.append(_row(f"{name}: {words} p99", mine.p99_ms, "ms", baseline=f"{theirs.p99_ms:.3g} ms ({steps})"))
    done.append(
        _row(f"{name}: energy distance to its teacher, normalised actions", got.distance,
             seeds=f"{got.observations} windows x {got.draws} draws",
             baseline=f"{got.own_distance:.3g} (teacher to itself)")
    )  # fmt: skip
    if got.success is not None:
        pair, last = got.success, got.success.first_seed + got.success.episodes - 1
        done.append(
            _row(f"{name}: success in ONNX minus its teacher's, same seeds", pair.difference,
                 interval=[pair.low, pair.high], seeds=f"{pair.first_seed}..{last}", baseline=0)
        )  # fmt: skip
    return done


def _compared(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """Return error and success of the head and of its teacher at few steps, in torch."""
    done = []
    for variant, got in raw["report"]["variants"].items():
        name = f"{raw['task']}, {raw['head']}: {variant}"
        done.append(_row(f"{name}: error to the teacher's chunk, normalised actions", got["error"]))
        if "success" in got:
            rate, gap = got["success"], got["difference"]
            done.append(_row(f"{name}: success", rate["value"], interval=[rate["low"], rate["high"]]))
            done.append(
                _row(
                    f"{name}: success minus the teacher's", gap["value"], interval=[gap["low"], gap["high"]], baseline=0
                )
            )
    return done


def plot(raws: Sequence[dict[str, Any]]) -> None:
    """Draw success and time of denoising of each head beside its teacher at all and at few steps."""
    fig, axes = plt.subplots(2, len(raws), figsize=(4.2 * len(raws), 5.2), squeeze=False, layout="constrained")
    for (top, bottom), raw in zip(axes.T, raws, strict=True):
        variants = raw["report"]["variants"]
        colours = ["C1" if name == "head" else "lightgrey" for name in variants]
        for y, (colour, got) in enumerate(zip(colours, variants.values(), strict=True)):
            if "success" in got:
                top.barh(y, got["success"]["value"], color=colour)
                top.plot([got["success"]["low"], got["success"]["high"]], [y, y], color="black")
        bottom.barh(range(len(variants)), [got["p50_ms"] for got in variants.values()], color=colours)
        top.set(title=f"{raw['task']}, {raw['head']}", xlabel="success", xlim=(0, 1))
        bottom.set(xlabel="denoising p50, torch [ms]")
        for axis in (top, bottom):
            axis.set_yticks(range(len(variants)), list(variants))
            axis.invert_yaxis()
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / f"{NAME}.png", dpi=110)
    plt.close(fig)


def main() -> None:
    """Run one head, or make rows and picture from the raw figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs=2, metavar=("TASK", "HEAD"))
    parser.add_argument("--report", action="store_true", help="rows and picture from what was measured")
    parser.add_argument("--steps", type=int, default=3000, help="distillation steps")
    parser.add_argument("--episodes", type=int, default=20, help="seeds that head and teachers play; 500 for the page")
    parser.add_argument("--teacher", type=Path, help="training run; default: the imitation benchmark's")
    parser.add_argument("--store", type=Path, help="demonstrations; default: the imitation benchmark's")
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("overrides", nargs="*", help="robot-rl overrides")
    options = parser.parse_args()
    options.root.mkdir(parents=True, exist_ok=True)
    if options.run:
        run(TASKS[options.run[0]], options.run[1], options)
    if options.report:
        raws = read_raw()
        write_results(NAME, rows(raws))
        plot(raws)


if __name__ == "__main__":
    main()
