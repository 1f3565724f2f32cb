"""What an offline run tells: success before and after on the same seeds, and every decision of the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from robot_rl.cli.config import to_yaml
from robot_rl.cli.finetune_judge import Subject, judge_all, write_outcome
from robot_rl.cli.model_card import ModelCard, torch_policy
from robot_rl.evaluation import plots
from robot_rl.evaluation.gate_sections import gate_section
from robot_rl.evaluation.report import Code, Plot, Section, Table
from robot_rl.evaluation.report_sections import evaluation_sections
from robot_rl.evaluation.statistics import paired_success
from robot_rl.evaluation.summary import EvaluationSummary
from robot_rl.imitation.checkpoint import read_state
from robot_rl.rl.offline.gate import LOG, read_log


def judge(config: DictConfig, base_id: str, out: Path, console: Console) -> dict[str, EvaluationSummary]:
    """Evaluate the improved policy, where it began, and its base, on the same unseen seeds.

    Returns nothing where the task has no simulation or no episodes are asked for.
    """
    if config.task.env is None or int(config.evaluate.episodes) == 0:
        return {}
    digest = read_state(out / "checkpoints" / "last")["files"]["ema.safetensors"][:16]
    subjects = {
        "improved": Subject(f"run-{digest}", partial(torch_policy, str(out)), videos=True),
        "imitation": Subject(f"{base_id}-chain", partial(torch_policy, str(out / "imitation"))),
        "base": Subject(base_id, partial(torch_policy, str(config.base))),
    }
    return judge_all(config, subjects, out, console)


def write_summary(
    config: DictConfig, card: ModelCard, base_id: str, out: Path, summaries: Mapping[str, EvaluationSummary],
    console: Console,
) -> Path:  # fmt: skip
    """Write summary.json and report.html and return the report's path."""
    decisions = read_log(out / LOG)
    facts = {
        "base": base_id, "data_digest": card.data_digest,
        "accepted": sum(d["accepted"] for d in decisions), "rejected": sum(not d["accepted"] for d in decisions),
    }  # fmt: skip
    subtitle = summaries["improved"].headline() if summaries else "not evaluated: the task has no simulation"
    return write_outcome(
        out, summaries, console, facts=facts, title=f"Offline improvement of {card.task} by {config.algo.name}",
        subtitle=subtitle, sections=_sections(config, out, summaries, decisions),
    )  # fmt: skip


def _sections(
    config: DictConfig, out: Path, summaries: Mapping[str, EvaluationSummary], decisions: Sequence[Mapping[str, Any]]
) -> list[Section]:
    found = [gate_section(decisions), Section("Configuration", [Code(to_yaml(config), "As it ran", folded=True)])]
    if not summaries:
        return found
    improved = summaries["improved"]
    rows = []
    for name in ("imitation", "base"):
        paired = paired_success([r.success for r in improved.results], [r.success for r in summaries[name].results])
        rows.append((name, paired.difference, paired.only_first, paired.only_second, paired.p_value))
    before = Section("Before and after", [
        Plot(plots.intervals({name: s.success for name, s in summaries.items()}), "Success with exact intervals. "
             "`imitation` is the base sampled as the improved policy is.", wide=True),
        Table(("against", "difference", "only improved", "only the other", "p (McNemar, exact)"), rows,
              caption="The same seeds for all"),
    ])  # fmt: skip
    folder = out / "evaluate" / improved.meta.policy_id
    return [before, *evaluation_sections(improved, folder=folder), *found]
