"""What the figures of a recording's streams mean: fine, worth a look, or not to be learned from, with the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from robot_rl.data.quality import Expected, Figures, StreamMonitor

Level = Literal["ok", "warn", "error"]
LEVELS: tuple[Level, ...] = ("ok", "warn", "error")

RATE_WARN, RATE_ERROR = 0.1, 0.5
"""Share of the expected rate that may lack (or be too much) before it is worth a look, and before it is an error."""
JITTER_WARN = 0.5
"""Share of a period."""
LOSS_ERROR = 0.01
"""Share of the samples."""
MAX_SKEW_MS = 50.0
MAX_LATENCY_MS = 100.0
MAX_FUTURE_MS = 5.0

_Finding = tuple[Level, str]


@dataclass(frozen=True, kw_only=True)
class StreamVerdict:
    """One stream judged: its level, why, and the figures behind it."""

    stream: str
    level: Level
    reasons: tuple[str, ...]
    figures: Figures

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"level": self.level, "reasons": list(self.reasons), **asdict(self.figures)}


def worst(verdicts: Mapping[str, StreamVerdict]) -> Level:
    """Return the worst level of all streams."""
    return max((v.level for v in verdicts.values()), key=LEVELS.index, default="ok")


def measure(monitors: Mapping[str, StreamMonitor], monotonic_ns: int) -> dict[str, Figures]:
    """Return every stream's figures, with its skew against the others."""
    figures = {name: monitor.figures(monotonic_ns) for name, monitor in monitors.items()}
    stamped = {
        name: f.latency_p50_ms
        for name, f in figures.items()
        if f.latency_p50_ms is not None
        and not monitors[name].stamped_on_receipt
        and monitors[name].expected.rate_hz is not None
    }
    if len(stamped) > 1:
        middle = float(np.median(list(stamped.values())))
        for name, latency in stamped.items():
            figures[name] = replace(figures[name], skew_ms=round(latency - middle, 3))
    return figures


def judge(monitor: StreamMonitor, figures: Figures, *, live: bool) -> StreamVerdict:
    """Judge one stream by its figures; `live` looks at the rate of the last seconds, else at the whole episode's."""
    expected = monitor.expected
    if figures.age_ms is None or (figures.samples == 0 and not live):
        findings = _nothing(expected)
    else:
        findings = [*_silence(expected, figures), *_time(figures), *_rhythm(expected, figures, live=live)]
    findings += _losses(figures)
    if monitor.stamped_on_receipt:
        findings.append(("ok", "stamped on receipt: its messages carry no stamp of their own"))
    level: Level = max((level for level, _ in findings), key=LEVELS.index, default="ok")
    reasons = sorted(findings, key=lambda finding: -LEVELS.index(finding[0]))
    return StreamVerdict(stream=monitor.name, level=level, reasons=tuple(text for _, text in reasons), figures=figures)


def _nothing(expected: Expected) -> list[_Finding]:
    if expected.required:
        return [("error", "required, and no sample came")]
    return [] if expected.rate_hz is None else [("warn", f"no sample came, {expected.rate_hz:g} Hz expected")]


def _silence(expected: Expected, figures: Figures) -> list[_Finding]:
    limit, age = expected.stale_after_s, figures.age_ms
    if limit is None or age is None or age <= limit * 1e3:
        return []
    return [("error" if expected.required else "warn", f"silent for {age / 1e3:.2f} s, stale after {limit:g} s")]


def _rhythm(expected: Expected, figures: Figures, *, live: bool) -> list[_Finding]:
    found: list[_Finding] = []
    wanted, got = expected.rate_hz, figures.recent_hz if live else figures.rate_hz
    if wanted is not None and got is not None and abs(got - wanted) > RATE_WARN * wanted:
        found.append(("error" if got < RATE_ERROR * wanted else "warn", f"rate {got:.1f} Hz, {wanted:g} Hz expected"))
    found += _gaps(expected, figures)
    if wanted is not None and figures.jitter_ms is not None and figures.jitter_ms > JITTER_WARN * 1e3 / wanted:
        found.append(("warn", f"jitter {figures.jitter_ms:.1f} ms (p95) at a period of {1e3 / wanted:.1f} ms"))
    return found


def _gaps(expected: Expected, figures: Figures) -> list[_Finding]:
    """A gap in a required stream is an error where it outlasts the stream's time-out: the arm had to stop."""
    if not figures.gaps:
        return []
    word, limit = "gap" if figures.gaps == 1 else "gaps", expected.stale_after_s
    stale = expected.required and limit is not None and figures.longest_gap_ms > limit * 1e3
    text = f"{figures.gaps} {word}, the longest {figures.longest_gap_ms / 1e3:.3f} s"
    more = f", about {figures.missing} samples missing" if figures.missing else ""
    return [("error" if stale else "warn", text + more)]


def _time(figures: Figures) -> list[_Finding]:
    found: list[_Finding] = []
    latency, skew = figures.latency_p50_ms, figures.skew_ms
    if figures.clock_jumps:
        word = "time" if figures.clock_jumps == 1 else "times"
        text = f"its clock jumped {figures.clock_jumps} {word}, by up to {figures.largest_jump_ms / 1e3:+.3f} s"
        found.append(("error", text))
    if latency is not None and latency < -MAX_FUTURE_MS:
        found.append(("warn", f"stamps lie {-latency:.0f} ms in the future: synchronise the clocks"))
    if latency is not None and latency > MAX_LATENCY_MS:
        found.append(("warn", f"received {latency:.0f} ms after its stamp (median)"))
    if skew is not None and abs(skew) > MAX_SKEW_MS:
        found.append(("warn", f"skew of {skew:+.0f} ms against the other streams"))
    return found


def _losses(figures: Figures) -> list[_Finding]:
    found: list[_Finding] = []
    total = max(1, figures.samples + figures.lost)
    if figures.lost:
        level: Level = "error" if figures.lost > LOSS_ERROR * total else "warn"
        found.append((level, f"{figures.lost} messages lost between publisher and recorder"))
    for reason, count in sorted(figures.dropped.items()):
        found.append(("error" if count > LOSS_ERROR * total else "warn", f"{count} not stored: {reason}"))
    return found
