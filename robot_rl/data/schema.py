"""What a store holds: the robot's streams, the optional ones, how each is coded, and how meta becomes JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from robot_rl.errors import SpecError, StoreError
from robot_rl.specs import ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta

FORMAT_VERSION = 1
CODECS = ("raw", "jpeg", "png")
STEP_STREAMS = ("action", "action_executed", "reward", "by_human")
"""Streams with one sample per control step when a recording was born on the grid; extras are such streams too."""

Migration = Callable[[dict[str, Any]], dict[str, Any]]
MIGRATIONS: dict[int, Migration] = {}
"""Version n -> what turns a document of version n into one of version n + 1."""

_NAME = re.compile(r"(?!.*\.json$)[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_NAME_RULE = "be letters, digits, `_`, `.` and `-`, and not end in .json; it becomes a folder's name"
_DTYPES = {"bool", *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)), "float16", "float32", "float64"}


@dataclass(frozen=True, kw_only=True)
class StreamSchema:
    """One stream of a store: what a sample looks like, how it is coded, whether it must be there and be finite."""

    spec: ArraySpec
    codec: str
    required: bool
    finite: bool


@dataclass(frozen=True, kw_only=True)
class StoreSchema:
    """Everything that the recordings of one store have in common.

    Args:
        spec: The robot; each observation and the action is a required stream.
        extra: Further optional streams, one sample per control step (base action, chunk offset ...). They may hold NaN.
        codecs: `jpeg`, `png` or `raw` per image stream; those not named are `jpeg`.

    Raises:
        SpecError: A name that cannot be a stream, one used twice, or a codec that does not fit.
    """

    spec: RobotSpec
    extra: Mapping[str, ArraySpec] = field(default_factory=dict)
    codecs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        taken = set(self.spec.obs)
        for name in (*STEP_STREAMS, *self.extra):
            if name in taken:
                raise SpecError(f"stream `{name}` is declared twice (observation, reserved {STEP_STREAMS} or extra)")
            taken.add(name)
        for name, spec in self.extra.items():
            if name != spec.name:
                raise SpecError(f"extra stream `{name}` carries a spec named `{spec.name}`; names must agree")
        if unknown := sorted(set(self.codecs) - taken):
            raise SpecError(f"a codec is given for {unknown}, but the store's streams are {sorted(taken)}")
        for name, stream in self.streams.items():
            _check_stream(name, stream)

    @cached_property
    def streams(self) -> dict[str, StreamSchema]:
        """Every stream by name, in the order obs, action, optional ones, extras."""
        action = self.spec.action
        known: dict[str, tuple[ArraySpec, bool, bool]] = {n: (s, True, True) for n, s in self.spec.obs.items()}
        known["action"] = (action, True, True)
        executed = ArraySpec(name="action_executed", shape=action.shape, dtype=action.dtype, unit=action.unit)
        known["action_executed"] = (executed, False, True)
        known["reward"] = (ArraySpec(name="reward", shape=(), dtype="float32"), False, True)
        known["by_human"] = (ArraySpec(name="by_human", shape=(), dtype="bool"), False, True)
        known.update({n: (s, False, False) for n, s in self.extra.items()})
        return {
            name: StreamSchema(spec=spec, codec=self._codec(name, spec), required=required, finite=finite)
            for name, (spec, required, finite) in known.items()
        }

    def _codec(self, name: str, spec: ArraySpec) -> str:
        return self.codecs.get(name, "jpeg" if spec.is_image else "raw")

    def stream(self, name: str) -> StreamSchema:
        """Return one stream's schema.

        Raises:
            SpecError: The store has no such stream.
        """
        if name not in self.streams:
            raise SpecError(f"unknown stream `{name}`; this store's streams are {sorted(self.streams)}")
        return self.streams[name]

    def check(self, recording: Recording) -> None:
        """Raise unless every stream of `recording` is one of this schema's, with growing stamps and samples enough.

        Raises:
            SpecError: Names the stream, what was expected and what came.
        """
        for name, stream in recording.streams.items():
            schema = self.stream(name)
            check_stamps(name, stream.stamp_ns)
            check_row_type(schema.spec, stream.data.dtype, stream.data.shape[1:])
        self.check_counts({name: len(stream) for name, stream in recording.streams.items()})
        if recording.meta.on_grid:
            self.check_grid({name: stream.stamp_ns for name, stream in recording.streams.items()})

    def check_values(self, recording: Recording) -> None:
        """Raise if an observation or an action holds NaN or infinity.

        Raises:
            SpecError: Names the stream and the element.
        """
        for name, stream in recording.streams.items():
            schema = self.stream(name)
            if not schema.spec.is_image:
                schema.spec.validate(stream.data[:], leading=1, finite=schema.finite)

    def check_counts(self, counts: Mapping[str, int]) -> None:
        """Raise unless every required stream has samples.

        Raises:
            SpecError: Names the streams without any.
        """
        lacking = [name for name, s in self.streams.items() if s.required and counts.get(name, 0) == 0]
        if lacking:
            got = {name: n for name, n in counts.items() if n}
            raise SpecError(f"streams {lacking} are required and have no sample; got samples of {got}")

    def check_grid(self, stamps: Mapping[str, np.ndarray]) -> None:
        """Raise unless the stamps are those of one control clock: obs N or N+1 ticks, everything else the first N.

        Raises:
            SpecError: Names the stream that is off the grid.
        """
        grid = max((stamps[name] for name in self.spec.obs), key=len, default=stamps["action"])
        n = len(stamps["action"])
        for name, own in stamps.items():
            wanted = (n, n + 1) if name in self.spec.obs else (n,)
            if len(own) not in wanted or len(own) > len(grid) or not np.array_equal(own, grid[: len(own)]):
                raise SpecError(
                    f"stream `{name}` is off the control grid: meta.on_grid promises {' or '.join(map(str, wanted))} "
                    f"samples with the stamps of the observations, got {len(own)}; record with on_grid=False"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        extra = {name: spec.to_dict() for name, spec in self.extra.items()}
        codecs = {name: s.codec for name, s in self.streams.items() if s.spec.is_image}
        return {"spec": self.spec.to_dict(), "extra": extra, "codecs": codecs}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StoreSchema:
        """Build from `to_dict`'s values.

        Raises:
            SpecError: A key is missing.
        """
        try:
            extra = {name: ArraySpec.from_dict(spec) for name, spec in data["extra"].items()}
            return cls(spec=RobotSpec.from_dict(data["spec"]), extra=extra, codecs=data["codecs"])
        except KeyError as error:
            raise SpecError(f"a store schema needs spec, extra, codecs; {error} is missing") from error


def _check_stream(name: str, stream: StreamSchema) -> None:
    if not _NAME.fullmatch(name):
        raise SpecError(f"stream name {name!r} must {_NAME_RULE}")
    if stream.spec.dtype not in _DTYPES:
        raise SpecError(f"stream `{name}`: dtype {stream.spec.dtype} cannot be stored; use one of {sorted(_DTYPES)}")
    if stream.codec not in CODECS:
        raise SpecError(f"stream `{name}`: codec must be one of {CODECS}, got {stream.codec!r}")
    if stream.codec != "raw" and not stream.spec.is_image:
        raise SpecError(f"stream `{name}`: codec {stream.codec!r} is for uint8 images, got {stream.spec.describe()}")


def check_stamps(name: str, stamps: np.ndarray, after: int | None = None) -> None:
    """Raise unless `stamps` grow strictly, and start after `after` when that is given.

    Raises:
        SpecError: Names the stream, the sample and both stamps.
    """
    earlier = stamps[:-1] if after is None else np.concatenate(([after], stamps[:-1]))
    later = stamps[1:] if after is None else stamps
    bad = np.flatnonzero(later <= earlier)
    if len(bad):
        i = int(bad[0])
        raise SpecError(
            f"stream `{name}`: stamp_ns must grow, got {int(later[i])} after {int(earlier[i])} "
            f"({int(later[i] - earlier[i])} ns); the clock stepped back or the sample came twice"
        )


def check_row_type(spec: ArraySpec, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Raise unless samples of `dtype` and `shape` are what `spec` says.

    Raises:
        SpecError: Names expected and got.
    """
    if np.dtype(dtype).name != spec.dtype or tuple(shape) != spec.shape:
        raise SpecError(f"`{spec.name}` must be {spec.describe()}, got {np.dtype(dtype).name}{tuple(shape)}")


def meta_to_dict(meta: RecordingMeta) -> dict[str, Any]:
    """Return a recording's meta as plain JSON values."""
    return asdict(replace(meta, extra=dict(meta.extra)))


def meta_from_dict(data: Mapping[str, Any]) -> RecordingMeta:
    """Build a recording's meta from `meta_to_dict`'s values.

    Raises:
        StoreError: An unknown key.
    """
    try:
        return RecordingMeta(**data)
    except TypeError as error:
        raise StoreError(f"meta of an episode has an unknown key: {error}") from error


def migrate(document: dict[str, Any], what: str, migrations: Mapping[int, Migration] = MIGRATIONS) -> dict[str, Any]:
    """Return a stored document brought up to this program's format version.

    Raises:
        StoreError: The document is newer than this program, has no version, or no way leads up from it.
    """
    version = document.get("format_version")
    if not isinstance(version, int):
        raise StoreError(f"{what}: `format_version` must be a number, got {version!r}")
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{what}: format_version is {version}, this robot_rl reads up to {FORMAT_VERSION}; install a newer robot_rl"
        )
    while version < FORMAT_VERSION:
        if version not in migrations:
            raise StoreError(f"{what}: format_version {version} has no migration to {FORMAT_VERSION}")
        document = migrations[version](document)
        version += 1
        document["format_version"] = version
    return document


def check_id(id: str) -> None:
    """Raise unless `id` can name an episode's folder.

    Raises:
        SpecError: Says what an id may hold.
    """
    if not _NAME.fullmatch(id):
        raise SpecError(f"episode id {id!r} must {_NAME_RULE}")
