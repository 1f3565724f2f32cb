"""Train by imitation, package, evaluate the ONNX bundle on seeds not trained on: what both imitation benchmarks do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from benchmarks._results import DOC_IMAGES
from robot_rl.cli.main import main as robot_rl
from robot_rl.evaluation.summary import EvaluationSummary
from robot_rl.metrics import read_metrics

mpl.use("Agg")


def run_line(out: Path, first: str, arguments: Sequence[str]) -> EvaluationSummary:
    """Run import or collect, train, package and evaluate; each continues where it stopped.

    Raises:
        RuntimeError: A command was refused; its message is on the terminal.
    """
    for command in (first, "train", "package", "evaluate"):
        if robot_rl([command, f"out={out}", *arguments]) != 0:
            raise RuntimeError(f"robot-rl {command} {' '.join(arguments)} failed")
    return EvaluationSummary.read(out / "evaluate" / "summary.json")


def training_minutes(out: Path) -> float:
    """Return the time spent training, over all resumes."""
    state = json.loads((out / "train" / "checkpoints" / "last" / "state.json").read_text())
    return float(state["seconds"]) / 60


def rows(summary: EvaluationSummary, out: Path, *, what: str, baseline: dict[str, Any]) -> list[dict[str, Any]]:
    """Return result rows: success, largest reward, training time."""
    seeds = f"{summary.results[0].seed}..{summary.results[-1].seed}"
    success, reward = summary.success, summary.max_reward
    return [
        {"claim": f"{what}: success", "value": success.value, "unit": "", "interval": [success.low, success.high],
         "seeds": seeds, "baseline": baseline.get("success")},
        {"claim": f"{what}: mean largest reward of an episode", "value": reward.value, "unit": "",
         "interval": [reward.low, reward.high], "seeds": seeds, "baseline": baseline.get("reward")},
        {"claim": f"{what}: training time", "value": training_minutes(out), "unit": "min",
         "baseline": baseline.get("time")},
    ]  # fmt: skip


def plot(name: str, summary: EvaluationSummary, out: Path, *, goals: dict[str, float]) -> None:
    """Draw the learning curve and the sorted largest rewards of the evaluation."""
    records = read_metrics(out / "train" / "metrics.jsonl")
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for key, label in (("train/loss", "training loss"), ("val/action_error_normalised", "held-out action error")):
        points = [(record["step"], record[key]) for record in records if record.get(key) is not None]
        left.plot(*zip(*points, strict=True), label=label)
    left.set(xlabel="step", yscale="log", title="learning curve")
    left.legend()
    rewards = np.sort([result.max_reward for result in summary.results])
    right.plot(np.linspace(0, 100, len(rewards)), rewards)
    right.set(xlabel="percentile of episodes", ylabel="largest reward", title=summary.headline())
    right.title.set_fontsize(9)
    for label, value in goals.items():
        right.axhline(value, linestyle=":", color="grey")
        right.text(1, value, label, va="bottom", fontsize=8)
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / f"{name}.png", dpi=110)
    plt.close(fig)
