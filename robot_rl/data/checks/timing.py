"""Rates, gaps, jitter and skew of the streams as recorded, by their stamps.

Limits on rate, gap and jitter are those of the recorder's verdict (`robot_rl.data.quality`, `robot_rl.data.verdict`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from robot_rl.data.checks.finding import Finding
from robot_rl.data.checks.thresholds import Thresholds
from robot_rl.data.quality import Expected
from robot_rl.data.schema import STEP_STREAMS, StoreSchema
from robot_rl.data.verdict import JITTER_WARN, RATE_ERROR, RATE_WARN
from robot_rl.values import Recording

Rates = dict[str, list[float]]


def true_rate(stamp_ns: np.ndarray) -> float | None:
    """Return samples per second by stamps; `None` for fewer than two samples."""
    return (len(stamp_ns) - 1) * 1e9 / float(stamp_ns[-1] - stamp_ns[0]) if len(stamp_ns) > 1 else None


def nominal_rates(schema: StoreSchema, found: Rates, thresholds: Thresholds) -> dict[str, float]:
    """Return the rate that each required stream should have: as told, else the robot's, else the store's median."""
    nominal = {
        name: float(np.median(rates)) for name, rates in found.items() if rates and schema.streams[name].required
    }
    nominal["action"] = schema.spec.control_hz
    return {**nominal, **{n: float(hz) for n, hz in thresholds.rates_hz.items() if n in schema.streams}}


def check_timing(
    recording: Recording, schema: StoreSchema, nominal: Mapping[str, float], thresholds: Thresholds
) -> list[Finding]:
    """Return what is wrong with the stamps of one episode."""
    stamps = {n: s.stamp_ns for n, s in recording.streams.items() if len(s)}
    origin = min((int(s[0]) for s in stamps.values()), default=0)
    findings = []
    for name, hz in nominal.items():
        if name in stamps:
            own, required = stamps[name], schema.streams[name].required
            findings += [
                *_rate(name, own, hz),
                *_gaps(name, own, hz, origin, required=required),
                *_jitter(name, own, hz),
            ]
    return findings if recording.meta.on_grid else findings + _skew(stamps, schema, thresholds)


def _rate(name: str, stamps: np.ndarray, nominal: float) -> list[Finding]:
    rate = true_rate(stamps)
    if rate is None or abs(rate - nominal) <= RATE_WARN * nominal:
        return []
    return [
        Finding(
            check="rate", severity="fail" if rate < RATE_ERROR * nominal else "warn", stream=name, unit="Hz",
            what=f"{rate:.1f} Hz by its stamps, {nominal:.4g} Hz expected", value=rate, threshold=nominal,
            advice="find out what slowed the source, or state the true rate; a policy plays back at the nominal one",
        )
    ]  # fmt: skip


def _gaps(name: str, stamps: np.ndarray, nominal: float, origin: int, *, required: bool) -> list[Finding]:
    expected = Expected(rate_hz=nominal)
    limit, stale = expected.gap_after_s, expected.stale_after_s
    delta = np.diff(stamps) / 1e9
    if limit is None or stale is None or not len(delta) or delta.max() <= limit:
        return []
    wide, at = int((delta > limit).sum()), int(delta.argmax())
    longest = float(delta[at])
    return [
        Finding(
            check="gap", severity="fail" if required and longest > stale else "warn", stream=name, unit="ms",
            what=f"{wide} gap{'s' * (wide > 1)}, the longest {1e3 * longest:.0f} ms", value=1e3 * longest,
            threshold=1e3 * limit, start_s=float(stamps[at] - origin) / 1e9, end_s=float(stamps[at + 1] - origin) / 1e9,
            advice="split the episode there or delete it; look at cable, bus and load of the source",
        )
    ]  # fmt: skip


def _jitter(name: str, stamps: np.ndarray, nominal: float) -> list[Finding]:
    delta = np.diff(stamps) / 1e6
    if len(delta) < 2:
        return []
    jitter, limit = float(np.percentile(np.abs(delta - np.median(delta)), 95)), JITTER_WARN * 1e3 / nominal
    if jitter <= limit:
        return []
    return [
        Finding(
            check="jitter", severity="warn", stream=name, value=jitter, threshold=limit, unit="ms",
            what=f"jitter {jitter:.1f} ms (p95) at a period of {1e3 / nominal:.1f} ms",
            advice="stamp at capture and not at receipt",
        )
    ]  # fmt: skip


def _skew(stamps: Mapping[str, np.ndarray], schema: StoreSchema, thresholds: Thresholds) -> list[Finding]:
    """A stream whose first and last stamps both lie beside the others' runs on another clock or with another delay."""
    steady = [n for n in stamps if schema.streams[n].required and len(stamps[n]) > 1 and n not in STEP_STREAMS]
    if len(steady) < 2:
        return []
    first, last = (np.array([stamps[n][i] for n in steady], np.float64) / 1e6 for i in (0, -1))
    first, last = first - np.median(first), last - np.median(last)
    findings = []
    for name, head, tail in zip(steady, first, last, strict=True):
        period = float(np.median(np.diff(stamps[name]))) / 1e6
        if head * tail > 0 and min(abs(head), abs(tail)) > thresholds.skew_ms + period:
            findings.append(_skewed(name, float((head + tail) / 2), thresholds))
        elif max(head, -tail) > 1e3 * thresholds.cover_s:
            findings.append(_uncovered(name, float(head), float(tail), thresholds))
    return findings


def _skewed(name: str, skew_ms: float, thresholds: Thresholds) -> Finding:
    return Finding(
        check="skew", severity="warn", stream=name, value=skew_ms, threshold=thresholds.skew_ms, unit="ms",
        what=f"begins and ends {skew_ms:+.0f} ms beside the other streams: another clock, or stamps made late",
        advice="calibrate its latency (robot-rl calibrate latency) and train with latency=<file>",
    )  # fmt: skip


def _uncovered(name: str, head_ms: float, tail_ms: float, thresholds: Thresholds) -> Finding:
    side, short = ("begins", head_ms) if head_ms > -tail_ms else ("ends", -tail_ms)
    return Finding(
        check="cover", severity="warn", stream=name, value=short / 1e3, threshold=thresholds.cover_s, unit="s",
        what=f"{side} {short / 1e3:.2f} s {'later' if side == 'begins' else 'earlier'} than the other streams",
        advice="the ticks without it are not learned from; look why the source came late or fell silent",
    )  # fmt: skip
