"""The sections of a fine-tuning report: success before and after, curves over environment steps, what to watch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from robot_rl.cli.config import to_yaml
from robot_rl.evaluation import plots
from robot_rl.evaluation.report import Block, Code, Plot, Section, Table
from robot_rl.evaluation.report_sections import evaluation_sections
from robot_rl.evaluation.statistics import paired_success
from robot_rl.evaluation.summary import EvaluationSummary
from robot_rl.metrics import METRICS_FILE, read_metrics

CURVES: Mapping[str, tuple[str, Sequence[str]]] = {
    "success of the last 20 episodes, exploring": ("share", ("online/success",)),
    "values against the largest there can be": ("value", ("critic/q_mean", "critic/q_max", "critic/bound")),
    "residual: mean size and share at its bound": ("share of the bound", ("residual/mean", "residual/saturated")),
    "updates per environment step": ("UTD", ("learner/utd",)),
    "updates between the learner's weights and the actor's": ("updates", ("learner/lag",)),
    "who drove": ("share of steps", ("online/intervention_rate",)),
    "entropy": ("nats", ("actor/entropy",)),
    "success on the evaluation seeds": ("share", ("eval/success", "eval/success_exploring")),
    "divergence of an update, per denoising step": ("k3", ("ppo/kl", "ppo/kl_noisiest", "ppo/kl_last")),
    "ratios outside their clip range": ("share", ("ppo/clip_fraction",)),
    "variance of the returns that the critic explains": ("share", ("critic/explained_variance",)),
}


def sections(out: Path, summaries: Mapping[str, EvaluationSummary], config: DictConfig) -> list[Section]:
    """Return the report's sections.

    Args:
        out: The run's folder.
        summaries: Evaluations by name, `fine-tuned` among them.
        config: The run's configuration.
    """
    final = summaries["fine-tuned"]
    folder = out / "evaluate" / final.meta.policy_id.replace("@", "_")
    return [
        *_before_and_after(summaries),
        *evaluation_sections(final, folder=folder),
        Section("Learning", learning_blocks(out)),
        Section("Configuration", [Code(to_yaml(config), caption="As it ran", folded=True)]),
    ]


def _before_and_after(summaries: Mapping[str, EvaluationSummary]) -> list[Section]:
    if "base" not in summaries:
        return []
    after, before = summaries["fine-tuned"], summaries["base"]
    paired = paired_success([r.success for r in after.results], [r.success for r in before.results])
    rows = {"base": before.success, "fine-tuned": after.success}
    table = Table(
        ("difference", "only fine-tuned", "only base", "p (McNemar, exact)"),
        [(paired.difference, paired.only_first, paired.only_second, paired.p_value)],
        caption="The same seeds for both",
    )
    return [
        Section("Before and after", [Plot(plots.intervals(rows), "Success with exact intervals.", wide=True), table])
    ]


def learning_blocks(out: Path) -> list[Block]:
    """Return one plot for each group of metrics that the run has, over environment steps."""
    records = read_metrics(out / METRICS_FILE)
    blocks: list[Block] = []
    curve = out / "curve" / METRICS_FILE
    if curve.is_file() and (points := read_metrics(curve)):
        series = {"eval/success": ([float(p["step"]) for p in points], [float(p["eval/success"]) for p in points])}
        blocks.append(Plot(plots.lines(series, x_label="environment steps", y_label="success, deterministic")))
    for caption, (label, names) in CURVES.items():
        series = {name: pair for name in names if _drawable(pair := _series(records, name))}
        if series:
            blocks.append(Plot(plots.lines(series, x_label="environment steps", y_label=label), caption))
    return blocks


def _series(records: Sequence[Mapping[str, Any]], name: str) -> plots.Series:
    rows = [record for record in records if record.get(name) is not None and record.get("online/steps") is not None]
    return [float(row["online/steps"]) for row in rows], [float(row[name]) for row in rows]


def _drawable(series: plots.Series) -> bool:
    return any(math.isfinite(y) for y in series[1])
