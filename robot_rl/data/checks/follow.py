"""What the lags of a store mean: how late the state follows, and which actions nothing follows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from robot_rl.data.checks.finding import Finding
from robot_rl.data.checks.lag import Lags, Match
from robot_rl.data.checks.profile import Profile
from robot_rl.data.checks.thresholds import Thresholds
from robot_rl.data.checks.view import Layout

FOLLOWED_KINDS = ("joint_position", "position", "pose_rot6d")
"""Kinds of action that command a value which the state then takes."""
COPY = 1.0 - 1e-6
"""Correlation from which one signal is a copy of the other."""


def max_lag(hz: float, thresholds: Thresholds) -> int:
    """Return the largest lag to try, in ticks."""
    return max(2, math.ceil(thresholds.max_lag_s * hz))


def positions(lags: Lags | None, layout: Layout, kind: str) -> np.ndarray:
    """Return which columns of `EpisodeView.table` are positions of the robot, bool [S + A], and so cannot jump.

    Those are state elements that follow a commanded position or move by a commanded step, and commanded positions.
    Velocities, forces and objects may change at once.
    """
    commanded = kind in FOLLOWED_KINDS
    mask = np.zeros(len(layout.state) + len(layout.action), bool)
    mask[len(layout.state) :] = commanded
    for m in () if lags is None else (m for m in lags.matches if m.drives):
        mask[m.state] = m.mode == "moves by" or commanded
    return mask


def check_lag(
    lags: Lags | None, layout: Layout, profile: Profile, *, kind: str, hz: float, thresholds: Thresholds
) -> list[Finding]:
    """Return what is worth knowing about how the state follows the action, for the store as a whole."""
    findings = [] if lags is None else [*_overall(lags, hz, thresholds), *_copied(lags.matches)]
    return findings + _unfollowed(lags, layout, profile, kind, thresholds)


def _overall(lags: Lags, hz: float, thresholds: Thresholds) -> list[Finding]:
    sure = [m for m in lags.matches if m.sure]
    each = sorted(m.lag for m in sure or lags.matches)
    ms = 1e3 * lags.frames / hz
    what = (
        f"the state follows the action by {lags.frames} frames ({ms:.0f} ms), 95 % of draws of episodes within "
        f"{lags.low} to {lags.high}; {len(sure)} of {len(lags.matches)} action elements are surely followed, "
        f"single ones by {each[0]:.1f} to {each[-1]:.1f} frames"
    )
    advice = ""
    if lags.frames < 0:
        advice = "the state moves before its action: actions are stamped late, correct by latency=<file>"
    elif ms > thresholds.lag_ms and 2 * len(sure) >= len(lags.matches):
        advice = (
            "the arm answers late: look at its controller's smoothing, and keep the same one when the policy drives"
        )
    return [
        Finding(
            check="lag", severity="warn" if advice else "ok", what=what, advice=advice, value=float(lags.frames),
            threshold=thresholds.lag_ms * hz / 1e3, unit="frames", stream="action",
        )
    ]  # fmt: skip


def _copied(matches: tuple[Match, ...]) -> list[Finding]:
    same = [m for m in matches if m.mode == "follows" and m.frames == 0 and m.correlation >= COPY]
    if not same:
        return []
    return [
        Finding(
            check="copy", severity="warn", stream="action", value=float(len(same)), threshold=0.0, unit="elements",
            what=f"{len(same)} of {len(matches)} action elements copy the state of the same tick",
            advice="a policy learns to stand still from this: record what was commanded, or take the next state",
        )
    ]  # fmt: skip


def _unfollowed(
    lags: Lags | None, layout: Layout, profile: Profile, kind: str, thresholds: Thresholds
) -> list[Finding]:
    """An action element that moves in an ordinary episode and that no state element follows."""
    if not layout.state or kind not in FOLLOWED_KINDS:
        return []
    known = set() if lags is None else {m.action for m in lags.matches}
    live = profile.live[len(layout.state) :]
    return [
        Finding(
            check="unfollowed", severity="warn", stream="action", element=int(a), unit="correlation",
            threshold=thresholds.min_correlation,
            what="it moves, and no state follows: the joint is stuck, not recorded, or later than was looked for",
            advice="look at the episode; raise check.thresholds.max_lag_s if the arm is slower",
        )
        for a in np.flatnonzero(live)
        if a not in known
    ]  # fmt: skip


def lag_measures(lags: Lags | None, layout: Layout, hz: float) -> dict[str, Any]:
    """Return the lags as plain JSON."""
    if lags is None:
        return {}
    rows = [
        {
            "action": int(m.action), "state": str(layout.state[m.state]), "mode": m.mode, "frames": round(m.lag, 2),
            "ms": round(1e3 * m.lag / hz, 1), "low": m.low, "high": m.high, "correlation": round(m.correlation, 4),
            "at_edge": m.at_edge,
        }
        for m in lags.matches
    ]  # fmt: skip
    overall = {"frames": lags.frames, "ms": round(1e3 * lags.frames / hz, 1), "low": lags.low, "high": lags.high}
    return {**overall, "elements": rows}
