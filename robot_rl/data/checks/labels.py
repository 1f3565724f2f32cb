"""Labels against each other and against the rest of the store: outcomes, tasks, sources, lengths, rewards."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_rl.data.checks.finding import Finding
from robot_rl.data.checks.thresholds import Thresholds
from robot_rl.data.checks.view import EpisodeView, counted

_MIN_FOR_LENGTH = 5


@dataclass(frozen=True, kw_only=True)
class Label:
    """What is said about one episode, and the figures it is compared with.

    Args:
        id: The episode.
        task: What was attempted.
        outcome: How it ended, as labelled.
        source: Who acted.
        steps: Ticks.
        seconds: Duration.
        human: Share of ticks with a person driving; `None` where that was not recorded.
        best: Largest reward; `None` where none was recorded.
        sparse: All rewards are zero or one.
        both: Labelled terminated and truncated.
    """

    id: str
    task: str
    outcome: str
    source: str
    steps: int
    seconds: float
    human: float | None
    best: float | None
    sparse: bool
    both: bool

    @classmethod
    def of(cls, view: EpisodeView) -> Label:
        """Return an episode's label."""
        meta, streams, reward = view.recording.meta, view.recording.streams, np.asarray(view.episode.reward)
        return cls(
            id=view.id, task=meta.task, outcome=meta.outcome, source=meta.source, steps=len(view.action),
            seconds=view.seconds, human=float(view.episode.by_human.mean()) if "by_human" in streams else None,
            best=float(reward.max()) if "reward" in streams else None, sparse=bool(np.isin(reward, (0.0, 1.0)).all()),
            both=meta.terminated and meta.truncated,
        )  # fmt: skip


def check_labels(labels: Sequence[Label], thresholds: Thresholds) -> list[Finding]:
    """Return what is wrong with the labels."""
    return [
        *_outcomes(labels), *_spellings(labels), *_rare_tasks(labels, thresholds), *_lengths(labels, thresholds),
        *_rewards(labels), *_endings(labels),
    ]  # fmt: skip


def _outcomes(labels: Sequence[Label]) -> list[Finding]:
    counts = Counter(label.outcome for label in labels)
    unknown = counts["unknown"]
    if not unknown or unknown == len(labels):
        return []
    return [
        Finding(
            check="outcomes", severity="warn", value=float(unknown), threshold=0.0, unit="episodes",
            what=f"{unknown} of {len(labels)} episodes have no outcome ({counted(counts)})",
            advice="label them, or leave them out where outcomes are used",
        )
    ]  # fmt: skip


def _spellings(labels: Sequence[Label]) -> list[Finding]:
    """Tasks that differ only in case, spaces or punctuation are meant to be one."""
    alike: dict[str, Counter[str]] = defaultdict(Counter)
    for label in labels:
        alike["".join(c for c in label.task.casefold() if c.isalnum())][label.task] += 1
    return [
        Finding(
            check="task_spelling", severity="warn", value=float(len(names)), threshold=1.0, unit="spellings",
            what=f"one task in {len(names)} spellings: {', '.join(f'{n!r} ({c})' for n, c in names.most_common())}",
            advice="relabel them alike",
        )
        for names in alike.values()
        if len(names) > 1
    ]  # fmt: skip


def _rare_tasks(labels: Sequence[Label], thresholds: Thresholds) -> list[Finding]:
    counts = Counter(label.task for label in labels)
    most = max(counts.values(), default=0)
    return [
        Finding(
            check="task_balance", severity="warn", value=n / most, threshold=thresholds.rare_task, unit="share",
            what=f"task {task!r} has {n} episodes, the most frequent task {most}",
            advice="record more of it, or weigh the tasks when training",
        )
        for task, n in counts.items()
        if n < thresholds.rare_task * most
    ]  # fmt: skip


def _lengths(labels: Sequence[Label], thresholds: Thresholds) -> list[Finding]:
    findings = [
        Finding(
            check="short", severity="fail" if label.steps < 2 else "warn", value=float(label.steps), unit="steps",
            threshold=float(thresholds.min_steps), what=f"{label.steps} steps long", advice="delete it",
            episode=label.id,
        )
        for label in labels
        if label.steps < thresholds.min_steps
    ]  # fmt: skip
    by_task: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        by_task[label.task].append(label)
    for own in by_task.values():
        findings += _outliers(own, thresholds) if len(own) >= _MIN_FOR_LENGTH else []
    return findings


def _outliers(labels: Sequence[Label], thresholds: Thresholds) -> list[Finding]:
    log = np.log([max(1, label.steps) for label in labels])
    middle = float(np.median(log))
    spread = thresholds.length_deviations * 1.4826 * float(np.median(np.abs(log - middle)))
    limit = max(float(np.log(thresholds.length_factor)), spread)
    return [
        Finding(
            check="length", severity="warn", value=float(label.steps), unit="steps", episode=label.id,
            threshold=round(float(np.exp(middle + np.sign(own - middle) * limit)), 1),
            what=f"{label.steps} steps, the median of its task is {np.exp(middle):.0f}",
            advice="look at it: stopped too early, left running, or another task",
        )
        for label, own in zip(labels, log, strict=True)
        if abs(own - middle) > limit and label.steps >= thresholds.min_steps
    ]  # fmt: skip


def _rewards(labels: Sequence[Label]) -> list[Finding]:
    """Where all rewards are 0 or 1 and some success has a 1, a success has one and a failure has none."""
    rewarded = [label for label in labels if label.best is not None]
    if not all(label.sparse for label in rewarded):
        return []
    if not any(label.best == 1.0 and label.outcome == "success" for label in rewarded):
        return []
    return [
        Finding(
            check="reward", severity="warn", value=label.best, unit="reward",
            threshold=float(label.outcome == "success"),
            what=f"labelled {label.outcome}, and its largest reward is {label.best:g}", episode=label.id,
            advice="look how it ended; relabel the outcome or recompute the reward",
        )
        for label in rewarded
        if (label.outcome, label.best) in (("success", 0.0), ("failure", 1.0))
    ]  # fmt: skip


def _endings(labels: Sequence[Label]) -> list[Finding]:
    return [
        Finding(
            check="ending", severity="warn", what="labelled terminated and truncated at once", episode=label.id,
            advice="decide whether what follows has value (truncated) or none (terminated); returns depend on it",
        )
        for label in labels
        if label.both
    ]  # fmt: skip


def label_measures(labels: Sequence[Label]) -> dict[str, Any]:
    """Return how the labels are spread as plain JSON."""
    human = [(label.human, label.steps) for label in labels if label.human is not None]
    steps = sum(n for _, n in human)
    return {
        **{name: dict(Counter(getattr(label, name) for label in labels)) for name in ("outcome", "task", "source")},
        "by_human": round(sum(share * n for share, n in human) / steps, 4) if steps else None,
        "seconds": [round(label.seconds, 3) for label in labels],
    }
