"""What the rows of one LeRobot episode must be: numbered in order, on the clock that fps promises, and finite.

Each check takes the columns of one episode and yields what is wrong as (severity, field, what, advice).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from robot_rl.data.foreign import Severity
from robot_rl.data.lerobot_meta import STATISTICS, EpisodeEntry

Fault = tuple[Severity, str, str, str]
Columns = Mapping[str, np.ndarray]

TOLERANCE_S = 1e-4
"""How far a timestamp may be from frame / fps [s]; LeRobot's own default."""
_STATS_RTOL = 1e-3


def check_count(entry: EpisodeEntry, rows: int) -> Iterator[Fault]:
    """Rows must be as many as the list of episodes says, and more than none."""
    if rows == 0:
        yield "episode", "data", "has no rows", "record it again"
    elif entry.length is not None and entry.length != rows:
        what = f"must have {entry.length} rows, as meta/episodes says, got {rows}"
        yield "episode", "data", what, "the file was cut or the list is stale; copy both again"


def check_numbering(columns: Columns, entry: EpisodeEntry) -> Iterator[Fault]:
    """`episode_index` must be the episode's, `frame_index` and `index` must count."""
    advice = "rows were lost, doubled or moved between files; copy or convert again"
    if "episode_index" in columns:
        strange = columns["episode_index"] != entry.index
        if strange.any():
            got = int(columns["episode_index"][np.argmax(strange)])
            yield "episode", "episode_index", f"must be {entry.index} in {entry.data}, got {got}", advice
    for name in ("frame_index", "index"):
        if name not in columns or not len(columns[name]):
            continue
        counted = columns[name].astype(np.int64)
        jumps = np.flatnonzero(np.diff(counted) != 1)
        if len(jumps):
            row = int(jumps[0]) + 1
            what = f"must grow by one, got {counted[row]} after {counted[row - 1]} in row {row}"
            yield "episode", name, what, advice
        elif name == "frame_index" and counted[0] != 0:
            yield "warning", name, f"must begin at 0, got {counted[0]}", "rows are taken in their order"


def timestamp_fault(timestamps: np.ndarray, fps: float) -> Fault | None:
    """Timestamps must be frame / fps; those that do not even grow cost the episode."""
    if not np.isfinite(timestamps).all():
        return "episode", "timestamp", "must be finite, got NaN", "give frame_index / fps"
    back = np.flatnonzero(np.diff(timestamps) <= 0)
    if len(back):
        row = int(back[0]) + 1
        what = f"must grow, got {timestamps[row]:g} s after {timestamps[row - 1]:g} s in row {row}"
        return "episode", "timestamp", what, "rows are doubled or out of order"
    ideal = np.arange(len(timestamps)) / fps
    # A float32 of a long episode is coarser than the tolerance.
    tolerance = TOLERANCE_S + 2 * float(np.spacing(np.abs(timestamps).max().astype(timestamps.dtype)))
    if float(np.abs(timestamps - ideal).max()) > tolerance:
        rate = 1 / float(np.median(np.diff(timestamps))) if len(timestamps) > 1 else fps
        what = f"must be frame / {fps:g} Hz within {TOLERANCE_S:g} s"
        if abs(rate - fps) > 0.01 * fps:
            what += f", they come at {rate:.3g} Hz"
            return "warning", "timestamp", what, "give the true rate with import.fps; the times are kept as `timestamp`"
        return "warning", "timestamp", what, "stamps follow fps, the times given are kept as stream `timestamp`"
    return None


def check_finite(columns: Columns, names: Mapping[str, bool]) -> Iterator[Fault]:
    """Observations, actions and rewards must be finite.

    Args:
        columns: The episode's columns.
        names: Feature -> whether it must be finite.
    """
    for name, must in names.items():
        if must and name in columns and columns[name].dtype.kind == "f":
            bad = ~np.isfinite(columns[name].reshape(len(columns[name]), -1)).all(axis=1)
            if bad.any():
                what = "must be finite, got NaN or infinity"
                yield "episode", name, what, "mend the values, or leave it out with import.features"


def summarise(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return `min`, `max` and `mean` over an episode's rows, each with one number per element."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    return {"min": flat.min(axis=0), "max": flat.max(axis=0), "mean": flat.mean(axis=0)}


def stale_statistics(found: Mapping[str, np.ndarray], said: object) -> list[str]:
    """Return which of the statistics that a data set gives are not those of its rows."""
    if not isinstance(said, Mapping):
        return []
    stale = []
    for name in STATISTICS:
        try:
            given = np.asarray(said[name], np.float64).reshape(-1)
        except (KeyError, TypeError, ValueError):
            continue
        spread = np.maximum(np.abs(found["max"]), np.abs(found["min"]))
        if given.shape != found[name].shape or (np.abs(given - found[name]) > _STATS_RTOL * (spread + 1e-3)).any():
            stale.append(name)
    return stale
