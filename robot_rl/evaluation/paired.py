"""Two policies on the same starts, judged while the trials come in: is the candidate not worse than the incumbent?

A bet against "the difference of success rates is at most m": each pair gives d = +1 (only the candidate succeeds), 0 or
-1, and the wealth prod(1 + s (d - m)), a supermartingale if the claim is true, is averaged over stakes s. Wealth beyond
1 / alpha refutes the claim at whatever moment it is read (Ville's inequality; Waudby-Smith and Ramdas 2024). With m = 0
only discordant pairs count, and this is McNemar's comparison as a sequential likelihood-ratio test with theta uniform
on (1/2, 1). STEP (Snyder et al. 2025) is sharper at a fixed largest number of trials, which we do not need to fix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from robot_rl.errors import ConfigError
from robot_rl.evaluation.sequential import Verdict
from robot_rl.evaluation.statistics import Interval

_STAKES = (np.arange(200) + 0.5) / 200
"""Shares of the largest stake that cannot lose everything; an even mixture of them."""


@dataclass(frozen=True)
class PairCounts:
    """Pairs by who succeeded.

    Args:
        wins: Only the candidate did.
        ties: Both or neither.
        losses: Only the incumbent did.
    """

    wins: int
    ties: int
    losses: int

    @property
    def n(self) -> int:
        """Number of pairs."""
        return self.wins + self.ties + self.losses

    @classmethod
    def of(cls, candidate: Sequence[bool], incumbent: Sequence[bool]) -> PairCounts:
        """Count outcomes of the same starts.

        Raises:
            ConfigError: Unequal lengths.
        """
        if len(candidate) != len(incumbent):
            raise ConfigError(f"paired results need one each per start, got {len(candidate)} and {len(incumbent)}")
        difference = [bool(c) - bool(i) for c, i in zip(candidate, incumbent, strict=True)]
        return cls(difference.count(1), difference.count(0), difference.count(-1))


@dataclass(frozen=True)
class PairedProgress:
    """Where a paired comparison stands.

    Args:
        verdict: `accept` (not worse by more than the margin), `reject` (worse by more), `continue`, or `undecided`.
        counts: Pairs that counted, up to the decision.
        evidence_for: Wealth against "worse by the margin or more".
        evidence_against: Wealth against "not worse by more than the margin".
        difference: Rate of the candidate minus that of the incumbent, with an interval that holds whenever one stops.
    """

    verdict: Verdict
    counts: PairCounts
    evidence_for: float
    evidence_against: float
    difference: Interval

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "difference": self.difference.to_dict()}


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Is the candidate's success rate higher than the incumbent's less `margin`?

    Args:
        margin: How much worse is still accepted; 0 asks for a better candidate.
        alpha: Probability to accept one that is worse by the margin or more, at any number of pairs.
        beta: Probability to reject one that is not.
        max_pairs: Pairs after which the test ends undecided, which is not accepted.

    Raises:
        ConfigError: A margin outside [0, 1), error rates outside (0, 0.5), or no pair.
    """

    margin: float = 0.05
    alpha: float = 0.05
    beta: float = 0.05
    max_pairs: int = 300

    def __post_init__(self) -> None:
        if not 0.0 <= self.margin < 1.0:
            raise ConfigError(f"`margin` must be in [0, 1), got {self.margin}")
        if not (0.0 < self.alpha < 0.5 and 0.0 < self.beta < 0.5):
            raise ConfigError(f"`alpha` and `beta` must lie between 0 and 0.5, got {self.alpha} and {self.beta}")
        if self.max_pairs < 1:
            raise ConfigError(f"`max_pairs` must be at least 1, got {self.max_pairs}")

    def judge(self, candidate: Sequence[bool], incumbent: Sequence[bool]) -> PairedProgress:
        """Return where the test stands after the outcomes of the same starts, in the order of the starts.

        Raises:
            ConfigError: Unequal lengths.
        """
        PairCounts.of(candidate, incumbent)  # refuses unequal lengths
        first, second = (np.asarray(side[: self.max_pairs], dtype=np.int64) for side in (candidate, incumbent))
        after = cumulated(first - second)  # [n + 1]: before the first pair and after each
        log_for, log_against = log_wealth(*after, -self.margin), log_wealth(*after, -self.margin, below=True)
        decided = (log_for >= -math.log(self.alpha)) | (log_against >= -math.log(self.beta))
        n = int(decided.argmax()) if decided.any() else len(first)
        verdict: Verdict = "undecided" if n == self.max_pairs else "continue"
        if decided[n]:
            verdict = "accept" if log_for[n] >= -math.log(self.alpha) else "reject"
        counts = PairCounts(*(int(kind[n]) for kind in after))
        interval = difference_interval(counts)
        return PairedProgress(verdict, counts, math.exp(log_for[n]), math.exp(log_against[n]), interval)


def cumulated(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return wins, ties and losses after each pair, [..., n + 1] each, for differences +1, 0, -1 [..., n]."""
    none = [(0, 0)] * (difference.ndim - 1)
    wins, ties, losses = (np.pad(np.cumsum(difference == d, axis=-1), [*none, (1, 0)]) for d in (1, 0, -1))
    return wins, ties, losses


def log_wealth(wins: np.ndarray, ties: np.ndarray, losses: np.ndarray, m: float, *, below: bool = False) -> np.ndarray:
    """Return the log-wealth of the bet against "the difference is at most m", or, `below`, "at least m".

    Args:
        wins: Pairs in which only the candidate succeeded, of any shape.
        ties: Pairs in which both did or neither, of the same shape.
        losses: Pairs in which only the incumbent did, of the same shape.
        m: A difference of rates in (-1, 1).
        below: Bet against the other side.
    """
    if below:
        wins, losses, m = losses, wins, -m
    s = _STAKES / (1.0 + m)
    w, t, x = (np.asarray(count, dtype=np.float64)[..., None] for count in (wins, ties, losses))
    each = w * np.log1p(s * (1.0 - m)) + t * np.log1p(-s * m) + x * np.log1p(-s * (1.0 + m))
    most = each.max(axis=-1)
    return np.asarray(most + np.log(np.exp(each - most[..., None]).mean(axis=-1)))


def difference_interval(counts: PairCounts, *, level: float = 0.95) -> Interval:
    """Return the interval of the difference of success rates that holds at all numbers of pairs at once."""
    limit = -math.log((1.0 - level) / 2.0)
    value = 0.0 if counts.n == 0 else (counts.wins - counts.losses) / counts.n
    low = _edge(counts, limit)
    high = -_edge(PairCounts(counts.losses, counts.ties, counts.wins), limit)
    return Interval(value, low, high, level, "anytime")


def _edge(counts: PairCounts, limit: float) -> float:
    """Return the largest difference m such that "at most m" is refuted; evidence falls as m grows."""
    low, high = -1.0 + 1e-9, 1.0 - 1e-9
    wins, ties, losses = (np.array(count) for count in (counts.wins, counts.ties, counts.losses))

    def refuted(m: float) -> bool:
        return bool(log_wealth(wins, ties, losses, m) >= limit)

    if not refuted(low):
        return -1.0
    for _ in range(30):
        middle = (low + high) / 2.0
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class TwoRates:
    """Two independent success rates compared at a fixed number of trials: one-sided p-values for `first` > `second`."""

    barnard: float
    fisher: float


def compare_rates(first: tuple[int, int], second: tuple[int, int]) -> TwoRates:
    """Compare successes and trials of two policies whose trials are not paired.

    Barnard's exact test (1945) with the pooled score statistic, and Fisher's, which conditions on the total and is less
    sharp. Two-sided p-values are at most twice these.

    Args:
        first: Successes and trials.
        second: Likewise.

    Raises:
        ConfigError: Impossible counts.
    """
    for k, n in (first, second):
        if n < 1 or not 0 <= k <= n:
            raise ConfigError(f"need 0 <= successes <= trials and trials >= 1, got {k} of {n}")
    table = [[first[0], second[0]], [first[1] - first[0], second[1] - second[0]]]
    if first[0] + second[0] in (0, first[1] + second[1]):  # one outcome only: nothing to tell apart
        return TwoRates(1.0, 1.0)
    barnard = float(stats.barnard_exact(table, alternative="greater").pvalue)
    return TwoRates(barnard, float(stats.fisher_exact(table, alternative="greater").pvalue))
