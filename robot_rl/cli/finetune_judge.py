"""What every kind of fine-tuning ends with: policies evaluated on the same unseen seeds, a summary and a report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress, TaskID

from robot_rl.cli.evaluate_command import environment
from robot_rl.cli.progress import bar
from robot_rl.evaluation.parallel import evaluate
from robot_rl.evaluation.report import Section, write_report
from robot_rl.evaluation.rollouts import EpisodeResult
from robot_rl.evaluation.summary import EvaluationMeta, EvaluationSummary
from robot_rl.imitation.summary import write_json
from robot_rl.interfaces import Policy


@dataclass(frozen=True)
class Subject:
    """A policy to evaluate.

    Args:
        id: What tells it from others; names its folder of results, from which it continues.
        make: Opens it, in a worker's process.
        videos: Whether pictures of its episodes are kept, as many as `evaluate.video_episodes` says.
    """

    id: str
    make: Callable[[], Policy]
    videos: bool = False


def judge_all(
    config: DictConfig, subjects: Mapping[str, Subject], out: Path, console: Console
) -> dict[str, EvaluationSummary]:
    """Evaluate policies by name on `evaluate.episodes` seeds, as late as `finetune.latency` says; print each result.

    Args:
        config: The configuration.
        subjects: The policies.
        out: Results go to its `evaluate/`.
        console: Where progress is shown.
    """
    first, count = int(config.evaluate.first_seed), int(config.evaluate.episodes)
    env, make_env = environment(config, config.finetune.latency)
    summaries = {}
    for name, subject in subjects.items():
        with bar(console) as progress:
            task = progress.add_task(f"evaluating the {name} policy", total=count)

            def show(result: EpisodeResult, progress: Progress = progress, task: TaskID = task) -> None:
                progress.advance(task)

            summaries[name] = evaluate(
                make_env, subject.make, range(first, first + count),
                workers=config.evaluate.workers, on_result=show,
                out_dir=out / "evaluate" / subject.id.replace("@", "_"),
                video_episodes=config.evaluate.video_episodes if subject.videos else 0,
                meta=EvaluationMeta(
                    task=config.task.name, policy_id=subject.id, env=env,
                    command=shlex.join(["robot-rl", *sys.argv[1:]]),
                ),
            )  # fmt: skip
        console.print(f"{name}: {summaries[name].headline()}")
    return summaries


def write_outcome(
    out: Path,
    summaries: Mapping[str, EvaluationSummary],
    console: Console,
    *,
    facts: Mapping[str, Any],
    title: str,
    subtitle: str,
    sections: Sequence[Section],
) -> Path:
    """Write summary.json, from facts and each policy's success, and report.html; return the report's path."""
    successes = {name: {"success": asdict(s.success), "successes": s.successes} for name, s in summaries.items()}
    write_json(out / "summary.json", {**facts, **successes})
    report = write_report(out / "report.html", title=title, subtitle=subtitle, sections=sections)
    console.print(f"report: {report}")
    return report
