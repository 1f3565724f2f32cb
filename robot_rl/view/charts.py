"""The two plots that only a store's report needs: spreads of many elements, and when episodes were recorded.

SVG whose colours come from the report's style sheet, as in `evaluation.plots`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from robot_rl.evaluation.plots import number
from robot_rl.values import OUTCOMES

WIDTH = 1000
_ROW, _LEFT, _NAME, _RIGHT, _TOP = 30, 280, 190, 90, 22
"""Pixels; names end at `_NAME`, from where on there is room for the smallest value."""
BINS = 60
_LONG = 1e7
"""From here on an end of a row is told by its exponent: there is no room for all digits."""


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(body: Sequence[str], label: str, height: float) -> Markup:
    box = f"0 0 {WIDTH} {height:.0f}"
    return Markup(f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{"".join(body)}</svg>')


def _short(value: float) -> str:
    return number(value) if abs(value) < _LONG else f"{value:.3g}"


def spreads(names: Sequence[str], low: np.ndarray, high: np.ndarray, rows: np.ndarray, *, title: str) -> Markup:
    """Return one small histogram an element, each on its own scale from its smallest to its largest value.

    Args:
        names: Of the elements, with their units.
        low: Smallest values, [D].
        high: Largest values, [D].
        rows: Values to count, [m, D]; those that are not finite are left out.
        title: What is shown.
    """
    body = [
        _text(8, 13, title, "key", "start"),
        _text(_LEFT - 10, 13, "min", "tick", "end"),
        _text(WIDTH - _RIGHT + 10, 13, "max", "tick", "start"),
    ]
    for i, name in enumerate(names):
        base = _TOP + _ROW * (i + 1)
        body.append(_text(_NAME, base - 6, name, "label", "end"))
        body.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>')
        if not np.isfinite([low[i], high[i]]).all():
            continue
        body.append(_text(_LEFT - 10, base - 6, _short(low[i]), "tick", "end"))
        body.append(_text(WIDTH - _RIGHT + 10, base - 6, _short(high[i]), "tick", "start"))
        body += _bars(rows[:, i], float(low[i]), float(high[i]), base)
    return _svg(body, f"spread of {title}", _TOP + _ROW * len(names) + 8)


def _bars(values: np.ndarray, low: float, high: float, base: float) -> list[str]:
    """Return a row's bars, or one mark in the middle for an element that never moves."""
    if not high > low:
        middle = (_LEFT + WIDTH - _RIGHT) / 2
        return [_text(middle, base - 6, "constant", "tick", "middle")]
    counts, edges = np.histogram(values[np.isfinite(values)], bins=BINS, range=(low, high))
    scale, width = (_ROW - 6) / max(1, int(counts.max())), (WIDTH - _RIGHT - _LEFT) / BINS
    bars = []
    for j, count in enumerate(counts):
        if count:
            height = max(1.0, scale * int(count))
            place = f'x="{_LEFT + j * width:.1f}" y="{base - height:.1f}" width="{width - 1:.1f}" height="{height:.1f}"'
            tip = f"{_short(edges[j])} to {_short(edges[j + 1])}: {count}"
            bars.append(f'<rect class="bar" {place}><title>{tip}</title></rect>')
    return bars


@dataclass(frozen=True)
class Span:
    """One episode of a session: from when to when [min], how it ended, and what to say of it."""

    start_min: float
    end_min: float
    outcome: str
    tip: str


def timeline(rows: Sequence[tuple[str, Sequence[Span]]]) -> Markup:
    """Return recording sessions, one a row, each episode a block from its beginning to its end.

    Args:
        rows: A session's name and its episodes, in minutes since the session began.
    """
    longest = max((span.end_min for _, spans in rows for span in spans), default=1.0)
    scale = (WIDTH - _LEFT - 20) / max(longest, 1e-3)
    body = [
        f'<rect x="{_LEFT + 110 * i}" y="4" width="11" height="11" {_style(outcome)}/>'
        + _text(_LEFT + 110 * i + 17, 14, outcome, "tick", "start")
        for i, outcome in enumerate(OUTCOMES)
    ]
    for i, (name, spans) in enumerate(rows):
        base = _TOP + 6 + _ROW * (i + 1)
        body.append(_text(_LEFT - 10, base - 9, name, "label", "end"))
        body.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - 20}" y1="{base}" y2="{base}"/>')
        for span in spans:
            x, width = _LEFT + scale * span.start_min, max(1.5, scale * (span.end_min - span.start_min) - 0.7)
            place = f'x="{x:.1f}" y="{base - _ROW + 6}" width="{width:.1f}" height="{_ROW - 8}"'
            body.append(f"<rect {place} {_style(span.outcome)}><title>{escape(span.tip)}</title></rect>")
    base = _TOP + 6 + _ROW * len(rows)
    ends = ((0.0, "0", "start"), (longest, f"{_short(longest)} min", "end"))
    body += [_text(_LEFT + scale * at, base + 18, text, "tick", anchor) for at, text, anchor in ends]
    return _svg(body, "recording sessions", base + 28)


def _style(outcome: str) -> str:
    colour = {"success": "var(--good)", "failure": "var(--bad)"}.get(outcome, "var(--quiet)")
    return f'style="fill: {colour}; opacity: .8"'
