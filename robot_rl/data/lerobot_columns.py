"""Which features of a LeRobot data set the streams of a store become.

Rules: a stream that was imported from a LeRobot feature, or is called like one (`observation...`), goes back under that
name. Of the other observations, pictures become `observation.images.<name>`, all float32 vectors together
`observation.state` in the order of the spec, and what else there is `observation.<name>`. Reward becomes `next.reward`,
a person's turn `complementary_info.is_intervention` (as in LeRobot's HIL-SERL), the end of an episode `next.done` and
`next.success`; every other stream keeps its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from robot_rl.data.schema import StoreSchema
from robot_rl.data.store import EpisodeStore
from robot_rl.specs import ArraySpec
from robot_rl.values import Episode, RecordingMeta, Rows

STATE = "observation.state"
DEFAULTS: dict[str, str] = {
    "timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64", "task_index": "int64",
}  # fmt: skip
"""The features every data set has, and their dtypes; one number per frame each."""
MIN_VIDEO_SIDE = 64
"""Shortest side of a picture that goes into a video; encoders refuse smaller ones."""
_MAX_AXES = 5
_OWN_NAME = {"action": "action", "action_executed": "action_executed", "reward": "next.reward"}
_BY_HUMAN = "complementary_info.is_intervention"


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a look at every recording of a store tells, their arrays unread.

    Args:
        metas: Meta of each episode by id, in the order of ids.
        streams: Names of the streams that each episode has samples of, by id.
    """

    metas: Mapping[str, RecordingMeta]
    streams: Mapping[str, Sequence[str]]

    @cached_property
    def counts(self) -> Counter[str]:
        """How many episodes have a stream."""
        return Counter(name for names in self.streams.values() for name in names)

    @property
    def imported(self) -> Mapping[str, Any]:
        """What the first episode's meta says of the data set it was imported from."""
        first = next(iter(self.metas.values()))
        found = first.extra.get("imported", {})
        return found if isinstance(found, Mapping) else {}

    @cached_property
    def features(self) -> dict[str, str]:
        """The feature that a stream was imported from alone, by stream."""
        named = self.imported.get("streams", {})
        pairs = named.items() if isinstance(named, Mapping) else ()
        shared = Counter(stream for _, stream in pairs)
        return {stream: feature for feature, stream in pairs if shared[stream] == 1 and feature not in DEFAULTS}


def survey(store: EpisodeStore) -> Survey:
    """Return what is known of a store before any array is read."""
    metas: dict[str, RecordingMeta] = {}
    streams: dict[str, Sequence[str]] = {}
    for id in store.ids():
        recording = store.read(id)
        metas[id] = recording.meta
        streams[id] = [name for name, stream in recording.streams.items() if len(stream)]
    return Survey(metas=metas, streams=streams)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One feature of the data set.

    Args:
        feature: Its name.
        dtype: A numpy dtype, `image` (PNG in the tables) or `video`.
        shape: Shape of a frame as LeRobot says it: a scalar is (1,).
        names: What `info.json` calls the elements.
        streams: Streams it is made of, one after another.
        rows: How an episode's rows [N, ...] are had; pictures are decoded when indexed.
    """

    feature: str
    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    streams: tuple[str, ...] = ()
    rows: Callable[[Episode], Rows] = field(repr=False)

    @property
    def is_picture(self) -> bool:
        """Whether it holds pictures."""
        return self.dtype in ("image", "video")

    def entry(self) -> dict[str, Any]:
        """Return the feature as `info.json` has it."""
        return {"dtype": self.dtype, "shape": list(self.shape), "names": self.names}


def columns_of(schema: StoreSchema, seen: Survey, *, videos: bool) -> tuple[list[Column], dict[str, str]]:
    """Return the features of an export, in their order, and the streams that cannot be one (name -> why).

    Args:
        schema: The store's.
        seen: `survey` of the store.
        videos: Put pictures into videos, where they have three channels and even sides of `MIN_VIDEO_SIDE` or more.
    """
    lost: dict[str, str] = {}
    named = {s.feature: s for s in _stream_columns(schema, seen, videos=videos, lost=lost)}
    for column in _outcome_columns(seen):
        named.setdefault(column.feature, column)
    return list(named.values()), lost


def stream_map(columns: Sequence[Column], schema: StoreSchema) -> dict[str, dict[str, Any]]:
    """Return where each stream went: its feature, and its first and one past its last column if it shares that."""
    placed: dict[str, dict[str, Any]] = {}
    for column in columns:
        first = 0
        for name in column.streams:
            size = schema.stream(name).spec.size
            shared = len(column.streams) > 1
            placed[name] = {"feature": column.feature, "columns": [first, first + size] if shared else None}
            first += size
    return placed


def _stream_columns(schema: StoreSchema, seen: Survey, *, videos: bool, lost: dict[str, str]) -> list[Column]:
    names = _feature_names(schema, seen)
    shared = [name for name, feature in names.items() if feature == STATE]
    shared = shared if len(shared) > 1 or _is_vector(schema, shared) else []
    columns = []
    for name, feature in names.items():
        spec = schema.stream(name).spec
        if not _is_there(name, schema, seen, lost):
            continue
        if len(spec.shape) > _MAX_AXES:
            lost[name] = f"LeRobot's features have at most {_MAX_AXES} axes, this has {len(spec.shape)}"
        elif name in shared:
            if name == shared[0]:
                columns.append(_state(schema, shared, seen))
        else:
            columns.append(_own(name, feature, spec, seen, videos=videos))
    return columns


def _is_vector(schema: StoreSchema, streams: Sequence[str]) -> bool:
    return all(schema.stream(s).spec.dtype == "float32" and len(schema.stream(s).spec.shape) == 1 for s in streams)


def _is_there(name: str, schema: StoreSchema, seen: Survey, lost: dict[str, str]) -> bool:
    """Whether a stream becomes a feature; every frame has them all, so one that some lack needs a neutral value."""
    count, total = seen.counts.get(name, 0), len(seen.metas)
    if count == total or (count and name in ("action_executed", "reward", "by_human")):
        return True
    if count and schema.stream(name).spec.dtype.startswith("float"):
        lost[f"{name} (where it is missing)"] = f"{total - count} of {total} episodes lack it; they get NaN"
        return True
    if count:
        lost[name] = f"{total - count} of {total} episodes lack it, and {schema.stream(name).spec.dtype} has no NaN"
    return False


def _feature_names(schema: StoreSchema, seen: Survey) -> dict[str, str]:
    """Return the feature of every stream."""
    taken = {*DEFAULTS, "task", "action", *_OWN_NAME.values(), _BY_HUMAN, "next.done", "next.success"}
    names: dict[str, str] = {}
    for name, stream in schema.streams.items():
        if name in seen.features:
            names[name] = seen.features[name]
        elif name in schema.spec.obs:
            known = {*schema.spec.obs, *seen.features.values()}
            names[name] = _obs_feature(name, stream.spec, known)
        elif name == "by_human":
            names[name] = _BY_HUMAN
        else:
            names[name] = _OWN_NAME.get(name) or (f"extra.{name}" if name in taken else name)
    return names


def _obs_feature(name: str, spec: ArraySpec, known: Collection[str]) -> str:
    if name.startswith("observation.") or name == "observation":
        return name
    if spec.is_image:
        return f"observation.images.{name}"
    return STATE if spec.dtype == "float32" and len(spec.shape) == 1 and STATE not in known else f"observation.{name}"


def _state(schema: StoreSchema, streams: Sequence[str], seen: Survey) -> Column:
    specs = [schema.stream(name).spec for name in streams]
    names = [name if spec.size == 1 else f"{name}.{i}" for name, spec in zip(streams, specs, strict=True)
             for i in range(spec.size)]  # fmt: skip

    def rows(episode: Episode) -> Rows:
        return np.concatenate([np.asarray(episode.obs[name][:]) for name in streams], axis=1)

    return Column(
        feature=STATE, dtype="float32", shape=(len(names),), names=_said(STATE, seen) or names,
        streams=tuple(streams), rows=rows,
    )  # fmt: skip


def _own(name: str, feature: str, spec: ArraySpec, seen: Survey, *, videos: bool) -> Column:
    dtype, names = spec.dtype, _said(feature, seen)
    if spec.is_image:
        height, width, channels = spec.shape
        fits = channels == 3 and min(height, width) >= MIN_VIDEO_SIDE and height % 2 == 0 and width % 2 == 0
        dtype, names = "video" if videos and fits else "image", ["height", "width", "channels"]
    elif names is None and len(spec.shape) == 1:
        names = [f"{name}.{i}" for i in range(spec.size)]

    def rows(episode: Episode) -> Rows:
        return _rows(episode, name, spec)

    return Column(feature=feature, dtype=dtype, shape=spec.shape or (1,), names=names, streams=(name,), rows=rows)


def _rows(episode: Episode, name: str, spec: ArraySpec) -> Rows:
    if name in episode.obs:
        return episode.obs[name]
    if name in ("action", "action_executed", "reward", "by_human"):
        return np.asarray(getattr(episode, name)).astype(spec.dtype, copy=False)
    if name in episode.extras:
        return episode.extras[name]
    return np.full((len(episode), *spec.shape), np.nan, spec.dtype)


def _said(feature: str, seen: Survey) -> Any:
    """Return the names that the data set the store was imported from gave to a feature's elements."""
    features = seen.imported.get("features", {})
    entry = features.get(feature, {}) if isinstance(features, Mapping) else {}
    return entry.get("names") if isinstance(entry, Mapping) else None


def _outcome_columns(seen: Survey) -> list[Column]:
    """Return `next.done` and `next.success`, each if any episode has something to say there."""
    columns = []
    if any(meta.terminated for meta in seen.metas.values()):
        columns.append(_at_end("next.done", lambda meta: meta.terminated))
    if any(meta.outcome != "unknown" for meta in seen.metas.values()):
        columns.append(_at_end("next.success", lambda meta: meta.outcome == "success"))
    return columns


def _at_end(feature: str, true: Callable[[RecordingMeta], bool]) -> Column:
    def rows(episode: Episode) -> Rows:
        values = np.zeros(len(episode), bool)
        values[-1:] = true(episode.meta)
        return values

    return Column(feature=feature, dtype="bool", shape=(1,), rows=rows)
