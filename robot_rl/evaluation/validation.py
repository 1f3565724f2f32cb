"""Proof that a bundle was tried in simulation: a record beside the bundle, bound to it by the bundle's id.

Hardware motion needs one (architecture, safety at run time); a record that does not fit its bundle is no record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from robot_rl.bundle.directory import ATTESTATIONS
from robot_rl.errors import BundleError
from robot_rl.evaluation.statistics import Interval, clopper_pearson
from robot_rl.evaluation.summary import EvaluationSummary
from robot_rl.files import replace_text

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ValidationRecord:
    """A bundle's success in simulation, seed by seed.

    Args:
        bundle_id: Id of the bundle that drove.
        task: Name of the task.
        seeds: Seeds that were played.
        succeeded: The ones that succeeded.
        success: Exact binomial interval of the success rate.
        date: UTC, ISO 8601.
        env: Configuration of the environment.
        code_version: Version of the code that evaluated.
        ladder: What `robot-rl validate` asked and found, rung by rung, with the tests' error rates; empty for a record
            of `robot-rl evaluate`.
    """

    bundle_id: str
    task: str
    seeds: tuple[int, ...]
    succeeded: tuple[int, ...]
    success: Interval
    date: str
    env: Mapping[str, Any]
    code_version: str
    ladder: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_summary(cls, summary: EvaluationSummary, bundle_id: str) -> ValidationRecord:
        """Return the record of an evaluation of this bundle.

        Raises:
            BundleError: The evaluation was of another policy.
        """
        if summary.meta.policy_id != bundle_id:
            raise BundleError(
                f"the evaluation's `policy_id` must be the bundle's id {bundle_id!r}, got {summary.meta.policy_id!r}; "
                "evaluate this bundle"
            )
        return cls(
            bundle_id=bundle_id,
            task=summary.meta.task,
            seeds=tuple(result.seed for result in summary.results),
            succeeded=tuple(result.seed for result in summary.results if result.success),
            success=summary.success,
            date=summary.date,
            env=dict(summary.meta.env),
            code_version=summary.meta.code_version,
        )

    def write(self, bundle: str | Path) -> Path:
        """Write the record into the bundle's `attestations/`, whole or not at all, and return its path.

        Raises:
            BundleError: No bundle there, or the record contradicts itself.
        """
        self.check()
        if not Path(bundle).is_dir():
            raise BundleError(f"{bundle}: no such bundle folder; validate a bundle that is on disk")
        folder = Path(bundle) / ATTESTATIONS
        folder.mkdir(exist_ok=True)
        task = re.sub(r"[^A-Za-z0-9_.]+", "_", self.task) or "task"
        date = datetime.fromisoformat(self.date).strftime("%Y%m%dT%H%M%SZ")
        path = folder / f"validation-{task}-{date}.json"
        data = {"format_version": FORMAT_VERSION, **asdict(self), "success": self.success.to_dict()}
        return replace_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: str | Path, *, bundle_id: str) -> ValidationRecord:
        """Read a record and check it.

        Raises:
            BundleError: Not a record, one of another bundle, or one whose figures contradict each other.
        """
        try:
            data = json.loads(Path(path).read_text())
            if data["format_version"] != FORMAT_VERSION:
                raise BundleError(f"{path}: `format_version` must be {FORMAT_VERSION}, got {data['format_version']!r}")
            data.setdefault("ladder", {})  # records of earlier releases have none
            values = {item.name: data[item.name] for item in fields(cls)}
            values["success"] = Interval.from_dict(values["success"])
            record = cls(**{**values, "seeds": tuple(values["seeds"]), "succeeded": tuple(values["succeeded"])})
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{path} is not a validation record: {error!r}; validate the bundle again") from error
        if record.bundle_id != bundle_id:
            raise BundleError(
                f"{path}: `bundle_id` must be {bundle_id!r}, got {record.bundle_id!r}; this record belongs to another "
                "bundle, validate this one"
            )
        record.check()
        return record

    def check(self) -> None:
        """Raise unless seeds, successes and interval agree.

        Raises:
            BundleError: Names what contradicts what.
        """
        for name in ("seeds", "succeeded"):
            if strange := [seed for seed in getattr(self, name) if type(seed) is not int]:
                raise BundleError(f"`{name}` must be whole numbers, got {strange[0]!r}; the record was altered")
        try:
            datetime.fromisoformat(self.date)
        except (ValueError, TypeError) as error:
            raise BundleError(f"`date` must be ISO 8601, got {self.date!r}; the record was altered") from error
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise BundleError(f"`seeds` must be distinct and not empty, got {len(self.seeds)} seeds")
        strangers = sorted(set(self.succeeded) - set(self.seeds))
        if strangers or len(set(self.succeeded)) != len(self.succeeded):
            raise BundleError(f"`succeeded` must be distinct members of `seeds`, got {strangers or 'one seed twice'}")
        expected = clopper_pearson(len(self.succeeded), len(self.seeds), level=self.success.level)
        for name in ("value", "low", "high"):
            if abs(getattr(expected, name) - getattr(self.success, name)) > 1e-9:
                raise BundleError(
                    f"`success.{name}` must be {getattr(expected, name):.6f} for {len(self.succeeded)} of "
                    f"{len(self.seeds)} seeds, got {getattr(self.success, name):.6f}; the record was altered"
                )


def read_validations(bundle: str | Path, *, bundle_id: str, task: str | None = None) -> list[ValidationRecord]:
    """Return the bundle's validation records, oldest first; every one of them must be sound.

    Args:
        bundle: The bundle's folder.
        bundle_id: Its id.
        task: Only records of this task.

    Raises:
        BundleError: A record is not sound.
    """
    paths = (Path(bundle) / ATTESTATIONS).glob("validation-*.json")
    records = [ValidationRecord.read(path, bundle_id=bundle_id) for path in paths]
    return sorted((r for r in records if task is None or r.task == task), key=lambda r: datetime.fromisoformat(r.date))
