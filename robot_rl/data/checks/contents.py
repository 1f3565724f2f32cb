"""Values against what the store's specs say, and what is not a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_rl.data.checks.finding import Finding
from robot_rl.data.checks.view import EpisodeView, is_signal
from robot_rl.data.schema import StoreSchema
from robot_rl.specs import ArraySpec
from robot_rl.values import Recording

SLACK = 1e-3
"""Share of the bounded range by which a value may lie outside: rounding of what was clamped."""


def check_contents(view: EpisodeView, schema: StoreSchema) -> list[Finding]:
    """Return values outside of their bounds, and values that are not finite."""
    findings = []
    for name, stream in view.recording.streams.items():
        spec, finite = schema.streams[name].spec, schema.streams[name].finite
        if not (is_signal(spec) or name in schema.extra):
            continue
        values = np.asarray(stream.data[:], np.float64).reshape(len(stream), -1)
        bad = ~np.isfinite(values)
        if bad.any():
            findings.append(_not_finite(view, name, bad, must_be=finite))
        findings += _outside(view, spec, values, name)
    return findings


def _not_finite(view: EpisodeView, name: str, bad: np.ndarray, *, must_be: bool) -> Finding:
    share = float(bad.any(axis=1).mean())
    row = int(bad.any(axis=1).argmax())
    start = float(view.recording.streams[name].stamp_ns[row] - view.origin_ns) / 1e9
    return Finding(
        check="not_finite", severity="fail" if must_be else "ok", stream=name, value=share, threshold=0.0, unit="share",
        what=f"{100 * share:.0f} % of its samples hold NaN or infinity" + ("" if must_be else ", as extras may"),
        start_s=start, episode=view.id, advice="delete the episode" if must_be else "do not learn from it unmasked",
    )  # fmt: skip


def _outside(view: EpisodeView, spec: ArraySpec, values: np.ndarray, name: str) -> list[Finding]:
    findings = []
    low, high = (_bound(side, spec.size, default) for side, default in ((spec.low, -np.inf), (spec.high, np.inf)))
    room = np.where(np.isfinite(high - low), SLACK * (high - low), SLACK)
    beyond = np.maximum(low - room - values, values - high - room)  # [N, size], positive outside
    for e in np.flatnonzero((beyond > 0).any(axis=0)):
        row = int(np.nanargmax(beyond[:, e]))
        value, over = float(values[row, e]), values[row, e] > high[e]
        share = float((beyond[:, e] > 0).mean())
        bound = float(high[e] if over else low[e])
        findings.append(
            Finding(
                check="bounds", severity="warn", stream=name, element=int(e), value=value,
                threshold=bound, unit=spec.unit,
                what=f"{value:.4g} lies {'above' if over else 'below'} the spec's {bound:.4g} "
                f"({100 * share:.0f} % of the samples are outside)",
                start_s=float(view.recording.streams[name].stamp_ns[row] - view.origin_ns) / 1e9, episode=view.id,
                advice="correct the spec or the recording; a safety filter would clamp this",
            )
        )  # fmt: skip
    return findings


def _bound(bound: Any, size: int, default: float) -> np.ndarray:
    return np.broadcast_to(np.asarray(default if bound is None else bound, np.float64), (size,))


def check_recorder(id: str, recording: Recording) -> list[Finding]:
    """Return what the recorder said while the operator was there, and where it counted more than is stored."""
    quality = recording.meta.extra.get("quality")
    if not isinstance(quality, Mapping):
        return []
    findings = []
    for name, verdict in quality.get("streams", {}).items():
        level, reasons = verdict.get("level", "ok"), "; ".join(verdict.get("reasons", ()))
        if level != "ok":
            findings.append(
                Finding(
                    check="recorder", severity="fail" if level == "error" else "warn", stream=name, episode=id,
                    what=f"the recorder said {level}: {reasons}", advice="see docs/recording.md on what it judges",
                )
            )  # fmt: skip
        findings += _uncounted(id, name, verdict, recording)
    return findings


def _uncounted(id: str, name: str, verdict: Mapping[str, Any], recording: Recording) -> list[Finding]:
    stored = len(recording.streams[name]) if name in recording.streams else 0
    counted = int(verdict.get("samples", 0)) - sum(verdict.get("dropped", {}).values())
    if stored >= counted - max(3, counted // 100):
        return []
    return [
        Finding(
            check="lost", severity="fail", stream=name, value=float(stored), threshold=float(counted), unit="samples",
            what=f"the recorder took in {counted} samples, the store holds {stored}", episode=id,
            advice="the recorder was killed or the disk lost data: delete the episode",
        )
    ]  # fmt: skip


def recorder_level(recording: Recording) -> str:
    """Return the recorder's level for an episode; empty when none judged it."""
    quality = recording.meta.extra.get("quality")
    return str(quality.get("level", "")) if isinstance(quality, Mapping) else ""
