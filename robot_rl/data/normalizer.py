"""Statistics of a data set and the affine maps made from them.

One streaming pass in float64: blocks are joined by the pairwise rule of Chan, Golub and LeVeque (1979), so neither the
number of rows nor a large mean costs precision. Quantiles come from a uniform sample without replacement of at most
`RESERVOIR_ROWS` rows and `RESERVOIR_NUMBERS` numbers: exact up to that many, an estimate beyond.

A feature that does not move would be blown up by its own noise. As in diffusion_policy, where the range is below 1e-4
the scale is 1 and the minimum goes to zero, in every mode but identity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from robot_rl.errors import ConfigError, DataFormatError

NormMode = Literal["min_max", "mean_std", "quantile", "identity"]
NORM_MODES: tuple[str, ...] = ("min_max", "mean_std", "quantile", "identity")
RESERVOIR_ROWS = 2**16
RESERVOIR_NUMBERS = 2**20
MIN_RANGE = 1e-4


@dataclass(frozen=True)
class FieldStats:
    """Element-wise statistics of one field over `count` rows; arrays float64 of one row's shape, physical units."""

    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray  # of the population (divided by count)
    q01: np.ndarray
    q99: np.ndarray
    count: int

    def merge(self, other: FieldStats) -> FieldStats:
        """Return statistics of both sets of rows.

        All are exact but the quantiles, which cannot be joined from summaries: they become count-weighted means. Use
        `StatsAccumulator.merge` where the rows' sample is still at hand.
        """
        n = self.count + other.count
        w = other.count / n
        delta = other.mean - self.mean
        var = (1 - w) * self.std**2 + w * other.std**2 + w * (1 - w) * delta**2
        return FieldStats(
            min=np.minimum(self.min, other.min),
            max=np.maximum(self.max, other.max),
            mean=self.mean + w * delta,
            std=np.sqrt(var),
            q01=(1 - w) * self.q01 + w * other.q01,
            q99=(1 - w) * self.q99 + w * other.q99,
            count=n,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {f.name: np.asarray(getattr(self, f.name)).tolist() for f in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FieldStats:
        """Build from `to_dict`'s values.

        Raises:
            DataFormatError: A key is missing or unknown.
        """
        names = {f.name for f in fields(cls)}
        if set(data) != names:
            raise DataFormatError(f"field statistics need {sorted(names)}, got {sorted(data)}")
        arrays = {name: np.asarray(data[name], dtype=np.float64) for name in names - {"count"}}
        return cls(**arrays, count=int(data["count"]))


class StatsAccumulator:
    """Takes rows block by block and gives their `FieldStats`; two of them can be merged.

    Args:
        reservoir_rows: Rows kept for the quantiles, fewer where they are very wide.
        seed: Chooses which rows are kept when there are more.
    """

    def __init__(self, *, reservoir_rows: int = RESERVOIR_ROWS, seed: int = 0) -> None:
        self._capacity = reservoir_rows
        self._rng = np.random.default_rng(seed)
        self._count = 0
        self._mean = self._m2 = self._min = self._max = np.zeros(0)
        self._kept = np.zeros(0)  # [kept, ...]
        self._keys = np.zeros(0)  # [kept]; the rows with the smallest keys are a uniform sample

    def update(self, rows: np.ndarray) -> None:
        """Add a block of rows [n, ...]."""
        if len(rows) == 0:
            return
        block = np.asarray(rows, dtype=np.float64)
        mean = block.mean(axis=0)
        m2 = np.square(block - mean).sum(axis=0)
        self._join(len(block), mean, m2, (block.min(axis=0), block.max(axis=0)))
        self._keep(rows, self._rng.random(len(block)))

    def merge(self, other: StatsAccumulator) -> None:
        """Add everything the other one has seen; give the two different seeds."""
        if other._count:
            self._join(other._count, other._mean, other._m2, (other._min, other._max))
            self._keep(other._kept, other._keys)

    def _join(self, n: int, mean: np.ndarray, m2: np.ndarray, bounds: tuple[np.ndarray, np.ndarray]) -> None:
        if self._count == 0:
            self._count, self._mean, self._m2, (self._min, self._max) = n, mean, m2, bounds
            return
        total = self._count + n
        delta = mean - self._mean
        self._m2 = self._m2 + m2 + np.square(delta) * (self._count * n / total)
        self._mean = self._mean + delta * (n / total)
        self._min, self._max = np.minimum(self._min, bounds[0]), np.maximum(self._max, bounds[1])
        self._count = total

    def _keep(self, rows: np.ndarray, keys: np.ndarray) -> None:
        if len(self._keys):
            rows, keys = np.concatenate([self._kept, rows]), np.concatenate([self._keys, keys])
        capacity = min(self._capacity, max(1, RESERVOIR_NUMBERS // max(1, math.prod(rows.shape[1:]))))
        if len(keys) > capacity:
            chosen = np.argpartition(keys, capacity)[:capacity]
            rows, keys = rows[chosen], keys[chosen]
        self._kept, self._keys = rows, keys

    def finish(self) -> FieldStats:
        """Return the statistics so far.

        Raises:
            ConfigError: No row has been seen.
        """
        if self._count == 0:
            raise ConfigError("statistics need at least one valid row, got none")
        q01, q99 = np.quantile(self._kept.astype(np.float64), [0.01, 0.99], axis=0)
        std = np.sqrt(self._m2 / self._count)
        return FieldStats(self._min, self._max, self._mean, std, q01, q99, self._count)


@runtime_checkable
class RowSource(Protocol):
    """What statistics are taken of; an `EpisodeTable` is one."""

    @property
    def names(self) -> Sequence[str]:
        """Columns."""

    def is_frame(self, name: str) -> bool:
        """Whether the column holds pictures, which have fixed statistics."""

    def episode_rows(self, name: str) -> Iterable[np.ndarray]:
        """Yield every valid row once, in blocks."""


@runtime_checkable
class HasTable(Protocol):
    """A data set over a table; a `WindowDataset` is one."""

    @property
    def table(self) -> RowSource:
        """Its rows."""


def fit_stats(dataset: HasTable, *, seed: int = 0) -> dict[str, FieldStats]:
    """Return statistics of the action and each low-dimensional observation over the data set's valid steps.

    Each step counts once, however many windows hold it, and padding never counts. Pass the training data set only:
    held-out episodes must not shape the policy.

    Args:
        dataset: A `WindowDataset` of the training episodes.
        seed: Chooses the rows of the quantiles' sample.
    """
    table = dataset.table
    stats = {}
    for name in table.names:
        if table.is_frame(name):
            continue
        accumulator = StatsAccumulator(seed=seed)
        for rows in table.episode_rows(name):
            accumulator.update(rows)
        stats[name] = accumulator.finish()
    return stats


@dataclass(frozen=True)
class Affine:
    """The map x * scale + offset, element by element over the trailing axes; float64, scale never zero."""

    scale: np.ndarray
    offset: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", np.asarray(self.scale, dtype=np.float64))
        object.__setattr__(self, "offset", np.asarray(self.offset, dtype=np.float64))
        usable = np.isfinite(self.scale) & np.isfinite(self.offset) & (self.scale != 0.0)
        if not usable.all():
            raise ConfigError(f"an affine map needs finite numbers and no zero scale, got {self.to_dict()}")

    def normalise(self, x: np.ndarray) -> np.ndarray:
        """Return `x` [..., *shape] in normalised units, in its own float dtype."""
        return _like(x, np.asarray(x, dtype=np.float64) * self.scale + self.offset)

    def unnormalise(self, y: np.ndarray) -> np.ndarray:
        """Return `y` [..., *shape] in physical units, in its own float dtype."""
        return _like(y, (np.asarray(y, dtype=np.float64) - self.offset) / self.scale)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"scale": self.scale.tolist(), "offset": self.offset.tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Affine:
        """Build from `to_dict`'s values.

        Raises:
            DataFormatError: A key is missing or unknown.
        """
        if set(data) != {"scale", "offset"}:
            raise DataFormatError(f"an affine map needs ['offset', 'scale'], got {sorted(data)}")
        return cls(np.asarray(data["scale"]), np.asarray(data["offset"]))


def _like(x: np.ndarray, value: np.ndarray) -> np.ndarray:
    dtype = np.asarray(x).dtype
    return value.astype(dtype, copy=False) if dtype.kind == "f" else value


def affine_for(stats: FieldStats, mode: NormMode, *, min_range: float = MIN_RANGE) -> Affine:
    """Return the map that normalises a field.

    Args:
        stats: Its statistics over the training data.
        mode: `min_max` takes [min, max] to [-1, 1]; `quantile` takes [q01, q99] there and does not clip what lies
            outside; `mean_std` takes the mean to 0 and one standard deviation to 1; `identity` changes nothing.
        min_range: A feature with max - min below this counts as constant: scale 1, its minimum goes to 0. Where only
            the mode's own spread is that small (a rare spike on a constant), the feature falls back to `min_max`.

    Raises:
        ConfigError: An unknown mode.
    """
    if mode not in NORM_MODES:
        raise ConfigError(f"`mode` of normalisation must be one of {NORM_MODES}, got {mode!r}")
    ones, zeros = np.ones_like(stats.mean), np.zeros_like(stats.mean)
    if mode == "identity":
        return Affine(ones, zeros)
    low, high = {
        "min_max": (stats.min, stats.max),
        "quantile": (stats.q01, stats.q99),
        "mean_std": (stats.mean - stats.std, stats.mean + stats.std),
    }[mode]
    narrow = high - low < min_range
    low, high = np.where(narrow, stats.min, low), np.where(narrow, stats.max, high)
    constant = stats.max - stats.min < min_range
    half = np.where(constant, 1.0, (high - low) / 2)
    centre = np.where(constant, stats.min, (high + low) / 2)
    return Affine(1.0 / half, -centre / half)
