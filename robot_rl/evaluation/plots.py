"""Small plots as SVG whose colours come from the page's style sheet, so that they read on light and dark paper.

Text is in a `<title>` or beside its mark as well as in colour, for people who do not see the colours and for search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape

from robot_rl.errors import ConfigError
from robot_rl.evaluation.statistics import Interval

WIDTH, WIDE, HEIGHT = 500, 1000, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 28, 44

Series = tuple[Sequence[float], Sequence[float]]


class _Axis:
    """Maps values to pixels, linearly or by logarithm, and knows its ticks."""

    def __init__(
        self, low: float, high: float, *, start: float, end: float, log: bool = False, whole: bool = False
    ) -> None:
        if high <= low:
            low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
        self.low, self.high, self.start, self.end, self.log, self.whole = low, high, start, end, log, whole

    def __call__(self, value: float) -> float:
        f: Callable[[float], float] = math.log10 if self.log else float
        part = (f(value) - f(self.low)) / (f(self.high) - f(self.low))
        return round(self.start + part * (self.end - self.start), 2)

    def ticks(self) -> list[float]:
        ticks = _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)
        return [tick for tick in ticks if not self.whole or tick == round(tick)]


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers within [low, high]."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = size * min((m for m in (1, 2, 2.5, 5, 10)), key=lambda m: abs(m - rough / size))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2, 5 times powers of ten within [low, high], or the powers alone over many decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    return [m * 10.0**d for d in decades for m in steps if low * 0.999 <= m * 10.0**d <= high * 1.001]


def _number(value: float) -> str:
    """Return a tick label: no trailing zeros, no exponent where digits do."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _text(x: float, y: float, text: str, kind: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(body: Sequence[str], label: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Markup:
    inside, box = "".join(body), f"0 0 {size[0]} {size[1]}"
    return Markup(f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{inside}</svg>')


def _frame(x: _Axis, y: _Axis, x_label: str, y_label: str) -> list[str]:
    """Return grid lines, tick labels and axis titles."""
    left, right = x.start, x.end
    body = []
    for tick in y.ticks():
        body.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y(tick)}" y2="{y(tick)}"/>')
        body.append(_text(left - 8, y(tick) + 4, _number(tick), "tick", "end"))
    body += [_text(x(tick), y.start + 18, _number(tick), "tick") for tick in x.ticks()]
    body.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{y.start}" y2="{y.start}"/>')
    body.append(_text((left + right) / 2, y.start + 38, x_label, "label"))
    return [*body, _text(left - 48, 16, y_label, "label", "start")]


def lines(series: Mapping[str, Series], *, x_label: str, y_label: str, log_y: bool = False) -> Markup:
    """Return curves over a common x axis.

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
    x = _Axis(x_low, x_high, start=_LEFT, end=WIDTH - _RIGHT)
    y = _Axis(y_low, y_high, start=HEIGHT - _BOTTOM, end=_TOP, log=log_y)
    body = _frame(x, y, x_label, y_label)
    for i, (name, p) in enumerate(points.items()):
        path = " ".join(f"{x(a)},{y(b)}" for a, b in p)
        body.append(f'<polyline class="line s{i % 4}" points="{path}"><title>{escape(name)}</title></polyline>')
        if len(p) < 40:
            body += [f'<circle class="dot s{i % 4}" cx="{x(a)}" cy="{y(b)}" r="2.5"/>' for a, b in p]
        body.append(_text(WIDTH - _RIGHT - 110 * (len(points) - 1 - i), 16, name, f"key s{i % 4}", "end"))
    return _svg(body, f"{y_label} over {x_label}")


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
    x = _Axis(edges[0], edges[-1], start=_LEFT, end=WIDTH - _RIGHT, log=log_x)
    y = _Axis(0, max(counts), start=HEIGHT - _BOTTOM, end=_TOP + 12, whole=True)
    body = _frame(x, y, x_label, y_label)
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            size = f'x="{x(low)}" width="{max(x(high) - x(low) - 1, 1):.2f}" y="{y(count)}"'
            tip = f"{_number(low)} to {_number(high)}: {count}"
            body.append(f'<rect class="bar" {size} height="{y.start - y(count):.2f}"><title>{tip}</title></rect>')
    for i, (name, value) in enumerate((marks or {}).items()):
        at = x(min(max(value, edges[0]), edges[-1]))
        anchor = "end" if at > WIDTH * 0.75 else "start"
        shift = -5 if anchor == "end" else 5
        body.append(f'<line class="mark" x1="{at}" x2="{at}" y1="{_TOP - 4}" y2="{y.start}"/>')
        body.append(_text(at + shift, _TOP + 6 + 14 * i, f"{name} {_number(value)}", "key", anchor))
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
