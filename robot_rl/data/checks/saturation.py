"""Elements that rest at an end of their range for much of a store: at a mechanical stop, a limit, or clipped."""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_rl.data.checks.finding import Finding
from robot_rl.data.checks.profile import Profile
from robot_rl.data.checks.thresholds import Thresholds
from robot_rl.data.checks.view import EpisodeView, Layout, runs

END = 0.005
"""Share of an element's range that counts as its end."""
MIN_RUN_S = 0.2
"""A shorter stay is a turning point."""
MIN_EPISODES, MIN_SHARE = 3, 0.1
"""Episodes that must stay there: in fewer, the end of the range is only where the farthest of them paused."""


class Saturation:
    """Counts, per column of `EpisodeView.table`, frames spent at the low and at the high end of the store's range.

    Stays that begin or end an episode are no saturation: robots start and finish where they were told to.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._frames = self._episodes = 0
        self._stayed = np.zeros((2, len(profile.low)), np.int64)
        self.counts = np.zeros((2, len(profile.low)), np.int64)

    def add(self, view: EpisodeView) -> None:
        """Count one episode."""
        x, p = view.table, self._profile
        self._frames += len(x)
        self._episodes += 1
        need = max(3, round(MIN_RUN_S * view.hz))
        at_end = (x <= p.low + END * p.range, x >= p.high - END * p.range)
        for side, mask in enumerate(at_end):
            for c in np.flatnonzero(mask.any(axis=0) & (p.range > 0) & ~p.two_state):
                stays = [e - b for b, e in runs(mask[:, c]) if b > 0 and e < len(x) and e - b >= need]
                self.counts[side, c] += sum(stays)
                self._stayed[side, c] += bool(stays)

    @property
    def shares(self) -> np.ndarray:
        """Share of all frames at the low and the high end, [2, S + A]."""
        return np.asarray(self.counts / max(1, self._frames))

    def findings(self, layout: Layout, thresholds: Thresholds) -> list[Finding]:
        """Return the elements that are stuck at an end too often; one that lives at both ends only switches."""
        elements = (*layout.state, *layout.action)
        often = self._stayed >= max(MIN_EPISODES, MIN_SHARE * self._episodes)
        shares = np.where(often, self.shares, 0.0)
        found = []
        for c in np.flatnonzero(shares.max(axis=0) >= thresholds.saturated):
            side = int(shares[:, c].argmax())
            bound = (self._profile.low, self._profile.high)[side][c]
            share, element = float(self.shares[side, c]), elements[c]
            found.append(
                Finding(
                    check="saturated", severity="warn", stream=element.stream, element=element.index, value=share,
                    threshold=thresholds.saturated, unit="share",
                    what=f"stuck at its {('lower', 'upper')[side]} end {bound:.4g} for {100 * share:.0f} % of frames",
                    advice="if this is a stop or a limit, what was commanded beyond it is lost: widen the limit, "
                    "rescale the sensor, or leave the element out",
                )
            )  # fmt: skip
        return found

    def measures(self, layout: Layout) -> list[dict[str, Any]]:
        """Return the shares of each element as plain JSON."""
        return [
            {"element": str(element), "low": round(float(low), 4), "high": round(float(high), 4)}
            for element, low, high in zip((*layout.state, *layout.action), *self.shares, strict=True)
        ]
