"""Readings that stand still while they should move, steps no joint can take, and idle heads and tails."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from robot_rl.data.checks.finding import Finding
from robot_rl.data.checks.lag import Lags
from robot_rl.data.checks.profile import Profile
from robot_rl.data.checks.thresholds import Thresholds
from robot_rl.data.checks.view import Element, EpisodeView, Layout, runs

DEAD = 0.9
"""Share of an episode in which a frozen reading makes it useless."""
EDGE_S = 0.1
"""Of a standstill at either end, in which the action may already move."""
_TURNS = {"rad": 2 * math.pi, "deg": 360.0}
_TURN_SLACK = 0.05


def driven(lags: Lags | None) -> dict[int, tuple[int, int]]:
    """Return state column -> (action column, lag in ticks) of what an action moves."""
    return {} if lags is None else {m.state: (m.action, m.frames) for m in lags.matches if m.drives}


def check_frozen(
    view: EpisodeView, layout: Layout, profile: Profile, drives: Mapping[int, tuple[int, int]], thresholds: Thresholds
) -> list[Finding]:
    """Return state elements that keep one exact value while their action moves, and streams that fell silent.

    A stream that no action drives counts when its elements are noisy elsewhere in the store, all of them stand still
    twice as long, and any action moves.
    """
    findings = []
    for s, (a, lag) in sorted(drives.items()):
        stuck = _stuck(view, profile, [s], np.array([a]), lag, thresholds.frozen_s, thresholds)
        if stuck:
            what = f"keeps the value {view.state[stuck[0][0], s]:.4g}"
            findings.append(_frozen(view, layout.state[s].stream, layout.state[s].index, what, stuck, thresholds))
    for stream in dict.fromkeys(element.stream for element in layout.state):
        columns = [i for i, element in enumerate(layout.state) if element.stream == stream]
        if any(c in drives for c in columns) or not profile.noisy[columns].any():
            continue
        every = np.arange(len(layout.action))
        if stuck := _stuck(view, profile, columns, every, 0, 2 * thresholds.frozen_s, thresholds):
            findings.append(_frozen(view, stream, None, "keeps its values", stuck, thresholds))
    return findings


def _stuck(
    view: EpisodeView, profile: Profile, columns: list[int], actions: np.ndarray, lag: int, least_s: float,
    thresholds: Thresholds,
) -> list[tuple[int, int]]:  # fmt: skip
    """Return where all `columns` of the state keep exact values while one of `actions`, `lag` ticks before, moves.

    What the action does within `EDGE_S` of either end does not count: the lag is not the same at every turn.
    """
    still = (np.diff(view.state[:, columns], axis=0) == 0).all(axis=1)
    need, edge = max(3, math.ceil(least_s * view.hz)), math.ceil(EDGE_S * view.hz)
    spans = profile.range[len(profile.range) - view.action.shape[1] :][actions]
    room = thresholds.motion * np.where(spans > 0, spans, np.inf)
    found = []
    for start, end in runs(still):
        stop = end + 1  # n equal steps are n + 1 equal samples
        ordered = view.action[max(0, start - lag + edge) : max(0, stop - lag - edge), actions]
        if stop - start >= need and len(ordered) and (np.ptp(ordered, axis=0) > room).any():
            found.append((int(start), int(stop)))
    return found


def _frozen(
    view: EpisodeView, stream: str, index: int | None, what: str, stuck: list[tuple[int, int]], thresholds: Thresholds
) -> Finding:
    start, stop = max(stuck, key=lambda run: run[1] - run[0])
    share = sum(e - b for b, e in stuck) / len(view.state)
    seconds = (stop - start) / view.hz
    return Finding(
        check="frozen", severity="fail" if share >= DEAD else "warn", stream=stream, element=index, unit="s",
        what=f"{what} for {seconds:.2f} s while {'an' if index is None else 'its'} action moves "
        f"({100 * share:.0f} % of the episode)", value=seconds, threshold=thresholds.frozen_s,
        start_s=start / view.hz, end_s=stop / view.hz, episode=view.id,
        advice="look at the joint: at its stop, blocked, or its sensor silent; leave the element out or mend the robot",
    )  # fmt: skip


def check_jumps(
    view: EpisodeView, layout: Layout, profile: Profile, positions: np.ndarray, thresholds: Thresholds
) -> list[Finding]:
    """Return steps far beyond an element's own scale, of robot positions (`positions` bool [S + A]) that do not switch.

    An angle that wraps is looked for in every element.
    """
    table, elements = view.table, (*layout.state, *layout.action)
    if len(table) < 3:
        return []
    steps = np.diff(table, axis=0)
    limit = np.maximum(thresholds.jump_factor * profile.step, thresholds.jump_range * profile.range)
    mask = (np.abs(steps) > limit) & (profile.range > 0) & ~profile.two_state
    findings = []
    for c in np.flatnonzero(mask.any(axis=0)):
        rows = np.flatnonzero(mask[:, c])
        row = int(rows[np.abs(steps[rows, c]).argmax()])
        wraps = _wraps(float(steps[row, c]), elements[c].unit)
        if positions[c] or wraps:
            findings.append(
                _jump(view, elements[c], row, float(steps[row, c]), float(limit[c]), len(rows), wraps=wraps)
            )
    return findings


def _wraps(step: float, unit: str) -> bool:
    turn = _TURNS.get(unit)
    return turn is not None and abs(abs(step) - turn) < _TURN_SLACK * turn


def _jump(
    view: EpisodeView, element: Element, row: int, size: float, limit: float, count: int, *, wraps: bool
) -> Finding:
    name, unit = "wrap" if wraps else "jump", f" {element.unit}" if element.unit else ""
    advice = "a sample from elsewhere, or time is missing there: robot-rl mend split at the jump"
    return Finding(
        check=name, severity="warn", stream=element.stream, element=element.index, value=abs(size), threshold=limit,
        what=f"{count} {name}{'s' * (count > 1)}, the largest {size:+.4g}{unit} within one tick", unit=element.unit,
        start_s=row / view.hz, end_s=(row + 1) / view.hz, episode=view.id,
        advice="unwrap the angle or learn its sine and cosine" if wraps else advice,
    )  # fmt: skip


def check_idle(
    view: EpisodeView, layout: Layout, profile: Profile, drives: Mapping[int, tuple[int, int]], thresholds: Thresholds
) -> list[Finding]:
    """Return how long nothing moves at the head and the tail: neither the actions nor what they drive."""
    live = profile.live.copy()
    live[: len(layout.state)] &= np.isin(np.arange(len(layout.state)), list(drives))
    if not live.any():
        return []
    x, wander = view.table[:, live], thresholds.idle_motion * profile.range[live]
    away_head = (np.abs(x - x[0]) > wander).any(axis=1)
    away_tail = (np.abs(x - x[-1]) > wander).any(axis=1)
    if not away_head.any():
        return [_idle(view, "idle", len(x), thresholds)]
    head, tail = int(away_head.argmax()), int(away_tail[::-1].argmax())
    return [
        _idle(view, check, ticks, thresholds)
        for check, ticks in (("idle_head", head), ("idle_tail", tail))
        if ticks / view.hz > thresholds.idle_s
    ]


def _idle(view: EpisodeView, check: str, ticks: int, thresholds: Thresholds) -> Finding:
    seconds, whole = ticks / view.hz, view.seconds
    what = {
        "idle": f"nothing moves in the whole episode ({seconds:.2f} s)",
        "idle_head": f"nothing moves for the first {seconds:.2f} s",
        "idle_tail": f"nothing moves for the last {seconds:.2f} s",
    }[check]
    start = whole - seconds if check == "idle_tail" else 0.0
    trim = f"a policy learns to wait from this: robot-rl mend trim mend.episodes=[{view.id}] mend.trim.idle=true"
    advice = f"robot-rl mend delete mend.episodes=[{view.id}]" if check == "idle" else trim
    return Finding(
        check=check, severity="warn", what=what, advice=advice, value=seconds, threshold=thresholds.idle_s, unit="s",
        start_s=start, end_s=start + seconds, episode=view.id,
    )  # fmt: skip
