"""Result rows and the figure of benchmarks/loader.py."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._results import DOC_IMAGES

Runs = dict[str, list[dict[str, Any]]]


def is_ours(name: str) -> bool:
    """Whether a way of reading is of our side."""
    return name.startswith("ours")


def per_second(runs: Sequence[Mapping[str, Any]], clock: str = "wall_s") -> list[float]:
    """Return samples/s of each run."""
    return [run["samples"] / run[clock] for run in runs]


def ratio_row(
    claim: str, ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], *, clock: str
) -> dict[str, Any]:
    """Return how many times more samples/s ours gives, round by round: median and range."""
    pairs = zip(per_second(ours, clock), per_second(theirs, clock), strict=True)
    ratios = [a / b for a, b in pairs]
    return {"claim": claim, "value": round(statistics.median(ratios), 1), "unit": "ratio",
            "interval": [round(min(ratios), 1), round(max(ratios), 1)], "seeds": len(ratios),
            "baseline": "LeRobotDataset 0.6.1"}  # fmt: skip


def rows_of(runs: Runs, facts: Mapping[str, float], rounds: int) -> list[dict[str, Any]]:
    """Return the result rows: rates with their range over rounds, ratios, sizes and fidelity."""
    rows: list[dict[str, Any]] = []
    for name, results in runs.items():
        rates, cpu = per_second(results), per_second(results, "cpu_s")
        rows.append(
            {"claim": f"random windows/s, {name}", "value": round(statistics.median(rates), 1), "unit": "samples/s",
             "interval": [round(min(rates), 1), round(max(rates), 1)], "seeds": rounds}
        )  # fmt: skip
        if "workers" not in name:  # the time of worker processes is not in the parent's
            rows.append({"claim": f"random windows per CPU second, {name}", "value": round(statistics.median(cpu), 1),
                         "unit": "samples/CPU-s", "seeds": rounds})  # fmt: skip
    for ours in (name for name in runs if is_ours(name)):
        for theirs in (name for name in runs if not is_ours(name)):
            rows.append(ratio_row(f"{ours} / {theirs}", runs[ours], runs[theirs], clock="wall_s"))
            if "workers" not in theirs:
                rows.append(ratio_row(f"{ours} / {theirs}, per CPU second", runs[ours], runs[theirs], clock="cpu_s"))
    loads = [result["load"] for results in runs.values() for result in results]
    rows.append({"claim": "load average of the machine before each run", "value": round(statistics.median(loads), 2),
                 "unit": "processes", "interval": [round(min(loads), 2), round(max(loads), 2)]})  # fmt: skip
    for key, value in facts.items():
        unit, kind = key.split()
        what = "size on disk" if unit == "MB" else "RMS error of pictures"
        unit = "MB" if unit == "MB" else "grey levels of 255"
        rows.append({"claim": f"{what}, {kind}", "value": round(value, 2), "unit": unit})
    command = "python -m benchmarks.loader --lerobot-python PYTHON_WITH_LEROBOT"
    return [row | {"command": command} for row in rows]


def plot(runs: Runs, facts: Mapping[str, float]) -> None:
    """Draw rates with every round as a point, on a log axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for i, (name, results) in enumerate(reversed(runs.items())):
        rates = per_second(results)
        axes.barh(i, statistics.median(rates), color="tab:blue" if is_ours(name) else "tab:grey", alpha=0.7)
        axes.plot(rates, [i] * len(rates), "k.", markersize=4)
        axes.text(max(rates) * 1.08, i, f"{statistics.median(rates):.3g}", va="center", fontsize=9)
    axes.set_yticks(range(len(runs)), list(reversed(runs)))
    axes.set(xscale="log", xlabel="random windows per second (bar: median, points: rounds)")
    axes.margins(x=0.15)
    sizes = ", ".join(f"{kind} {facts[f'MB {kind}']:.0f} MB" for kind in ("store", "video", "image"))
    figure.suptitle(f"2 cameras 240x320, 2 obs + 16 action steps; on disk: {sizes}", fontsize=9)
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(DOC_IMAGES / "loader.png", dpi=130)
