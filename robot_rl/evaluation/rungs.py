"""The rungs of the promotion ladder: each a list of checks, each check a figure against a limit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.values import RecordingMeta


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

    Trials after the last one needed are not looked at, and an abort is for good: later successes do not undo it.
    """
    successes = failures = stops = n = 0
    for meta in metas:
        if meta.outcome == "unknown":
            continue
        n, stops = n + 1, stops + bool(meta.extra.get("safety_stop", False))
        successes, failures = successes + (meta.outcome == "success"), failures + (meta.outcome == "failure")
        if failures >= limits.max_failures or stops >= limits.max_stops or n == limits.trials:
            break
    checks = [
        Check.at_most("safety stops", stops, limits.max_stops - 1, "safety stops"),
        Check.at_most("failures", failures, limits.max_failures - 1, "failures"),
        Check("trials", n >= limits.trials, f"{n} labelled trials; {limits.trials} needed"),
    ]
    figures = {"trials": n, "successes": successes, "failures": failures, "stops": stops}
    return RungResult.of("supervised", checks, figures)


def supervised_trials(store: EpisodeStore, bundle_id: str) -> list[RecordingMeta]:
    """Return the store's episodes that a bundle drove, oldest first."""
    driven = [entry.id for entry in store.entries() if entry.policy_version == bundle_id]
    return [store.read(id).meta for id in driven]
