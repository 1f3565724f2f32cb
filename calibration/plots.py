"""Plots of a camera calibration as SVG in the report's colours, and pictures with residuals drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from markupsafe import Markup, escape

from calibration.intrinsics import ViewResidual
from robot_rl.errors import ConfigError

_WIDTH, _MARGIN = 500, 40
_SHOWN_TIMES = 20  # residual arrows are this much longer than the residuals
_GOOD, _BAD = (70, 160, 40), (40, 40, 220)  # BGR


def coverage_map(views: Sequence[ViewResidual], counts: np.ndarray, size: tuple[int, int]) -> Markup:
    """Return where in the picture corners were seen: a dot each, cells shaded by their number.

    Args:
        views: Kept (blue) and rejected (orange) ones.
        counts: Corners of each cell, int [rows, columns].
        size: Width and height of the picture [px].
    """
    scale = (_WIDTH - 2) / size[0]
    width, height = _WIDTH - 2, size[1] * scale
    rows, columns = counts.shape
    cell_w, cell_h = width / columns, height / rows
    body = []
    for (row, column), count in np.ndenumerate(counts):
        shade = 0.0 if count == 0 else 0.1 + 0.35 * count / counts.max()
        tip = f"<title>{count} corners</title>"
        body.append(
            f'<rect class="bar" style="opacity:{shade:.2f}" x="{1 + column * cell_w:.1f}" y="{1 + row * cell_h:.1f}" '
            f'width="{cell_w:.1f}" height="{cell_h:.1f}">{tip}</rect>'
        )
    body.append(f'<rect class="axis" fill="none" x="1" y="1" width="{width:.1f}" height="{height:.1f}"/>')
    for view in views:
        kind = "dot s1" if view.rejected else "dot s0"
        body += [
            f'<circle class="{kind}" cx="{1 + scale * (x + 0.5):.1f}" cy="{1 + scale * (y + 0.5):.1f}" r="1.6"/>'
            for x, y in view.corners
        ]
    return _svg(body, "corners in the picture", (_WIDTH, round(height) + 2))


def view_bars(names: Sequence[str], values: Sequence[float], rejected: Sequence[bool], *, unit: str = "px") -> Markup:
    """Return one horizontal bar a view, its residual written out; rejected ones say so."""
    if not (len(names) == len(values) == len(rejected)) or not names:
        raise ConfigError(
            f"bars need a name, a value and a verdict each, got {len(names)}, {len(values)}, {len(rejected)}"
        )
    step, left, right = 18, 150, 110
    finite = [value for value in values if np.isfinite(value)]
    scale = (_WIDTH - left - right) / max([*finite, 1e-9])
    body = []
    for i, (name, value, out) in enumerate(zip(names, values, rejected, strict=True)):
        y, length = 6 + i * step, scale * value if np.isfinite(value) else 0.0
        note = f"{value:.2f} {unit}{' rejected' if out else ''}"
        body.append(f'<text x="{left - 6}" y="{y + 11}" class="tick" text-anchor="end">{escape(name)}</text>')
        body.append(f'<rect class="bar" x="{left}" y="{y}" width="{max(length, 1):.1f}" height="{step - 5}"/>')
        kind = "key s1" if out else "tick"
        body.append(f'<text x="{left + length + 6:.1f}" y="{y + 11}" class="{kind}" text-anchor="start">{note}</text>')
    return _svg(body, "rms residual of each view", (_WIDTH, 12 + step * len(names)))


def residual_cloud(views: Sequence[ViewResidual]) -> Markup:
    """Return every kept corner's residual as a dot about zero, with circles of one, two and three rms."""
    residuals = np.concatenate([view.residuals for view in views if not view.rejected])
    rms = float(np.sqrt((residuals**2).sum(axis=1).mean()))
    height, reach = 360, max(3.2 * rms, 1e-9)
    scale = (height / 2 - _MARGIN / 2) / reach
    x0, y0, arm = _WIDTH / 2, height / 2, scale * reach
    body = [
        f'<line class="grid" x1="{x0 - arm:.1f}" x2="{x0 + arm:.1f}" y1="{y0}" y2="{y0}"/>',
        f'<line class="grid" x1="{x0}" x2="{x0}" y1="{y0 - arm:.1f}" y2="{y0 + arm:.1f}"/>',
    ]
    shown = residuals[:: max(1, len(residuals) // 3000)]
    for x, y in shown[np.abs(shown).max(axis=1) < reach]:
        place = f'cx="{x0 + scale * x:.1f}" cy="{y0 + scale * y:.1f}"'
        body.append(f'<circle class="dot s0" style="opacity:.5" {place} r="1.5"/>')
    for times in (1, 2, 3):
        radius = scale * times * rms
        body.append(f'<circle class="mark" fill="none" cx="{x0}" cy="{y0}" r="{radius:.1f}"/>')
        body.append(f'<text x="{x0 + 4}" y="{y0 - radius - 3:.1f}" class="key">{times * rms:.2f} px</text>')
    return _svg(body, "residuals of the corners", (_WIDTH, height))


def draw_residuals(picture: str | Path, view: ViewResidual, out: str | Path) -> Path:
    """Write a picture with its corners and their residuals, drawn 20 times as long, and return its path.

    Raises:
        ConfigError: The picture cannot be read.
    """
    image = cv2.imread(str(picture), cv2.IMREAD_COLOR)
    if image is None:
        raise ConfigError(f"{picture} cannot be read as a picture")
    image = cv2.addWeighted(image, 0.6, np.full_like(image, 255), 0.4, 0)
    for (x, y), (dx, dy) in zip(view.corners, view.residuals, strict=True):
        if not np.isfinite((dx, dy)).all():
            continue
        colour = _BAD if np.hypot(dx, dy) > 1.0 else _GOOD
        start, end = (round(x), round(y)), (round(x + _SHOWN_TIMES * dx), round(y + _SHOWN_TIMES * dy))
        cv2.circle(image, start, 3, colour, 1, cv2.LINE_AA)
        cv2.line(image, start, end, colour, 1, cv2.LINE_AA)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out), image)
    return out


def _svg(body: Sequence[str], label: str, size: tuple[int, int]) -> Markup:
    inside, box = "".join(body), f"0 0 {size[0]} {size[1]}"
    return Markup(f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{inside}</svg>')
