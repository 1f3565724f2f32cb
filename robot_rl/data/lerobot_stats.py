"""Statistics of a LeRobot data set: per episode, and joined over episodes as LeRobot joins them.

Numbers have their own statistics element by element, exact; pictures per channel in [0, 1] over a spread of frames and
pixels. Departure: LeRobot estimates quantiles from histograms, these are exact; and a feature with several axes keeps
them, where LeRobot keeps the last one. Joined quantiles are count-weighted means of the episodes', as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_MIN_SAMPLES, _MAX_SAMPLES, _POWER = 100, 10_000, 0.75
_SHRINK_FROM, _SHRINK_TO = 300, 150

Stats = dict[str, np.ndarray]


def number_stats(rows: np.ndarray) -> Stats:
    """Return the statistics of rows [N, ...]; a scalar's have shape (1,), as everything LeRobot reads."""
    values = np.asarray(rows, np.float64)
    return _stats(values[:, None] if values.ndim == 1 else values, len(rows))


def picture_stats(pictures: np.ndarray) -> Stats:
    """Return the statistics of pictures [N, H, W, C] uint8 per channel, in [0, 1], each of shape (C, 1, 1)."""
    pixels = pictures.reshape(-1, pictures.shape[-1]).astype(np.float64) / 255.0
    stats = _stats(pixels, len(pictures))
    return {name: value if name == "count" else value[:, None, None] for name, value in stats.items()}


def _stats(values: np.ndarray, count: int) -> Stats:
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(axis=0), "max": values.max(axis=0), "mean": values.mean(axis=0), "std": values.std(axis=0),
        "count": np.array([count], np.int64), **dict(zip(QUANTILES, quantiles, strict=True)),
    }  # fmt: skip


def sampled_frames(n: int) -> list[int]:
    """Return which of an episode's `n` frames its picture statistics are taken of: all of up to 100, then n^0.75."""
    wanted = max(min(_MIN_SAMPLES, n), min(int(n**_POWER), _MAX_SAMPLES))
    return [int(i) for i in np.round(np.linspace(0, n - 1, wanted))]


def shrunk(picture: np.ndarray) -> np.ndarray:
    """Return a large picture [H, W, C] by every so many pixels, about 150 a side; a small one as it is."""
    longest = max(picture.shape[:2])
    step = longest // _SHRINK_TO if longest >= _SHRINK_FROM else 1
    return picture[::step, ::step]


def joined(episodes: Sequence[Mapping[str, Stats]]) -> dict[str, Stats]:
    """Return the statistics of all episodes together, by feature."""
    return {feature: _join([stats[feature] for stats in episodes]) for feature in (episodes[0] if episodes else ())}


def _join(parts: Sequence[Stats]) -> Stats:
    total = np.sum([part["count"] for part in parts], axis=0)

    def weighted(values: Sequence[np.ndarray]) -> np.ndarray:
        weights = [float(part["count"][0] / total[0]) for part in parts]
        return np.asarray(sum(w * value for w, value in zip(weights, values, strict=True)))

    mean = weighted([part["mean"] for part in parts])
    var = weighted([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])
    return {
        "min": np.min([part["min"] for part in parts], axis=0), "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean, "std": np.sqrt(var), "count": total,
        **{name: weighted([part[name] for part in parts]) for name in QUANTILES},
    }  # fmt: skip
