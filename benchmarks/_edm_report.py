"""Rows and picture of `benchmarks.edm_sampling`, from the episodes and times that it saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

from benchmarks._edm_conditions import ARMS, BUDGETS, STEPS, Condition, headline, samplers, sweep
from benchmarks._pusht_arms import difference_interval, mean_interval, read_results, table
from benchmarks._results import DOC_IMAGES, write_results
from robot_rl.evaluation.rollouts import EpisodeResult
from robot_rl.evaluation.statistics import Interval

mpl.use("Agg")
Runs = Mapping[Condition, Sequence[Sequence[EpisodeResult]]]
Latency = Mapping[str, Mapping[str, float]]
TITLES = {"edm": "EDM", "diffusion": "diffusion (epsilon)", "flow": "flow"}


def collect(path: Callable[[Condition, int], Path], conditions: Sequence[Condition], seeds: Sequence[int]) -> Runs:
    """Return the saved episodes of each condition, a list for each training seed.

    Raises:
        FileNotFoundError: A condition was not evaluated; the message names its file.
    """
    if missing := [path(c, seed) for c in conditions for seed in seeds if not path(c, seed).exists()]:
        raise FileNotFoundError(f"{len(missing)} evaluations are missing, the first is {missing[0]}; run --evaluate")
    return {c: [sorted(read_results(path(c, seed)), key=lambda r: r.seed) for seed in seeds] for c in conditions}


def write(runs: Runs, latency: Latency, rates: Mapping[str, float], seeds: Sequence[int]) -> None:
    """Write benchmarks/results/edm_sampling.json and its picture."""
    rows = [*_headline_rows(runs, latency, len(seeds)), *_paired_rows(runs, latency, len(seeds))]
    rows += [
        {"claim": f"training steps a second on one thread, {TITLES[arm]}", "value": rates[arm], "unit": "1/s"}
        for arm in ARMS
    ]
    rows += _table_rows(runs, latency, len(seeds))
    write_results("edm_sampling", rows)
    _plot(runs, latency)


def _what(c: Condition) -> str:
    evaluations = "" if c.evaluations == c.n_steps else f" ({c.evaluations} evaluations)"
    return f"{TITLES[c.arm]}, {c.n_steps} steps of {c.sampler}{evaluations}, noise {c.noise_scale:g}"


def _seeds(runs: Runs, c: Condition, n: int) -> str:
    return f"{n} trainings x {runs[c][0][0].seed}..{runs[c][0][-1].seed}"


def _success(runs: Runs, c: Condition) -> Interval:
    return mean_interval(table(runs[c], "success"))


def _headline_rows(runs: Runs, latency: Latency, n: int) -> list[dict[str, Any]]:
    rows = []
    for c in headline():
        seeds = _seeds(runs, c, n)
        for what, claim in (("success", "success"), ("max_reward", "mean largest reward")):
            found = mean_interval(table(runs[c], what))
            rows.append(_row(f"{claim}; {_what(c)}", found, seeds))
        times = latency[c.name]
        rows.append(
            {"claim": f"one chunk in ONNX Runtime, one thread, p50; {_what(c)}", "value": round(times["p50_ms"], 4),
             "unit": "ms", "baseline": f"p99 {times['p99_ms']:.3f} ms over {times['calls']:.0f} calls"}
        )  # fmt: skip
    return rows


def _paired_rows(runs: Runs, latency: Latency, n: int) -> list[dict[str, Any]]:
    """Return EDM's success minus each other family's at one noise scale, on the same seeds, and the ratio of times."""
    rows = []
    for edm in (c for c in headline() if c.arm == "edm"):
        for other in (c for c in headline() if c.arm != "edm" and c.noise_scale == edm.noise_scale):
            found = difference_interval(table(runs[edm], "success"), table(runs[other], "success"))
            rows.append(_row(f"success, {_what(edm)} minus {_what(other)}", found, _seeds(runs, edm, n)))
            ratio = latency[edm.name]["p50_ms"] / latency[other.name]["p50_ms"]
            rows.append(
                {"claim": f"p50 of one chunk, {_what(edm)} over {_what(other)}", "value": round(ratio, 3), "unit": "1"}
            )
    return rows


def _table_rows(runs: Runs, latency: Latency, n: int) -> list[dict[str, Any]]:
    rest = [c for c in dict.fromkeys([*sweep(), *samplers()]) if c not in headline()]
    return [
        _row(f"success; {_what(c)}", _success(runs, c), _seeds(runs, c, n))
        | {"baseline": f"p50 {latency[c.name]['p50_ms']:.3f} ms"}
        for c in rest
    ]


def _row(claim: str, found: Interval, seeds: str) -> dict[str, Any]:
    interval = [round(found.low, 4), round(found.high, 4)]
    return {"claim": claim, "value": round(found.value, 4), "unit": "", "interval": interval, "seeds": seeds}


def _plot(runs: Runs, latency: Latency) -> None:
    """Draw success over steps, over time, and by sampler."""
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    for i, arm in enumerate(ARMS):
        line = [Condition(arm, "ddim", n) for n in (*STEPS, *((16,) if arm == "diffusion" else ()))]
        found = [_success(runs, c) for c in line]
        bars = _bars(found)
        style = {"marker": "o", "capsize": 2, "color": f"C{i}", "label": TITLES[arm]}
        left.errorbar([c.n_steps for c in line], [f.value for f in found], yerr=bars, **style)
        middle.errorbar([latency[c.name]["p50_ms"] for c in line], [f.value for f in found], yerr=bars, **style)
    left.set(xscale="log", xlabel="steps (ddim)", ylabel="success", xticks=[*STEPS, 16], xticklabels=[*STEPS, 16])
    left.minorticks_off()
    middle.set(xscale="log", xlabel="one chunk, ONNX Runtime, one thread, p50 [ms]")
    middle.xaxis.set_minor_formatter(NullFormatter())
    left.legend()
    _plot_samplers(right, runs)
    for axes in (left, middle, right):
        axes.set_ylim(0, 1)
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / "edm_sampling.png", dpi=110)
    plt.close(fig)


def _plot_samplers(axes: Any, runs: Runs) -> None:
    """Draw bars of success: a group for each family and budget, a colour for each sampler."""
    ways = list(dict.fromkeys(c.sampler for c in samplers()))
    groups = [(arm, budget) for arm in ARMS for budget in BUDGETS]
    for k, way in enumerate(ways):
        chosen = [c for c in samplers() if c.sampler == way]
        found = [_success(runs, c) for c in chosen]
        places = [g + 0.2 * (k - 1.5) for g in range(len(groups))]
        axes.bar(places, [f.value for f in found], 0.2, yerr=_bars(found), label=way, capsize=1)
    axes.set_xticks(range(len(groups)), [f"{arm}\n{budget} eval." for arm, budget in groups], fontsize=8)
    axes.legend(fontsize=8)


def _bars(found: Sequence[Interval]) -> list[list[float]]:
    return [[f.value - f.low for f in found], [f.high - f.value for f in found]]
