"""Small plots as SVG whose colours come from the page's style sheet, so that they read on light and dark paper.

Text is in a `<title>` or beside its mark as well as in colour, for people who do not see the colours and for search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape

from robot_rl.errors import ConfigError
from robot_rl.evaluation.statistics import Interval

WIDTH, WIDE, HEIGHT = 500, 1000, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 28, 44
_LETTER, _BOLD, _KEY_ROW = 8.0, 9.0, 16
"""Pixels: width of a wide font's letters, usual and bold; height of a row of names."""

Series = tuple[Sequence[float], Sequence[float]]


class _Axis:
    """Maps values to pixels, linearly or by logarithm, and knows its ticks; `whole` puts them at whole numbers only."""

    def __init__(
        self, low: float, high: float, *, start: float, end: float, log: bool = False, whole: bool = False
    ) -> None:
        if high - low <= 1e-12 * max(abs(low), abs(high)):
            low, high = _around(low, log=log, whole=whole)
        self.low, self.high, self.start, self.end, self.log, self.whole = low, high, start, end, log, whole

    def __call__(self, value: float) -> float:
        f: Callable[[float], float] = math.log10 if self.log else float
        part = (f(value) - f(self.low)) / (f(self.high) - f(self.low))
        return round(self.start + part * (self.end - self.start), 2)

    def ticks(self) -> list[float]:
        if self.log and len(ticks := _log_ticks(self.low, self.high)) > 1:
            return ticks
        return _ticks(self.low, self.high, whole=self.whole)


def _around(value: float, *, log: bool, whole: bool) -> tuple[float, float]:
    """Return the ends of an axis on which everything has one value: from 0 on, so that a share stays within 0 and 1."""
    if log:
        return value / 2, value * 2
    if whole:
        return value - 0.5, value + 0.5
    if 0 <= value <= 1:
        return 0.0, min(2 * value, 1.0) if value else 1.0
    return min(2 * value, 0.0), max(2 * value, 0.0)


def _ticks(low: float, high: float, *, whole: bool) -> list[float]:
    """Return about five round numbers within [low, high]."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = size * min((m for m in (1, 2, 2.5, 5, 10)), key=lambda m: abs(m - rough / size))
    if whole:
        step = max(1.0, float(math.floor(step)))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2, 5 times powers of ten within [low, high], or the powers alone over many decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    return [m * 10.0**d for d in decades for m in steps if low * 0.999 <= m * 10.0**d <= high * 1.001]


def number(value: float, digits: int = 3) -> str:
    """Return a short label: so many digits that count, no trailing zeros, no exponent where digits do."""
    return f"{value:,.{max(0, digits - 3)}f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def _labels(ticks: Sequence[float]) -> list[str]:
    """Return a label for each tick with as many digits as tell it exactly, so that no two are the same."""
    gap = min((b - a for a, b in pairwise(ticks)), default=1.0)
    for digits in range(3, 16):
        labels = [number(tick, digits) for tick in ticks]
        if all(abs(float(text.replace(",", "")) - tick) < 1e-6 * gap for text, tick in zip(labels, ticks, strict=True)):
            break
    return labels


def _text(x: float, y: float, text: str, kind: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(body: Sequence[str], label: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Markup:
    inside, box = "".join(body), f"0 0 {size[0]} {size[1]}"
    return Markup(f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{inside}</svg>')


def _frame(x: _Axis, y: _Axis, x_label: str, y_label: str) -> list[str]:
    """Return grid lines, tick labels and axis titles."""
    left, right = x.start, x.end
    body = []
    for tick, text in zip(y.ticks(), _labels(y.ticks()), strict=True):
        body.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y(tick)}" y2="{y(tick)}"/>')
        body.append(_text(left - 8, y(tick) + 4, text, "tick", "end"))
    below = zip(x.ticks(), _labels(x.ticks()), strict=True)
    body += [_text(x(tick), y.start + 18, text, "tick") for tick, text in below]
    body.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{y.start}" y2="{y.start}"/>')
    body.append(_text((left + right) / 2, y.start + 38, x_label, "label"))
    return [*body, _text(8, 16, y_label, "label", "start")]


def _beside(y: _Axis) -> float:
    """Return where the picture begins, right of the y axis' labels."""
    return max(_LEFT, 12 + _LETTER * max((len(text) for text in _labels(y.ticks())), default=0))


def _keys(names: Sequence[str], y_label: str) -> list[list[tuple[float, str]]]:
    """Return rows of names, each with where it ends: beside the title of the y axis as far as there is room."""
    room = WIDTH - _RIGHT - 24 - _LETTER * len(y_label)
    rows: list[list[tuple[float, str]]] = [[]]
    end = 0.0
    for name in reversed(names):
        if rows[-1] and end + _BOLD * len(name) > room:
            rows.append([])
            end = 0.0
        rows[-1].append((WIDTH - _RIGHT - end, name))
        end += _BOLD * len(name) + 12
    return rows[::-1]


def lines(series: Mapping[str, Series], *, x_label: str, y_label: str, log_y: bool = False) -> Markup:
    """Return curves over a common x axis, whose ticks are whole numbers where every x is one.

    Args:
        series: Name to (x, y); points that are not finite, or not positive with `log_y`, are left out.
        x_label: What x is, with its unit.
        y_label: What y is, with its unit.
        log_y: Logarithmic y axis.

    Raises:
        ConfigError: Nothing can be drawn.
    """
    points = {name: _drawable(*pair, log_y=log_y) for name, pair in series.items()}
    points = {name: p for name, p in points.items() if len(p)}
    if not points:
        raise ConfigError(f"`{y_label}`: no finite {'positive ' if log_y else ''}points to draw in {sorted(series)}")
    every = np.concatenate(list(points.values()))
    (x_low, y_low), (x_high, y_high) = every.min(axis=0), every.max(axis=0)
    keys = _keys(list(points), y_label)
    height = HEIGHT + _KEY_ROW * (len(keys) - 1)
    y = _Axis(y_low, y_high, start=height - _BOTTOM, end=height - HEIGHT + _TOP, log=log_y)
    counted = bool((every[:, 0] == np.round(every[:, 0])).all())
    x = _Axis(x_low, x_high, start=_beside(y), end=WIDTH - _RIGHT, whole=counted)
    body = _frame(x, y, x_label, y_label)
    colours = {name: f"s{i % 4}" for i, name in enumerate(points)}
    for name, p in points.items():
        path = " ".join(f"{x(a)},{y(b)}" for a, b in p)
        body.append(f'<polyline class="line {colours[name]}" points="{path}"><title>{escape(name)}</title></polyline>')
        if len(p) < 40:
            body += [f'<circle class="dot {colours[name]}" cx="{x(a)}" cy="{y(b)}" r="2.5"/>' for a, b in p]
    for i, row in enumerate(keys):
        body += [_text(end, 16 + _KEY_ROW * i, name, f"key {colours[name]}", "end") for end, name in row]
    return _svg(body, f"{y_label} over {x_label}", (WIDTH, height))


def _drawable(x: Sequence[float], y: Sequence[float], *, log_y: bool) -> np.ndarray:
    """Return the points [n, 2] that can be drawn, thinned to what the picture can show."""
    p = np.stack([np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)], axis=1)
    p = p[np.isfinite(p).all(axis=1) & ((p[:, 1] > 0) | (not log_y))]
    return p[:: max(1, len(p) // 1200)]


def histogram(
    edges: Sequence[float],
    counts: Sequence[int],
    *,
    x_label: str,
    y_label: str = "episodes",
    marks: Mapping[str, float] | None = None,
    log_x: bool = False,
) -> Markup:
    """Return bars between consecutive edges.

    Args:
        edges: Bin edges, one more than counts.
        counts: How many fell into each bin.
        x_label: What is counted, with its unit.
        y_label: What the counts are of.
        marks: Named values to mark with a vertical line, such as `p99`.
        log_x: Logarithmic x axis; edges must be positive.

    Raises:
        ConfigError: Numbers of edges and counts do not fit.
    """
    if len(edges) != len(counts) + 1 or len(counts) == 0:
        raise ConfigError(f"a histogram needs one edge more than counts, got {len(edges)} and {len(counts)}")
    y = _Axis(0, max(1, *counts), start=HEIGHT - _BOTTOM, end=_TOP + 12, whole=True)
    x = _Axis(edges[0], edges[-1], start=_beside(y), end=WIDTH - _RIGHT, log=log_x, whole=x_label.startswith("steps"))
    body = _frame(x, y, x_label, y_label)
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            size = f'x="{x(low)}" width="{max(x(high) - x(low) - 1, 1):.2f}" y="{y(count)}"'
            tip = f"{number(low)} to {number(high)}: {count}"
            body.append(f'<rect class="bar" {size} height="{y.start - y(count):.2f}"><title>{tip}</title></rect>')
    for i, (name, value) in enumerate((marks or {}).items()):
        at = x(min(max(value, edges[0]), edges[-1]))
        anchor = "end" if at > WIDTH * 0.75 else "start"
        shift = -5 if anchor == "end" else 5
        body.append(f'<line class="mark" x1="{at}" x2="{at}" y1="{_TOP - 4}" y2="{y.start}"/>')
        body.append(_text(at + shift, _TOP + 6 + 14 * i, f"{name} {number(value)}", "key", anchor))
    return _svg(body, f"histogram of {x_label}")


def intervals(rows: Mapping[str, Interval], *, goals: Mapping[str, float] | None = None) -> Markup:
    """Return rates in per cent with their intervals, one a row, from 0 to 100 %, as a wide plot.

    Args:
        rows: Name to interval of a rate between 0 and 1.
        goals: Named rates to mark with a vertical line.
    """
    step, top = 34, 30
    height = top + step * len(rows) + 40
    x = _Axis(0, 100, start=150, end=WIDE - _RIGHT - 20)
    base = height - 38
    body = [f'<line class="grid" x1="{x(t)}" x2="{x(t)}" y1="{top - 6}" y2="{base}"/>' for t in (0, 25, 50, 75, 100)]
    body += [_text(x(t), base + 16, f"{t} %", "tick") for t in (0, 25, 50, 75, 100)]
    for name, rate in (goals or {}).items():
        at = x(100 * rate)
        body.append(f'<line class="mark" x1="{at}" x2="{at}" y1="{top - 8}" y2="{base}"/>')
        body.append(_text(at, top - 14, f"{name} {100 * rate:g} %", "key"))
    for i, (name, interval) in enumerate(rows.items()):
        low, value, high = (x(100 * v) for v in (interval.low, interval.value, interval.high))
        y = top + step * i + step / 2
        tip = f"{100 * interval.value:.1f} %, {100 * interval.low:.1f} to {100 * interval.high:.1f} %"
        body.append(_text(140, y + 4, name, "label", "end"))
        body.append(f'<line class="whisker" x1="{low}" x2="{high}" y1="{y}" y2="{y}"><title>{tip}</title></line>')
        body.append(f'<circle class="point" cx="{value}" cy="{y}" r="6"><title>{tip}</title></circle>')
    return _svg(body, "success rate with interval", (WIDE, height))
