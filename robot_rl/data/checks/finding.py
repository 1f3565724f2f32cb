"""What a check says: one finding, and the verdicts that findings add up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

FORMAT_VERSION = 1
"""Of `check.json`."""

Severity = Literal["ok", "warn", "fail"]
SEVERITIES: tuple[Severity, ...] = ("ok", "warn", "fail")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a check saw.

    Args:
        check: Which check.
        severity: `ok` is worth knowing, `warn` worth a look, `fail` should not be learned from as it is.
        what: What was found, in a sentence.
        advice: What to do about it.
        value: The measured number, in `unit`.
        threshold: The number it was compared with, in `unit`.
        unit: SI unit or `share`, `frames`.
        stream: The stream it is about; empty for the whole episode.
        element: The element of a sample, flattened; `None` for the whole stream.
        start_s: Where it begins, in seconds from the start of the episode.
        end_s: Where it ends.
        episode: The episode's id; empty for the store as a whole.
    """

    check: str
    severity: Severity
    what: str
    advice: str = ""
    value: float | None = None
    threshold: float | None = None
    unit: str = ""
    stream: str = ""
    element: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    episode: str = ""

    @property
    def where(self) -> str:
        """Stream, element and time as a message shows them."""
        element = "" if self.element is None else f"[{self.element}]"
        time = "" if self.start_s is None else f" at {self.start_s:.2f} s"
        return f"{self.stream}{element}{time}".strip()


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the worst severity, `ok` without findings."""
    return max((f.severity for f in findings), key=SEVERITIES.index, default="ok")


@dataclass(frozen=True, kw_only=True)
class EpisodeVerdict:
    """One episode judged.

    Args:
        id: The episode.
        task: What was attempted.
        outcome: As labelled.
        steps: Ticks of the control clock; 0 when it cannot be read.
        seconds: Its duration.
        recorder: The level that the recorder gave while the operator was there; empty when none did.
        findings: What was found in it.
    """

    id: str
    task: str
    outcome: str
    steps: int
    seconds: float
    recorder: str = ""
    findings: Sequence[Finding] = ()

    @property
    def severity(self) -> Severity:
        """The worst of its findings."""
        return worst(self.findings)


@dataclass(frozen=True, kw_only=True)
class StoreVerdict:
    """A store judged.

    Args:
        store: Its URL.
        digest: Which data: SHA-256 of all ids and checksums.
        episodes: One verdict each, in the order of ids.
        findings: About the store as a whole.
        measures: What was measured, as plain JSON: rates, lags, ranges, pictures, labels.
        thresholds: What it was compared with.
    """

    store: str
    digest: str
    episodes: Sequence[EpisodeVerdict]
    findings: Sequence[Finding]
    measures: Mapping[str, Any] = field(default_factory=dict)
    thresholds: Mapping[str, Any] = field(default_factory=dict)

    @property
    def everything(self) -> list[Finding]:
        """All findings, the store's first."""
        return [*self.findings, *(finding for episode in self.episodes for finding in episode.findings)]

    @property
    def severity(self) -> Severity:
        """The worst of all findings."""
        return worst(self.everything)

    def exit_status(self, *, strict: bool = False) -> int:
        """Return 0 when fine, 1 for warnings when `strict`, 3 when something failed; 2 is a refused request."""
        return {"ok": 0, "warn": int(strict), "fail": 3}[self.severity]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: the content of `check.json`."""
        counts = {level: sum(e.severity == level for e in self.episodes) for level in SEVERITIES}
        return {
            "format_version": FORMAT_VERSION,
            "store": self.store,
            "digest": self.digest,
            "severity": self.severity,
            "counts": {"episodes": len(self.episodes), **counts},
            "findings": [asdict(f) for f in self.findings],
            "episodes": [
                {**asdict(e), "severity": e.severity, "findings": [asdict(f) for f in e.findings]}
                for e in self.episodes
            ],
            "measures": dict(self.measures),
            "thresholds": dict(self.thresholds),
        }
