"""What an evaluation says: counts and means with intervals, every seed, and all it takes to run it again."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robot_rl import __version__
from robot_rl.errors import ConfigError
from robot_rl.evaluation.rollouts import EpisodeResult
from robot_rl.evaluation.statistics import Interval, bootstrap_mean, clopper_pearson
from robot_rl.files import replace_text

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class EvaluationMeta:
    """What is evaluated and how, in words and plain JSON.

    Args:
        task: Name of the task.
        policy_id: Bundle id, or any name that tells this policy from others.
        env: Configuration of the environment.
        command: Command line that runs this evaluation.
        code_version: Version of the code, with the commit where known.
    """

    task: str = ""
    policy_id: str = ""
    env: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    code_version: str = __version__

    def identity(self) -> dict[str, Any]:
        """Return the part that must agree before results may be added up."""
        return {"task": self.task, "policy_id": self.policy_id, "env": dict(self.env)}


@dataclass(frozen=True, kw_only=True)
class EvaluationSummary:
    """Results of an evaluation, in the order of its seeds.

    `wall_s` is the wall time of the last run and `steps_per_s` the control steps per second of one worker, over all
    episodes: with a resumed evaluation the first covers fewer episodes than the second.
    """

    meta: EvaluationMeta
    results: tuple[EpisodeResult, ...]
    success: Interval
    return_: Interval
    max_reward: Interval
    wall_s: float
    steps_per_s: float
    workers: int
    date: str
    machine: str
    videos: tuple[str, ...] = ()

    @property
    def successes(self) -> int:
        """How many episodes succeeded."""
        return sum(result.success for result in self.results)

    def headline(self) -> str:
        """Return success in one line, with its interval in per cent."""
        s = self.success
        return (
            f"{self.successes}/{len(self.results)} succeeded: {100 * s.value:.1f} % "
            f"({100 * s.level:g} % interval {100 * s.low:.1f} to {100 * s.high:.1f} %)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "format_version": FORMAT_VERSION,
            "headline": self.headline(),
            "meta": asdict(self.meta),
            "successes": self.successes,
            "episodes": len(self.results),
            "success": self.success.to_dict(),
            "return": self.return_.to_dict(),
            "max_reward": self.max_reward.to_dict(),
            "wall_s": self.wall_s,
            "steps_per_s": self.steps_per_s,
            "workers": self.workers,
            "date": self.date,
            "machine": self.machine,
            "videos": list(self.videos),
            "results": [result.to_dict() for result in self.results],
        }

    def write(self, path: str | Path) -> Path:
        """Write `summary.json`, whole or not at all, and return its path."""
        return replace_text(path, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> EvaluationSummary:
        """Read what `write` wrote.

        Raises:
            ConfigError: Another format version.
        """
        data = json.loads(Path(path).read_text())
        if data.get("format_version") != FORMAT_VERSION:
            raise ConfigError(
                f"{path}: `format_version` must be {FORMAT_VERSION}, got {data.get('format_version')!r}; "
                "evaluate again with this version of robot_rl"
            )
        return cls(
            meta=EvaluationMeta(**data["meta"]),
            results=tuple(EpisodeResult.from_dict(row) for row in data["results"]),
            success=Interval.from_dict(data["success"]),
            return_=Interval.from_dict(data["return"]),
            max_reward=Interval.from_dict(data["max_reward"]),
            videos=tuple(data["videos"]),
            **{key: data[key] for key in ("wall_s", "steps_per_s", "workers", "date", "machine")},
        )


def summarise(
    results: Sequence[EpisodeResult],
    meta: EvaluationMeta,
    *,
    wall_s: float,
    workers: int = 1,
    level: float = 0.95,
    videos: Sequence[str] = (),
) -> EvaluationSummary:
    """Return the summary of results that are all there: exact binomial interval, bootstrapped means.

    Raises:
        ConfigError: No results.
    """
    if not results:
        raise ConfigError("an evaluation needs at least one episode, got none")
    seconds = sum(result.seconds for result in results)
    return EvaluationSummary(
        meta=meta,
        results=tuple(results),
        success=clopper_pearson(sum(result.success for result in results), len(results), level=level),
        return_=bootstrap_mean([result.return_ for result in results], level=level),
        max_reward=bootstrap_mean([result.max_reward for result in results], level=level),
        wall_s=wall_s,
        steps_per_s=sum(result.steps for result in results) / seconds,
        workers=workers,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        videos=tuple(videos),
    )
