"""The same attempt twice: byte for byte, or nearly and shifted in time; and across the split that training makes.

Every episode is reduced to the mean and the deviation of each element. Nearest neighbours by these are compared frame
by frame at every shift, so the cost does not grow with the square of the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from scipy.spatial import cKDTree

from robot_rl.data.checks.finding import Finding
from robot_rl.data.checks.profile import Profile
from robot_rl.data.checks.thresholds import Thresholds
from robot_rl.data.checks.view import EpisodeView
from robot_rl.data.splits import Split

NEIGHBOURS = 6
RADIUS = 0.15
"""How far, in ranges, means and deviations of two near duplicates may lie apart (one may be trimmed)."""
OVERLAP = 0.8
"""Share of the shorter episode that two near duplicates have in common."""
_STRIDE = 8
_CACHED = 64


@dataclass(frozen=True)
class Pair:
    """Two episodes that are one.

    Args:
        a: The first in order.
        b: The other.
        kind: `exact` when state and action are equal bytes, else `near`.
        difference: Root mean square difference, in ranges of the elements.
        shift: Ticks by which `b` begins later in the attempt than `a`.
    """

    a: str
    b: str
    kind: Literal["exact", "near"]
    difference: float
    shift: int


class Duplicates:
    """Gathers a digest and a few numbers per episode, then looks for pairs."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._digests: list[bytes] = []
        self._features: list[np.ndarray] = []

    def add(self, view: EpisodeView) -> None:
        """Note one episode."""
        table = view.table
        self.ids.append(view.id)
        self._digests.append(hashlib.sha256(table.tobytes()).digest())
        self._features.append(np.stack([table.mean(axis=0), table.std(axis=0)]))

    def pairs(
        self, profile: Profile, fetch: Callable[[str], np.ndarray], *, hz: float, thresholds: Thresholds
    ) -> list[Pair]:
        """Return the pairs, each episode with the first that it repeats or with its near duplicates.

        Args:
            profile: Of the store.
            fetch: Returns the table [N, S + A] of an episode.
            hz: Control rate.
            thresholds: `near_duplicate`, `max_shift_s`, `max_pairs`.
        """
        first: dict[bytes, int] = {}
        found, unique = [], []
        for i, digest in enumerate(self._digests):
            if digest in first:
                found.append(Pair(self.ids[first[digest]], self.ids[i], "exact", 0.0, 0))
            else:
                first[digest] = i
                unique.append(i)
        live = profile.live
        if len(unique) < 2 or not live.any():
            return found
        scale = profile.range[live]

        @lru_cache(maxsize=_CACHED)
        def scaled(i: int) -> np.ndarray:
            return np.asarray(fetch(self.ids[i])[:, live] / scale, np.float32)

        shifts = round(thresholds.max_shift_s * hz)
        for i, j in self._candidates(unique, live, scale)[: thresholds.max_pairs]:
            difference, shift = nearest_shift(scaled(i), scaled(j), shifts)
            if difference <= thresholds.near_duplicate:
                found.append(Pair(self.ids[i], self.ids[j], "near", difference, shift))
        return found

    def _candidates(self, unique: Sequence[int], live: np.ndarray, scale: np.ndarray) -> list[tuple[int, int]]:
        """Return pairs of neighbours, the nearest first."""
        features = np.stack([(self._features[i][:, live] / scale).ravel() for i in unique])
        k = min(NEIGHBOURS + 1, len(unique))
        far, near = cKDTree(features).query(features, k=k, p=np.inf, distance_upper_bound=RADIUS)
        pairs = {}
        for row, (distances, columns) in enumerate(zip(far, near, strict=True)):
            for distance, column in zip(distances, columns, strict=True):
                if np.isfinite(distance) and column != row:
                    pair = (unique[min(row, column)], unique[max(row, column)])
                    pairs[pair] = float(distance)
        return sorted(pairs, key=lambda pair: pairs[pair])


def nearest_shift(a: np.ndarray, b: np.ndarray, max_shift: int) -> tuple[float, int]:
    """Return the least root mean square difference of two tables [N, D] over shifts of `b`, and that shift.

    The shift is chosen on every eighth row and the difference then taken over all.
    """
    need = OVERLAP * min(len(a), len(b))
    best = (np.inf, 0)
    for shift in range(-max_shift, max_shift + 1):
        x, y = _overlap(a, b, shift)
        if len(x) >= max(need, 2):
            best = min(best, (_rms(x[::_STRIDE], y[::_STRIDE]), shift))
    if not np.isfinite(best[0]):
        return best
    return _rms(*_overlap(a, b, best[1])), best[1]


def _overlap(a: np.ndarray, b: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that coincide when row 0 of `b` is row `shift` of `a`."""
    x, y = a[max(0, shift) :], b[max(0, -shift) :]
    n = min(len(x), len(y))
    return x[:n], y[:n]


def _rms(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sqrt(np.mean((x - y) ** 2)))


def check_duplicates(pairs: Sequence[Pair], ids: Sequence[str], split: Split, thresholds: Thresholds) -> list[Finding]:
    """Return one finding for each pair, and one for the store when a pair lies on both sides of the split."""
    findings = [
        Finding(
            check="duplicate", severity="warn", episode=pair.b, value=pair.difference, unit="range",
            threshold=thresholds.near_duplicate,
            what=f"{'equals' if pair.kind == 'exact' else 'is nearly'} episode {pair.a}"
            + (f", {pair.shift:+d} ticks apart" if pair.shift else ""),
            advice="delete one of the two; it counts twice in training",
        )
        for pair in pairs
    ]  # fmt: skip
    val = {ids[i] for i in split.val}
    leaks = [pair for pair in pairs if (pair.a in val) != (pair.b in val)]
    if not leaks:
        return findings
    shown = ", ".join(f"{p.a} = {p.b}" for p in leaks[:5]) + (" ..." if len(leaks) > 5 else "")
    leak = Finding(
        check="leakage", severity="fail", value=float(len(leaks)), threshold=0.0, unit="pairs",
        what=f"{len(leaks)} of {len(pairs)} duplicate pairs lie on both sides of the train/validation split: {shown}",
        advice="delete the duplicates before training; the validation error is too good until then",
    )  # fmt: skip
    return [leak, *findings]


def duplicate_measures(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return the pairs as plain JSON."""
    return [{"a": p.a, "b": p.b, "kind": p.kind, "difference": round(p.difference, 6), "shift": p.shift} for p in pairs]
