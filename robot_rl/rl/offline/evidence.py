"""Paired evidence: bounds of a mean of differences that come in clusters, and whether a score may be trusted to choose.

Starts of one episode resemble each other, so an episode, not a start, is what is drawn again. Cameron, Gelbach and
Miller 2008 on bootstrapping clusters; the sandwich for clusters after Liang and Zeger 1986.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from robot_rl.errors import ConfigError

LEAST_CHECKPOINTS = 8
LEAST_RANK_CORRELATION = 0.6
LARGEST_INVERSION = 0.10


@dataclass(frozen=True)
class PairedBound:
    """Mean of paired differences, its standard error over clusters, and a one-sided lower bound."""

    mean: float
    se: float
    low: float


def paired_bound(
    difference: np.ndarray, cluster: np.ndarray, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> PairedBound:
    """Return the mean of `difference` [S] and its lower bound: the lesser of Student's t and a bootstrap, by clusters.

    With few clusters the bootstrap is too narrow, with skewed differences t is; hence the lesser of both.

    Args:
        difference: Paired differences, new minus old.
        cluster: [S], which cluster (episode) each belongs to.
        level: Confidence of the bound, one-sided.
        resamples: Of clusters.
        seed: Of the resampling.

    Raises:
        ConfigError: Fewer than two clusters, or differences that are not finite.
    """
    d = np.asarray(difference, dtype=np.float64)
    if not np.isfinite(d).all():
        raise ConfigError(f"scores must be finite, got {d[~np.isfinite(d)][0]}; look at critic and dynamics")
    _, number = np.unique(np.asarray(cluster), return_inverse=True)
    g = int(number.max()) + 1 if len(number) else 0
    if g < 2:
        raise ConfigError(f"a bound needs starts of at least 2 episodes, got {g}; add episodes to the store")
    total, size = np.bincount(number, weights=d), np.bincount(number)
    mean = float(d.mean())
    residual = np.bincount(number, weights=d - mean)
    se = float(np.sqrt((residual**2).sum() * g / (g - 1)) / len(d))
    drawn = np.random.default_rng(seed).integers(g, size=(resamples, g))
    means = total[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    t = mean - float(special.stdtrit(g - 1, level)) * se
    return PairedBound(mean, se, min(t, float(np.quantile(means, 1 - level))))


@dataclass(frozen=True)
class Validity:
    """What a score is good for.

    Args:
        rank_correlation: Spearman's, between score and true success; NaN where one of them is constant.
        worst_inversion: Most that a checkpoint with a higher score succeeded less than one with a lower score.
        n: Checkpoints.
        may_select: Whether the score may choose among policies; if not it may only protect from bad ones.
    """

    rank_correlation: float
    worst_inversion: float
    n: int
    may_select: bool

    def sentence(self) -> str:
        """Return the verdict in words."""
        verdict = "may select" if self.may_select else "may only protect"
        return (
            f"{verdict}: Spearman {self.rank_correlation:.2f} (at least {LEAST_RANK_CORRELATION}), worst inversion "
            f"{100 * self.worst_inversion:.0f} points (at most {100 * LARGEST_INVERSION:.0f}), {self.n} checkpoints "
            f"(at least {LEAST_CHECKPOINTS})"
        )


def validity(score: Sequence[float], success: Sequence[float]) -> Validity:
    """Return what a score is good for, from checkpoints whose true success is known.

    Args:
        score: One of each checkpoint.
        success: Its success rate, 0 to 1.

    Raises:
        ConfigError: Unequal lengths or fewer than two.
    """
    s, t = np.asarray(score, dtype=np.float64), np.asarray(success, dtype=np.float64)
    if s.shape != t.shape or s.ndim != 1 or len(s) < 2:
        raise ConfigError(f"need one score and one success rate per checkpoint, at least 2, got {s.shape}, {t.shape}")
    constant = np.ptp(s) == 0 or np.ptp(t) == 0
    rank = math.nan if constant else float(stats.spearmanr(s, t).statistic)
    worse = np.where(s[:, None] > s[None], t[None] - t[:, None], 0.0)  # [a, b]: a scored higher and succeeded less
    worst = float(max(worse.max(), 0.0))
    fits = len(s) >= LEAST_CHECKPOINTS and rank >= LEAST_RANK_CORRELATION and worst <= LARGEST_INVERSION + 1e-12
    return Validity(rank, worst, len(s), bool(fits))
