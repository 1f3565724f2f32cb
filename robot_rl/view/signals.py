"""What a viewer says about signals besides their values: element names, gaps, spells, what state an action moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_rl.data.quality import Expected
from robot_rl.specs import ArraySpec
from robot_rl.values import Episode, RecordingMeta, Stream

MAX_ELEMENTS = 64
"""A stream with more elements than this is a picture or a cloud, not a set of curves."""
MAX_LAG = 15
"""How many steps a state may follow its command."""
_RHYTHM = 0.8
_MIN_CORRELATION = 0.8
_MAX_DISTANCE = 0.5
"""In standard deviations of the command."""


def from_extra(meta: RecordingMeta, *names: str) -> Mapping[str, Any]:
    """Return what a recorder or an import noted in `meta.extra` under these names, one within another.

    Others may use the same names for something else, such as a number as `quality`: that is nothing noted.
    """
    found: Any = meta.extra
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def element_names(spec: ArraySpec, meta: RecordingMeta) -> list[str]:
    """Return a name for each element of a sample: the source's where an import kept them, else the index.

    A LeRobot import keeps the source's features with their names, flat, nested or under `motors`, in
    `meta.extra["imported"]`, and which stream each became.
    """
    streams, features = from_extra(meta, "imported", "streams"), from_extra(meta, "imported", "features")
    told = [features.get(feature) for feature, stream in streams.items() if stream == spec.name]
    kept = [feature.get("names") for feature in told if isinstance(feature, Mapping)]
    names = _flat(kept)
    if len(names) != spec.size or len(set(names)) != spec.size:
        return [str(i) for i in range(spec.size)]
    return names


def _flat(names: Any) -> list[str]:
    if isinstance(names, Mapping):
        names = list(names.values())
    if isinstance(names, list):
        return [text for name in names for text in _flat(name)]
    return [] if names is None else [str(names)]


def element_units(spec: ArraySpec) -> list[str]:
    """Return a unit for each element; `px, px, rad` of three elements is one each."""
    parts = [part.strip() for part in spec.unit.split(",")]
    return parts if len(parts) == spec.size else [spec.unit] * spec.size


@dataclass(frozen=True)
class Gap:
    """A time between two samples that a recorder would call a gap: the stamps of both."""

    start_ns: int
    end_ns: int


def find_gaps(stream: Stream, rate_hz: float | None = None) -> list[Gap]:
    """Return where the recorder's rule for gaps fires: more than three periods, at least 0.03 s.

    Args:
        stream: The stream.
        rate_hz: What it should have; `None` takes the median of what it has, and finds nothing in a stream without a
            rhythm, of which fewer than four in five periods lie within half of the median: it comes when something
            happens.
    """
    delta = np.diff(stream.stamp_ns)
    if len(delta) < 2:
        return []
    if rate_hz is None:
        middle = float(np.median(delta))
        if np.mean(np.abs(delta - middle) <= 0.5 * middle) < _RHYTHM:
            return []
        rate_hz = 1e9 / middle
    limit = Expected(rate_hz=rate_hz).gap_after_s
    assert limit is not None
    return [Gap(int(stream.stamp_ns[i]), int(stream.stamp_ns[i + 1])) for i in np.flatnonzero(delta > limit * 1e9)]


def spells(labels: Sequence[str]) -> list[tuple[int, str]]:
    """Return (index, label) of each element that differs from the one before it; the first always does."""
    return [(i, label) for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]


def followed_states(episode: Episode, specs: Mapping[str, ArraySpec]) -> dict[int, tuple[str, int]]:
    """Return which state element each action element commands, where one follows it: {action: (obs, element)}.

    A state follows a command when, at the best delay of up to 15 steps, it correlates with it above 0.8 and stays
    within half of the command's standard deviation of it (root mean square): so a position follows a position, and
    nothing follows a velocity or a constant.

    Args:
        episode: The aligned episode.
        specs: The robot's observations.
    """
    names = [(name, i) for name, spec in specs.items() if _is_curves(spec) for i in range(spec.size)]
    n = len(episode)
    if not names or n < 2 * MAX_LAG:
        return {}
    columns = [
        np.asarray(episode.obs[name][:], np.float64).reshape(n, -1) for name in dict.fromkeys(n for n, _ in names)
    ]
    state, action = np.concatenate(columns, axis=1), np.asarray(episode.action, np.float64)
    found = {}
    for k in range(action.shape[1]):
        scale = float(action[:, k].std())
        if scale <= 1e-9:
            continue
        distance = np.full((MAX_LAG + 1, state.shape[1]), np.inf)
        for lag in range(MAX_LAG + 1):
            command, answer = action[: n - lag, k], state[lag:]
            near = np.sqrt(np.mean((answer - command[:, None]) ** 2, axis=0)) / scale
            distance[lag] = np.where(_correlation(command, answer) > _MIN_CORRELATION, near, np.inf)
        best = int(distance.min(axis=0).argmin())
        if distance[:, best].min() < _MAX_DISTANCE:
            found[k] = names[best]
    return found


def _is_curves(spec: ArraySpec) -> bool:
    return not spec.is_image and spec.size <= MAX_ELEMENTS and spec.dtype != "bool"


def _correlation(command: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Return the correlation of `command` [N] with each column of `answer` [N, D]; 0 for what does not move."""
    a, b = command - command.mean(), answer - answer.mean(axis=0)
    norm = np.sqrt((a @ a) * np.sum(b * b, axis=0))
    return np.asarray(np.divide(a @ b, norm, out=np.zeros_like(norm), where=norm > 1e-12))
