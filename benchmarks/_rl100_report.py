"""Rows and picture of `benchmarks.rl100_stages`, from what its runs say of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from benchmarks._online_control import NAME as FILTERED
from benchmarks._results import DOC_IMAGES
from benchmarks._success import of_facts, success_interval
from robot_rl.evaluation.statistics import Interval, student_t

mpl.use("Agg")
BEGUN = ("base", "base with noise")
ALONE = "imitation alone, equal data"
COMMAND = "python -m benchmarks.rl100_stages"
_ITERATIONS = 5

Runs = Mapping[int, dict[str, Any]]
"""What each training seed of a task found."""


def rows(every: Mapping[str, Runs]) -> list[dict[str, Any]]:
    """Return the rows of the results page, losses as gains."""
    made = []
    for task, runs in every.items():
        data = next(iter(runs.values()))["rounds"][0]["data"]
        share = data["successes"] / data["episodes"]
        made.append({"claim": f"{task}: successes among the {data['episodes']} episodes that all begins with",
                     "value": share, "unit": "share", "command": COMMAND})  # fmt: skip
        before = f"{_success(runs, 'base').value:.3f} (base)"
        names = _policies(runs)
        made += [_success_row(task, name, runs, baseline=None if name == "base" else before) for name in names]
        made += [_difference_row(task, other, runs) for other in ("base", ALONE, FILTERED) if other in names]
        made += [_stage_row(task, seed, run) for seed, run in runs.items()]
    return made


def _policies(runs: Runs) -> list[str]:
    return max((list(run["evaluation"]) for run in runs.values()), key=len)


def _having(runs: Runs, name: str) -> dict[int, dict[str, Any]]:
    return {seed: run for seed, run in runs.items() if name in run["evaluation"]}


def _success(runs: Runs, name: str) -> Interval:
    return success_interval(of_facts(run["evaluation"][name] for run in _having(runs, name).values()))


def _success_row(task: str, name: str, runs: Runs, *, baseline: str | None) -> dict[str, Any]:
    there, rate = _having(runs, name), _success(runs, name)
    each = [run["evaluation"][name] for run in there.values()]
    told = ", ".join(f"{f['successes']}/{f['episodes']}" for f in each)
    return {"claim": f"{task}, {name} ({told})", "value": rate.value, "unit": "success",
            "interval": [rate.low, rate.high], "seeds": f"training seeds {list(there)}", "baseline": baseline,
            "command": COMMAND}  # fmt: skip


def _difference_row(task: str, other: str, runs: Runs) -> dict[str, Any]:
    there = _having(runs, other)
    success = {
        name: [run["evaluation"][name]["success"]["value"] for run in there.values()] for name in ("published", other)
    }
    gains = [new - old for new, old in zip(success["published"], success[other], strict=True)]
    row = {"claim": f"{task}: success of the published policy minus that of `{other}`, mean over training seeds",
           "value": sum(gains) / len(gains), "unit": "success", "seeds": f"training seeds {list(there)}", "baseline": 0,
           "command": COMMAND}  # fmt: skip
    if len(gains) > 1:
        mean = student_t(gains)
        row["interval"] = [mean.low, mean.high]
    return row


def _stage_row(task: str, seed: int, run: Mapping[str, Any]) -> dict[str, Any]:
    taken = [stage["name"] for stage in run["stages"] if stage["accepted"]]
    judged = [s for s in run["stages"] if s["name"].endswith(("offline", "imitation")) or s["name"] == "online"]
    told = f"stages whose result was accepted: {', '.join(taken) or 'none'}; published is {run['published']['from']}"
    return {"claim": f"{task}, seed {seed}: {told}", "value": len(taken), "unit": f"of {len(judged)} stages",
            "command": COMMAND}  # fmt: skip


def plot(every: Mapping[str, Runs], name: str) -> None:
    """Draw the success of every policy, dots are training seeds, and below it that of the episodes played online."""
    fig, axes = plt.subplots(
        2, len(every), figsize=(6.5 * len(every), 7), squeeze=False, layout="constrained", height_ratios=(3, 2)
    )
    for (above, below), (task, runs) in zip(axes.T, every.items(), strict=True):
        _plot_success(above, task, runs)
        _plot_online(below, runs)
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / f"{name}.png", dpi=110)
    plt.close(fig)


def _plot_success(axis: Axes, task: str, runs: Runs) -> None:
    names = _policies(runs)
    for place, name in enumerate(names):
        rate = _success(runs, name)
        colour = "tab:orange" if name in (ALONE, FILTERED) else "grey" if name in BEGUN else "tab:blue"
        axis.barh(place, rate.value, 0.6, color=colour,
                  xerr=[[rate.value - rate.low], [rate.high - rate.value]], capsize=3)  # fmt: skip
        each = [run["evaluation"][name]["success"]["value"] for run in _having(runs, name).values()]
        axis.plot(each, [place] * len(each), "k.", markersize=4)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="success on unseen seeds", xlim=(0, 1.02), title=task)


def _plot_online(axis: Axes, runs: Runs) -> None:
    """Draw running means over a few iterations, since one has only some fifty episodes."""
    for seed, run in runs.items():
        steps, success = running_mean(run["curve"], _ITERATIONS)
        axis.plot(steps / 1000, success, label=f"seed {seed}")
    axis.set(xlabel="thousand environment steps online", ylabel=f"success, {_ITERATIONS} iterations", ylim=(0.6, 1.01))
    axis.legend(fontsize=8, loc="lower right")


def running_mean(curve: Sequence[Sequence[float]], window: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return environment steps and the mean success of the last iterations, from rows that begin with these two."""
    steps, success = np.array([row[:2] for row in curve]).T
    window = min(window, len(success))
    return steps[window - 1 :], np.convolve(success, np.ones(window) / window, mode="valid")
