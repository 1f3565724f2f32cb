"""The usual sections of a report, each made from what a command has at hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.errors import ConfigError
from robot_rl.evaluation import plots
from robot_rl.evaluation.report import Block, Code, Facts, Plot, Section, Table, Text, Tile, Tiles, Video, Videos
from robot_rl.evaluation.statistics import Interval
from robot_rl.evaluation.summary import EvaluationSummary
from robot_rl.metrics import read_metrics

CURVES: Mapping[str, Sequence[str]] = {
    "loss": ("train/loss", "val/loss"),
    "held-out action error (normalised)": ("val/action_error_normalised",),
}
LATENCIES = ("inference", "reaction", "lateness", "period")


def evaluation_sections(
    summary: EvaluationSummary,
    *,
    folder: str | Path | None = None,
    goals: Mapping[str, float] | None = None,
    max_videos: int = 8,
) -> list[Section]:
    """Return the sections of an evaluation: figures with intervals, videos, every seed.

    Args:
        summary: What `evaluate` returned.
        folder: The evaluation's `out_dir`, where the videos are; `None` leaves them out.
        goals: Named success rates to mark, such as `{"goal": 0.9}`.
        max_videos: How many videos to put into the file.
    """
    rows = {"success": summary.success}
    blocks: list[Block] = [
        Tiles(_evaluation_tiles(summary)),
        Plot(
            plots.intervals(rows, goals=goals),
            f"Success with its exact binomial {100 * summary.success.level:g} % interval.",
            wide=True,
        ),
    ]
    sections = [Section("Success", [*blocks, *_value_plots(summary)])]
    if folder is not None and summary.videos and max_videos > 0:
        sections.append(Section("What it looks like", [Videos(_videos(summary, Path(folder), max_videos))]))
    return [*sections, Section("Episodes", [_episode_table(summary)])]


def _evaluation_tiles(summary: EvaluationSummary) -> list[Tile]:
    count = len(summary.results)
    steps = float(np.mean([result.steps for result in summary.results]))
    return [
        Tile(
            "Success",
            f"{100 * summary.success.value:.1f} %",
            f"{summary.successes}/{count}, {_percent(summary.success)}",
        ),
        Tile("Mean max reward", f"{summary.max_reward.value:.3f}", _range(summary.max_reward)),
        Tile("Mean return", f"{summary.return_.value:.4g}", _range(summary.return_)),
        Tile(
            "Episodes", str(count), f"{steps:.0f} steps each on average, {summary.steps_per_s:.0f} steps/s per worker"
        ),
    ]


def _percent(interval: Interval) -> str:
    return f"{100 * interval.level:g} %: {100 * interval.low:.1f} to {100 * interval.high:.1f} %"


def _range(interval: Interval) -> str:
    if not math.isfinite(interval.low):
        return "one episode: no interval"
    return f"{100 * interval.level:g} %: {interval.low:.3g} to {interval.high:.3g}"


def _value_plots(summary: EvaluationSummary) -> list[Plot]:
    """Return histograms of the first two things that vary; a reward of 0 or 1 only repeats the success rate."""
    values = {
        "largest reward of an episode": [r.max_reward for r in summary.results],
        "return (sum of rewards)": [r.return_ for r in summary.results],
        "steps of an episode": [float(r.steps) for r in summary.results],
    }
    if values["return (sum of rewards)"] == values["largest reward of an episode"]:
        del values["return (sum of rewards)"]
    return [_value_plot(v, label) for label, v in values.items() if len(set(v)) > 2][:2]


def _value_plot(values: Sequence[float], label: str) -> Plot:
    counts, edges = np.histogram(np.asarray(values, dtype=np.float64), bins=24)
    marks = {"mean": float(np.mean(values))}
    return Plot(plots.histogram(edges.tolist(), counts.tolist(), x_label=label, marks=marks))


def _videos(summary: EvaluationSummary, folder: Path, count: int) -> list[Video]:
    """Return the first videos; a video's name ends in its seed."""
    by_seed = {result.seed: result for result in summary.results}
    found = []
    for name in summary.videos[:count]:
        result = by_seed[int(Path(name).stem.rsplit("_", 1)[1])]
        found.append(Video(folder / name, f"seed {result.seed}, {result.steps} steps", result.success))
    return found


def _episode_table(summary: EvaluationSummary) -> Table:
    header = ("seed", "success", "return", "max reward", "steps", "ended", "seconds", "inference p50 [ms]")
    rows = [
        (r.seed, r.success, r.return_, r.max_reward, r.steps, "terminated" if r.terminated else "truncated",
         r.seconds, r.inference_p50_ms)
        for r in summary.results
    ]  # fmt: skip
    return Table(header, rows, caption=f"All {len(rows)} episodes by seed", folded=len(rows) > 12)


def learning_section(metrics_file: str | Path, *, curves: Mapping[str, Sequence[str]] = CURVES) -> Section:
    """Return the learning curve of a run, one plot for each group of metrics that the run has.

    Args:
        metrics_file: The run's `metrics.jsonl`.
        curves: Metrics to draw together, by axis title.
    """
    records = read_metrics(metrics_file)
    blocks: list[Block] = []
    for title, names in curves.items():
        series = {name: _metric(records, name) for name in names}
        series = {name: pair for name, pair in series.items() if any(math.isfinite(y) and y > 0 for y in pair[1])}
        if series:
            blocks.append(Plot(plots.lines(series, x_label="step", y_label=title, log_y=True)))
    if not blocks:
        blocks.append(Text(f"{Path(metrics_file).name} holds none of {sorted(n for g in curves.values() for n in g)}."))
    return Section("Learning curve", blocks)


def _metric(records: Sequence[Mapping[str, Any]], name: str) -> plots.Series:
    rows = [record for record in records if record.get(name) is not None]
    return [float(row["step"]) for row in rows], [float(row[name]) for row in rows]


def latency_section(
    report: Mapping[str, Any], *, title: str = "Control loop", shown: Sequence[str] = LATENCIES, bars: int = 40
) -> Section:
    """Return what a control loop's report says: latencies as plots and rows, counts as facts.

    Args:
        report: `LoopReport.to_dict()`.
        title: Title of the section.
        shown: Which latencies to plot; all of them stand in the table.
        bars: Bars of a plot, at most.

    Raises:
        ConfigError: `report` has no latencies.
    """
    if "latency" not in report:
        raise ConfigError(f"a loop report holds `latency`, got {sorted(report)}; pass LoopReport.to_dict()")
    found = {name: value for name, value in report["latency"].items() if value["count"] > 0}
    keys = ("count", "mean_ms", "p50_ms", "p99_ms", "max_ms")
    rows = [(_words(name), *(value[key] for key in keys)) for name, value in found.items()]
    blocks: list[Block] = [_latency_plot(name, found[name], bars) for name in shown if name in found]
    blocks.append(Table(("", "count", "mean [ms]", "p50 [ms]", "p99 [ms]", "max [ms]"), rows))
    return Section(title, [*blocks, Facts(_loop_facts(report))])


def _loop_facts(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values of a loop report, those of an inner dict under both names."""
    facts: dict[str, Any] = {}
    for name, value in report.items():
        if isinstance(value, Mapping) and name != "latency":
            facts |= {f"{_words(name)}: {_words(inner)}": x for inner, x in value.items()}
        elif name != "latency":
            facts[_words(name)] = value
    return facts


def _words(name: str) -> str:
    return name.replace("_", " ")


def _latency_plot(name: str, value: Mapping[str, Any], bars: int) -> Plot:
    """Draw the buckets of a logarithmic histogram, several to a bar: whole buckets, or the bars would alias."""
    uppers = np.log10(np.asarray(value["edges_ms"], dtype=np.float64))
    bucket = float(np.diff(uppers).min()) if len(uppers) > 1 else 0.01
    of_bucket = np.round((uppers - uppers[0]) / bucket).astype(int)
    per_bar = int(of_bucket[-1]) // bars + 1
    counts = np.bincount(of_bucket // per_bar, weights=np.asarray(value["counts"]))
    edges = 10.0 ** (uppers[0] + bucket * (per_bar * np.arange(len(counts) + 1) - 1))
    marks = {key: float(value[f"{key}_ms"]) for key in ("p50", "p99", "max")}
    svg = plots.histogram(
        edges.tolist(), [int(c) for c in counts], x_label=f"{_words(name)} [ms]", y_label="count",
        marks=marks, log_x=True,
    )  # fmt: skip
    return Plot(svg)


def data_section(facts: Mapping[str, Any], *, note: str = "") -> Section:
    """Return facts about the data, in the order given."""
    return Section("Data", [*([Text(note)] if note else []), Facts(facts)])


def configuration_section(config: Mapping[str, Any] | str, *, command: str = "") -> Section:
    """Return how to run it again: the command, and the whole configuration behind a fold."""
    text = config if isinstance(config, str) else json.dumps(config, indent=2, default=str)
    blocks: list[Block] = [Code(command, "Run it again with:")] if command else []
    return Section("Configuration", [*blocks, Code(text, "Whole configuration", folded=True)])
