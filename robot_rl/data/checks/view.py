"""One episode as the checks see it: low-dimensional signals as two tables on the control clock, cameras apart.

N ticks, S elements of all low-dimensional observations side by side, A elements of the action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robot_rl.data.align import Alignment, to_episode
from robot_rl.data.schema import StoreSchema
from robot_rl.specs import ArraySpec
from robot_rl.values import Episode, Recording

MAX_ELEMENTS = 256
"""Observations with larger samples (point clouds, depth) are no signals that a joint or a force would be."""


@dataclass(frozen=True)
class Element:
    """One number of a stream's sample: stream, flat index, unit."""

    stream: str
    index: int
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.stream}[{self.index}]"


@dataclass(frozen=True)
class Layout:
    """Which elements the two tables have, and which observations are cameras."""

    state: tuple[Element, ...]
    action: tuple[Element, ...]
    cameras: tuple[str, ...]

    @classmethod
    def of(cls, schema: StoreSchema) -> Layout:
        """Return the layout of a store."""
        low = [spec for spec in schema.spec.obs.values() if is_signal(spec)]
        state = tuple(element for spec in low for element in elements(spec))
        cameras = tuple(name for name, spec in schema.spec.obs.items() if spec.is_image)
        return cls(state, elements(schema.spec.action), cameras)


def is_signal(spec: ArraySpec) -> bool:
    """Whether a stream is a few numbers per sample."""
    return not spec.is_image and spec.size <= MAX_ELEMENTS and np.dtype(spec.dtype).kind in "fiu"


def elements(spec: ArraySpec) -> tuple[Element, ...]:
    """Return a stream's elements; a unit such as `px, px, rad` is dealt out when it names one for each."""
    units = [unit.strip() for unit in spec.unit.split(",")]
    each = units if len(units) == spec.size else units * spec.size if len(units) == 1 else [""] * spec.size
    return tuple(Element(spec.name, i, unit) for i, unit in enumerate(each))


@dataclass(frozen=True, kw_only=True)
class EpisodeView:
    """One episode: the recording, its aligned form, and the tables.

    Args:
        id: The episode.
        recording: As recorded.
        episode: As the control clock sees it.
        state: float64 [N, S].
        action: float64 [N, A].
        hz: Control rate.
    """

    id: str
    recording: Recording
    episode: Episode
    state: np.ndarray
    action: np.ndarray
    hz: float

    @property
    def seconds(self) -> float:
        """Duration on the control clock."""
        return len(self.action) / self.hz

    @property
    def origin_ns(self) -> int:
        """The stamp that a finding's seconds count from."""
        return int(self.episode.stamp_ns[0])

    @property
    def table(self) -> np.ndarray:
        """State and action side by side, [N, S + A]."""
        return np.concatenate([self.state, self.action], axis=1)


def view_episode(id: str, recording: Recording, schema: StoreSchema) -> EpisodeView:
    """Return an episode's view. Pictures stay where they are.

    Raises:
        SpecError: The streams do not overlap in time.
    """
    episode = to_episode(recording, schema.spec, Alignment(), id=id)
    steps = len(episode)
    columns = [_table(episode.obs[name][:], steps) for name, spec in schema.spec.obs.items() if is_signal(spec)]
    state = np.concatenate(columns, axis=1) if columns else np.zeros((steps, 0))
    action = _table(episode.action, steps)
    return EpisodeView(
        id=id, recording=recording, episode=episode, state=state, action=action, hz=schema.spec.control_hz
    )


def _table(rows: np.ndarray, steps: int) -> np.ndarray:
    return np.asarray(rows, np.float64).reshape(steps, -1)


def runs(mask: np.ndarray) -> np.ndarray:
    """Return where a bool [N] is true as half-open intervals, int64 [R, 2]."""
    edges = np.diff(np.concatenate(([0], mask.astype(np.int8), [0])))
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1)


def counted(values: Mapping[str, int]) -> str:
    """Return counts as `12 success, 3 failure`, the most frequent first."""
    return ", ".join(f"{n} {name or 'unnamed'}" for name, n in sorted(values.items(), key=lambda item: -item[1]))
