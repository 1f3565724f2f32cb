"""Intervals and paired comparisons for success counts and means, so that no figure is shown without its uncertainty.

Clopper and Pearson (1934), Wilson (1927), McNemar's exact test (1947), Efron's percentile bootstrap (1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

from robot_rl.errors import ConfigError

Method = Literal["clopper_pearson", "wilson", "bootstrap", "student_t", "anytime"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided confidence interval; an infinite end means that the data say nothing there."""

    value: float
    low: float
    high: float
    level: float
    method: Method

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; an infinite end becomes `None`, which JSON has a word for."""
        low, high = (x if math.isfinite(x) else None for x in (self.low, self.high))
        return {"value": self.value, "low": low, "high": high, "level": self.level, "method": self.method}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Interval:
        """Build from `to_dict`'s values."""
        low = -math.inf if data["low"] is None else float(data["low"])
        high = math.inf if data["high"] is None else float(data["high"])
        return cls(float(data["value"]), low, high, float(data["level"]), data["method"])


@dataclass(frozen=True)
class PairedSuccess:
    """Two policies on the same seeds: who alone succeeded, and McNemar's exact two-sided p-value."""

    difference: float
    only_first: int
    only_second: int
    p_value: float


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise ConfigError(f"`level` must lie between 0 and 1, got {level}; 0.95 is a 95 % interval")


def _check_counts(successes: int, trials: int) -> None:
    if trials < 1 or not 0 <= successes <= trials:
        raise ConfigError(f"need 0 <= successes <= trials and trials >= 1, got {successes} of {trials}")


def _values(name: str, values: Sequence[float] | np.ndarray, least: int) -> np.ndarray:
    """Return finite float64 values, or raise naming what is wrong."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < least:
        raise ConfigError(f"`{name}` must be one-dimensional with at least {least} values, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ConfigError(f"`{name}` must be finite, got {array[~np.isfinite(array)][0]}")
    return array


def clopper_pearson(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Return the exact binomial interval: it covers the true rate at least `level` of the time, for any rate and n.

    Raises:
        ConfigError: Impossible counts or level.
    """
    _check_level(level)
    _check_counts(successes, trials)
    tail = (1.0 - level) / 2.0
    failures = trials - successes
    low = 0.0 if successes == 0 else float(special.betaincinv(successes, failures + 1, tail))
    high = 1.0 if failures == 0 else float(special.betaincinv(successes + 1, failures, 1.0 - tail))
    return Interval(successes / trials, low, high, level, "clopper_pearson")


def wilson(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Return Wilson's score interval: shorter than the exact one, right on average over rates.

    Raises:
        ConfigError: Impossible counts or level.
    """
    _check_level(level)
    _check_counts(successes, trials)
    z = float(special.ndtri(0.5 + level / 2.0))
    rate = successes / trials
    scale = 1.0 + z * z / trials
    centre = (rate + z * z / (2.0 * trials)) / scale
    half = z / scale * math.sqrt(rate * (1.0 - rate) / trials + z * z / (4.0 * trials * trials))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Interval(rate, low, high, level, "wilson")


def student_t(values: Sequence[float] | np.ndarray, *, level: float = 0.95) -> Interval:
    """Return the mean with Student's t interval, exact for normal values; one value alone has an infinite interval.

    Raises:
        ConfigError: No values, or values that are not finite.
    """
    _check_level(level)
    array = _values("values", values, 1)
    mean = float(array.mean())
    if len(array) < 2:
        return Interval(mean, -math.inf, math.inf, level, "student_t")
    half = float(special.stdtrit(len(array) - 1, 0.5 + level / 2.0)) * float(array.std(ddof=1)) / math.sqrt(len(array))
    return Interval(mean, mean - half, mean + half, level, "student_t")


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Return the mean with its percentile bootstrap interval; one value alone has an infinite interval.

    Args:
        values: The sample, [n].
        level: Confidence level.
        resamples: Number of resampled means.
        seed: Seed of the resampling, so that a report can be made again to the digit.

    Raises:
        ConfigError: No values, or values that are not finite.
    """
    _check_level(level)
    array = _values("values", values, 1)
    mean = float(array.mean())
    if len(array) < 2:
        return Interval(mean, -math.inf, math.inf, level, "bootstrap")
    rng = np.random.default_rng(seed)
    # One resample at a time: memory stays at n, however many resamples.
    means = np.array([array[rng.integers(len(array), size=len(array))].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(mean, float(low), float(high), level, "bootstrap")


def paired_success(first: Sequence[bool], second: Sequence[bool]) -> PairedSuccess:
    """Compare two policies on the same seeds; only the seeds on which they differ say anything.

    Under "no difference" the discordant seeds are fair coin flips, hence the exact binomial p-value.

    Args:
        first: Whether the first policy succeeded, one per seed.
        second: The same for the second policy, in the same order of seeds.

    Raises:
        ConfigError: Unequal lengths or none.
    """
    if len(first) != len(second) or len(first) == 0:
        raise ConfigError(f"paired results need one each per seed, got {len(first)} and {len(second)}")
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p_value = min(1.0, 2.0 * float(special.bdtr(min(only_a, only_b), only_a + only_b, 0.5)))
    return PairedSuccess((only_a - only_b) / len(a), only_a, only_b, p_value)


def paired_mean(
    first: Sequence[float], second: Sequence[float], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Return the mean of `first - second` over the same seeds with its bootstrap interval.

    Raises:
        ConfigError: Unequal lengths, none, or values that are not finite.
    """
    if len(first) != len(second):
        raise ConfigError(f"paired results need one each per seed, got {len(first)} and {len(second)}")
    difference = _values("first", first, 1) - _values("second", second, 1)
    return bootstrap_mean(difference, level=level, resamples=resamples, seed=seed)
