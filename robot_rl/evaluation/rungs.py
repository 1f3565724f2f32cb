"""The rungs of the promotion ladder: each a list of checks, each check a figure against a limit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from robot_rl.data.store import EpisodeStore
from robot_rl.deploy.takeover import was_taken_over
from robot_rl.errors import ConfigError
from robot_rl.values import Recording, RecordingMeta


@dataclass(frozen=True)
class Check:
    """One figure and what it had to be.

    Args:
        name: What was checked.
        ok: Whether it held.
        said: The figure and its limit, in words.
    """

    name: str
    ok: bool
    said: str

    @classmethod
    def at_most(cls, name: str, value: float, limit: float | None, what: str) -> Check:
        """Check an upper limit; without one the figure is only told. NaN holds no limit."""
        if limit is None:
            return cls(name, True, f"{value:.4g} {what}; not limited")
        return cls(name, value <= limit, f"{value:.4g} {what}; at most {limit:g} allowed")


@dataclass(frozen=True)
class RungResult:
    """How a bundle did on one rung.

    Args:
        rung: `replay`, `simulation`, `incumbent` or `supervised`.
        ok: Whether every check held.
        checks: The checks.
        figures: Plain JSON for the record and the report.
    """

    rung: str
    ok: bool
    checks: tuple[Check, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, rung: str, checks: Sequence[Check], figures: Mapping[str, Any]) -> RungResult:
        """Return the result of these checks."""
        return cls(rung, all(check.ok for check in checks), tuple(checks), dict(figures))

    @property
    def reason(self) -> str:
        """Why it failed; empty if it did not."""
        return "; ".join(f"{check.name}: {check.said}" for check in self.checks if not check.ok)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; figures that are not finite become `None`."""
        figures = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in self.figures.items()}
        return {"rung": self.rung, "ok": self.ok, "checks": [asdict(c) for c in self.checks], "figures": figures}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RungResult:
        """Build from `to_dict`'s values."""
        return cls(data["rung"], bool(data["ok"]), tuple(Check(**c) for c in data["checks"]), dict(data["figures"]))


@dataclass(frozen=True, kw_only=True)
class SupervisedLimits:
    """The first motion on hardware: slow trials beside an operator, who labels each.

    Args:
        trials: Trials needed.
        max_failures: Failures with which it is over.
        max_stops: Safety stops with which it is over.

    Raises:
        ConfigError: A number below 1.
    """

    trials: int = 5
    max_failures: int = 2
    max_stops: int = 1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {value}")


def judge_supervised(metas: Iterable[RecordingMeta], limits: SupervisedLimits) -> RungResult:
    """Judge labelled trials in the order in which they were made; unlabelled and discarded ones do not count.

    Trials after the last one needed are not looked at, and an abort is for good: later successes do not undo it. A
    trial in which a person took the arm (`extra.taken_over`) failed, however it ended.
    """
    successes = rescued = stops = n = 0
    for meta in metas:
        if meta.outcome == "unknown":
            continue
        n, stops = n + 1, stops + bool(meta.extra.get("safety_stop", False))
        won = meta.outcome == "success" and not meta.extra.get("taken_over", False)
        rescued += meta.outcome == "success" and not won
        successes += won
        if n - successes >= limits.max_failures or stops >= limits.max_stops or n == limits.trials:
            break
    failures = n - successes
    what = f"failures, {rescued} of them rescued by a person" if rescued else "failures"
    checks = [
        Check.at_most("safety stops", stops, limits.max_stops - 1, "safety stops"),
        Check.at_most("failures", failures, limits.max_failures - 1, what),
        Check("trials", n >= limits.trials, f"{n} labelled trials; {limits.trials} needed"),
    ]
    figures = {"trials": n, "successes": successes, "failures": failures, "rescued": rescued, "stops": stops}
    return RungResult.of("supervised", checks, figures)


def supervised_trials(store: EpisodeStore, bundle_id: str) -> list[RecordingMeta]:
    """Return the store's episodes that a bundle drove, oldest first; `extra.taken_over` is set where a person did."""
    driven = [store.read(entry.id) for entry in store.entries() if entry.policy_version == bundle_id]
    return [
        replace(recording.meta, extra={**recording.meta.extra, "taken_over": True}) if _taken_over(recording)
        else recording.meta for recording in driven
    ]  # fmt: skip


def _taken_over(recording: Recording) -> bool:
    """Whether the episode or its stream `by_human` says that a person took the arm from the policy, or kept it."""
    stream = recording.streams.get("by_human")
    human = [] if stream is None else np.asarray(stream.data[:], bool).ravel().tolist()
    return was_taken_over(human) or bool(recording.meta.extra.get("taken_over", False))
