"""What a success classifier's report says: how its vote did on held-out episodes, and how the threshold was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from robot_rl.cli.config import to_yaml
from robot_rl.deploy.success import ClassifierCard
from robot_rl.evaluation import plots
from robot_rl.evaluation.report import Code, Plot, Section, Table, write_report
from robot_rl.evaluation.statistics import Interval, clopper_pearson
from robot_rl.rl.success_classifier import VoteCounts
from robot_rl.rl.success_frames import TrainingFrames


def facts_of(
    votes: VoteCounts,
    frames: Mapping[str, tuple[int, int]],
    parts: tuple[Sequence[str], Sequence[str], Sequence[str]],
    data: TrainingFrames,
    *,
    control_hz: float,
) -> dict[str, Any]:
    """Return what is known of a classifier, plain JSON: intervals are exact and at 95 %."""
    return {
        "precision": _interval(votes.right, votes.fired),
        "recall": _interval(votes.right, votes.successes),
        "frames": {name: _interval(*counts) for name, counts in frames.items()},
        "delay_s": float(np.mean(votes.delay) / control_hz) if votes.delay else None,
        "votes": {"fired": votes.fired, "right": votes.right, "successes": votes.successes, "episodes": votes.episodes},
        "episodes": dict(zip(("train", "choose", "judge"), map(len, parts), strict=True)),
        "training_frames": {"positive": int(data.label.sum()), "negative": int((1 - data.label).sum())},
        "judged_on": sorted(parts[2]),
    }


def _interval(right: int, n: int) -> dict[str, Any] | None:
    return clopper_pearson(right, n).to_dict() if n else None


def headline(votes: VoteCounts) -> str:
    """Return one sentence: precision and recall on episodes that chose nothing."""

    def told(right: int, n: int) -> str:
        if n == 0:
            return "not known (none)"
        interval = clopper_pearson(right, n)
        return f"{right}/{n} [{interval.low:.2f}, {interval.high:.2f}]"

    return f"precision {told(votes.right, votes.fired)}, recall {told(votes.right, votes.successes)}"


def write_reward_report(
    out: Path, card: ClassifierCard, curve: Mapping[float, VoteCounts], losses: Sequence[float], config: DictConfig
) -> Path:
    """Write report.html into a classifier's folder and return its path."""
    facts = card.facts
    intervals = {
        name: Interval.from_dict(value)
        for name, value in (
            ("precision", facts["precision"]), ("recall", facts["recall"]),
            ("successful frames", facts["frames"]["positive"]), ("other frames", facts["frames"]["negative"]),
        ) if value is not None
    }  # fmt: skip
    known = {t: counts for t, counts in curve.items() if counts.fired}
    shares = {
        "precision": ([*known], [counts.precision for counts in known.values()]),
        "recall": ([*curve], [counts.recall for counts in curve.values()]),
    }
    every = max(1, len(losses) // 100)
    loss = {"loss": (list(range(1, len(losses) + 1, every)), [float(x) for x in losses[::every]])}
    rows = [(name, n) for name, n in {**facts["episodes"], **facts["votes"]}.items()]
    sections = [
        Section("On episodes that it never saw", [
            Plot(plots.intervals(intervals), "Of whole episodes, and of single frames. Exact intervals.", wide=True),
            Table(("episodes", "number"), rows),
        ]),
        Section("Choice of the threshold", [
            Plot(plots.lines(shares, x_label="threshold", y_label="share"), "On episodes kept apart for it."),
            Plot(plots.lines(loss, x_label="update", y_label="cross-entropy", log_y=True), "Training."),
        ]),
        Section("Configuration", [Code(to_yaml(config), caption="As it ran", folded=True)]),
    ]  # fmt: skip
    subtitle = f"threshold {card.threshold:.2f}, {card.consecutive} frames in a row"
    return write_report(
        out / "report.html", title=f"Success classifier for {config.task.name}", subtitle=subtitle, sections=sections
    )
