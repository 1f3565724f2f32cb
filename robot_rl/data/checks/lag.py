"""How long after an action the state follows, per action element, by cross-correlation within episodes.

For every pair of an action element a and a state element s the correlation of a[n] with s[n + k] is taken at each lag
k over all episodes together, the mean of either over the overlap taken out in each. A state may follow the action
itself (commanded positions) or move by it (commanded steps, velocities), so s[n + 1] - s[n] is tried as well.
The elements are paired by these correlations; names are not looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MIN_LAG = -3
"""Lags below zero: the state moves before its action, as when actions were stamped late."""
GROUPS = 32
"""Episodes are summed in so many groups, from which the bootstrap draws."""
SURE, DRIVES = 0.9, 0.8
"""Correlation from which a match is sure, and from which the action is taken to move the state."""
_DRAWS = 200
_GAIN = 0.05
MODES = ("follows", "moves by")


@dataclass(frozen=True)
class Match:
    """An action element and the state element that follows it.

    Args:
        action: Action element.
        state: Column of the state table.
        mode: `follows` the action's value, or `moves by` it.
        lag: Ticks at the best whole lag, refined by a parabola.
        correlation: At the best lag, with its sign.
        low: 2.5th percentile of the best whole lag over draws of episodes.
        high: 97.5th percentile.
        at_edge: The best lag is the first or the last tried, so that the true one may lie beyond, or there is none.
    """

    action: int
    state: int
    mode: str
    lag: float
    correlation: float
    low: int
    high: int
    at_edge: bool

    @property
    def frames(self) -> int:
        """The best whole lag in ticks."""
        return math.floor(self.lag + 0.5)

    @property
    def sure(self) -> bool:
        """Whether the state surely follows, so that the lag is good to about a tick."""
        return abs(self.correlation) >= SURE and not self.at_edge

    @property
    def drives(self) -> bool:
        """Whether the action may be taken to move the state; an episode with a stuck joint costs correlation."""
        return abs(self.correlation) >= DRIVES and not self.at_edge


@dataclass(frozen=True)
class Lags:
    """What was found in a store.

    Args:
        matches: One per action element that some state element follows.
        frames: The whole lag at which the squared correlations have the largest mean over the sure matches, over all
            where none is sure.
        low: 2.5th percentile of `frames` over draws of episodes.
        high: 97.5th percentile.
    """

    matches: tuple[Match, ...]
    frames: int
    low: int
    high: int


class LagEstimator:
    """Sums of products per lag, pair and group of episodes; memory does not grow with the number of episodes.

    Args:
        n_action: Action elements, A.
        n_state: State elements, S.
        max_lag: Largest lag tried, in ticks.
    """

    def __init__(self, n_action: int, n_state: int, max_lag: int) -> None:
        self.lags = np.arange(MIN_LAG, max_lag + 1)
        shape = (GROUPS, len(MODES), len(self.lags))
        self._xy = np.zeros((*shape, n_action, n_state), np.float32)
        self._xx = np.zeros((*shape, n_action))
        self._yy = np.zeros((*shape, n_state))
        self._count = 0

    def add(self, action: np.ndarray, state: np.ndarray) -> None:
        """Sum one episode, float64 [N, A] and [N, S]."""
        group = self._count % GROUPS
        self._count += 1
        for mode, y in enumerate((state, np.diff(state, axis=0))):
            for i, lag in enumerate(self.lags.tolist()):
                start, stop = max(0, -lag), min(len(action), len(y) - lag)
                if stop - start < max(4, len(y) // 2):
                    continue
                a = action[start:stop] - action[start:stop].mean(axis=0)
                s = y[start + lag : stop + lag] - y[start + lag : stop + lag].mean(axis=0)
                # Means over the rows of the overlap, so that a lag with less of it is not preferred.
                self._xy[group, mode, i] += a.T @ s / len(a)
                self._xx[group, mode, i] += (a * a).mean(axis=0)
                self._yy[group, mode, i] += (s * s).mean(axis=0)

    def result(self, *, min_correlation: float, seed: int = 0) -> Lags | None:
        """Return the lags; `None` where no state element follows any action element.

        Args:
            min_correlation: What a pair must reach at its best lag.
            seed: Of the draws behind the intervals.
        """
        pairs = self._pairs(min_correlation) if self._xy.size else []
        if not pairs:
            return None
        a, s, mode = (np.array(column) for column in zip(*pairs, strict=True))
        xy = self._xy[:, mode, :, a, s].transpose(1, 2, 0).astype(np.float64)  # [G, K, D]
        xx, yy = self._xx[:, mode, :, a].transpose(1, 2, 0), self._yy[:, mode, :, s].transpose(1, 2, 0)
        weights = self._draws(seed)  # [draws, G], the first counts every group once
        total = [np.einsum("wg,gkd->wkd", weights, part) for part in (xy, xx, yy)]
        corr = _correlation(*total)  # [draws, K, D]
        best = np.abs(corr).argmax(axis=1)  # [draws, D]
        matches = tuple(self._match(pair, corr[0, :, d], best[:, d]) for d, pair in enumerate(pairs))
        told = [m.sure for m in matches] if any(m.sure for m in matches) else [True for _ in matches]
        overall = self.lags[(corr[:, :, told] ** 2).mean(axis=2).argmax(axis=1)]
        low, high = _interval(overall)
        return Lags(matches, int(overall[0]), low, high)

    def _pairs(self, min_correlation: float) -> list[tuple[int, int, int]]:
        """Return (action, state, mode) of the best pair of each action element.

        Of pairs that correlate alike, the one whose gain is nearer to one is taken: a commanded joint angle is
        followed by that joint and, through it, by the hand.
        """
        xy, xx, yy = self._xy.sum(axis=0, dtype=np.float64), self._xx.sum(axis=0), self._yy.sum(axis=0)
        corr = np.abs(_correlation(xy, xx[..., None], yy[..., None, :]))  # [M, K, A, S]
        found = []
        for a in range(corr.shape[2]):
            with np.errstate(divide="ignore", invalid="ignore"):
                gain = np.abs(np.log(np.sqrt(yy / xx[:, :, a, None])))  # [M, K, S]
            score = corr[:, :, a] - _GAIN * np.minimum(np.nan_to_num(gain, nan=2.0, posinf=2.0), 2.0)
            mode, k, s = np.unravel_index(int(score.argmax()), score.shape)
            if corr[mode, k, a, s] >= min_correlation:
                found.append((a, int(s), int(mode)))
        return found

    def _draws(self, seed: int) -> np.ndarray:
        """Return how often each group counts, per draw."""
        groups = min(self._count, GROUPS)
        drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=_DRAWS)
        weights = np.zeros((_DRAWS + 1, GROUPS))
        weights[0], weights[1:, :groups] = 1.0, drawn
        return weights

    def _match(self, pair: tuple[int, int, int], corr: np.ndarray, best: np.ndarray) -> Match:
        k = int(best[0])
        low, high = _interval(self.lags[best])
        return Match(
            action=pair[0], state=pair[1], mode=MODES[pair[2]], lag=float(self.lags[k] + _vertex(np.abs(corr), k)),
            correlation=float(corr[k]), low=low, high=high, at_edge=k in (0, len(self.lags) - 1),
        )  # fmt: skip


def _correlation(xy: np.ndarray, xx: np.ndarray, yy: np.ndarray) -> np.ndarray:
    """Return correlations, 0 where either side does not vary."""
    scale = np.sqrt(xx * yy)
    return np.where(scale > 1e-12, xy / np.maximum(scale, 1e-12), 0.0)


def _vertex(curve: np.ndarray, k: int) -> float:
    """Return where between k - 1/2 and k + 1/2 the parabola through three points has its top."""
    if not 0 < k < len(curve) - 1:
        return 0.0
    before, at, after = curve[k - 1 : k + 2]
    bend = before - 2 * at + after
    return float(np.clip(0.5 * (before - after) / bend, -0.499, 0.499)) if bend < 0 else 0.0


def _interval(lags: np.ndarray) -> tuple[int, int]:
    """Return the 2.5th and 97.5th percentile of drawn lags."""
    low, high = np.percentile(lags[1:], [2.5, 97.5], method="nearest")
    return int(low), int(high)
