"""rosbag2 bags into a store: MCAP and SQLite, a single file or a bag's folder. Needs no ROS."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.data.mcap_io import EXTRA, Progress, read_exported
from robot_rl.data.plan import RecordingPlan, StreamPlan
from robot_rl.data.ros_messages import Read, make_reader
from robot_rl.data.writer import EpisodeWriter
from robot_rl.errors import DataFormatError, MissingExtraError, SpecError, StoreError
from robot_rl.values import RecordingMeta

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BagImport:
    """What became of a bag: the episode's id, samples per stream, and what was left out, by stream and reason."""

    id: str
    samples: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass
class _Tally:
    """Counts while reading."""

    samples: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)

    def skip(self, stream: str, reason: str) -> None:
        reasons = self.skipped.setdefault(stream, {})
        reasons[reason] = reasons.get(reason, 0) + 1


def import_bag(
    path: str | Path,
    store_url: str | Path,
    plan: RecordingPlan | None = None,
    *,
    namespace: str = "",
    meta: RecordingMeta | None = None,
    id: str | None = None,
    progress: Progress | None = None,
) -> BagImport:
    """Add a bag to a store as one episode.

    Samples are stamped with the header's time where the message has one, else with the time the bag was written.
    A sample that is not later than the one before it, or that holds NaN where the stream may not, is left out and
    counted.

    Args:
        path: A bag's folder, or an .mcap or .db3 file.
        store_url: The store; made where there is none.
        plan: Topics and streams, as the recorder's configuration gives them. Not needed for a file of `export_mcap`.
        namespace: What relative topics of the plan are below, such as `/arm`.
        meta: What is known about the attempt. The default is what an exported file says, else the source `import`.
        id: The episode's id; by default the exported episode's, else a new one.
        progress: Called with (messages read, messages in all).

    Raises:
        MissingExtraError: rosbags is not installed.
        DataFormatError: Not a bag; a topic is missing or of another type; a message is not what its stream promises.
        StoreError: The store holds that id already, or the disk is full.
        ConfigError: The store is for other streams, or the plan names a type that cannot be read.
    """
    if plan is None:
        exported = read_exported(Path(path))
        if exported is None:
            raise DataFormatError(
                f"{path} was not exported by robot_rl, so a plan must say which topic is which stream"
            )
        plan, meta = exported.plan, exported.meta if meta is None else meta
        id = exported.id if id is None else id
    with _open_bag(path) as bag:
        topics = _match_topics(bag, plan, namespace, path)
        writer = plan.open_store(store_url).writer(RecordingMeta(source="import") if meta is None else meta, id=id)
        try:
            tally = _Tally()
            _copy(bag, topics, writer, tally=tally, path=path, progress=progress)
            return _commit(writer, tally, path)
        finally:
            writer.discard()


def _commit(writer: EpisodeWriter, tally: _Tally, path: str | Path) -> BagImport:
    meta = writer.meta
    if tally.skipped:
        log.warning("bag %s: left out %s", path, tally.skipped)
        meta = replace(meta, extra={**meta.extra, "bag": {"name": Path(path).name, "skipped": tally.skipped}})
    try:
        return BagImport(writer.commit(meta), tally.samples, tally.skipped)
    except SpecError as error:
        raise DataFormatError(f"bag {path}: {error}") from error


def _copy(
    bag: Any,
    topics: Mapping[str, list[tuple[StreamPlan, Read]]],
    writer: EpisodeWriter,
    *,
    tally: _Tally,
    path: str | Path,
    progress: Progress | None,
) -> None:
    total = sum(c.msgcount for c in bag.connections if c.topic in topics)
    last: dict[str, int] = {}
    for n, (topic, logged_ns, msg) in enumerate(_messages(bag, topics, path), start=1):
        for stream, read in topics[topic]:
            where = f"bag {path}, topic {topic}, at {logged_ns} ns"
            try:
                stamp_ns, value = read(msg)
            except (SpecError, StoreError) as error:
                raise DataFormatError(f"{where}: {error}") from error
            # A header that nobody filled says 1970; the time of writing is nearer to the truth.
            stamp_ns = logged_ns if stamp_ns is None or (stamp_ns == 0 and logged_ns > 0) else stamp_ns
            if stream.name in last and stamp_ns <= last[stream.name]:
                tally.skip(stream.name, "not later than the sample before")
                continue
            if not _append(writer, stream.name, stamp_ns, value, where=where):
                tally.skip(stream.name, "NaN or infinity")
                continue
            last[stream.name] = stamp_ns
            tally.samples[stream.name] = tally.samples.get(stream.name, 0) + 1
        if progress is not None:
            progress(n, total)


def _messages(bag: Any, topics: Mapping[str, Any], path: str | Path) -> Iterator[tuple[str, int, Any]]:
    """Return topic, time of writing and decoded message of everything that is wanted, in the order of time."""
    connections = [c for c in bag.connections if c.topic in topics]
    try:
        for connection, logged_ns, raw in bag.messages(connections=connections):
            yield connection.topic, logged_ns, bag.deserialize(raw, connection.msgtype)
    except Exception as error:  # damaged bytes raise whatever the decoder trips over
        raise DataFormatError(f"bag {path} is damaged: {error!r}") from error


def _append(writer: EpisodeWriter, stream: str, stamp_ns: int, value: np.ndarray | bytes, *, where: str) -> bool:
    """Append a sample; false where a stream that must be finite was given NaN."""
    try:
        if isinstance(value, bytes):
            writer.append_encoded(stream, stamp_ns, value)
        else:
            writer.append(stream, stamp_ns, value)
    except SpecError as error:
        if "must be finite" in str(error):
            return False
        raise DataFormatError(f"{where}: {error}") from error
    return True


@contextmanager
def _open_bag(path: str | Path) -> Iterator[Any]:
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise MissingExtraError("rosbags", EXTRA) from error
    if not Path(path).exists():
        raise DataFormatError(f"there is no bag at {path}")
    try:
        # Bags from before Iron carry no definitions; the standard messages have not changed since.
        bag = AnyReader([Path(path)], default_typestore=get_typestore(Stores.ROS2_KILTED))
        bag.open()
    except (AnyReaderError, OSError, ValueError, KeyError, AssertionError) as error:
        raise DataFormatError(f"{path} is not a bag that can be read: {error!r}") from error
    try:
        yield bag
    finally:
        bag.close()


def _match_topics(
    bag: Any, plan: RecordingPlan, namespace: str, path: str | Path
) -> dict[str, list[tuple[StreamPlan, Read]]]:
    """Return what to read from each topic of the bag."""
    there: dict[str, str] = {c.topic: c.msgtype for c in bag.connections}
    found: dict[str, list[tuple[StreamPlan, Read]]] = {}
    for name, stream in plan.streams.items():
        schema = plan.schema.streams[name]
        topic = stream.topic if stream.topic.startswith("/") else f"{namespace.rstrip('/')}/{stream.topic}"
        if topic not in there:
            if schema.required:
                raise DataFormatError(f"bag {path} lacks topic {topic} of stream `{name}`; it has {sorted(there)}")
            continue
        if there[topic] != stream.type:
            raise DataFormatError(
                f"bag {path}: topic {topic} of stream `{name}` must be {stream.type}, it is {there[topic]}"
            )
        read = make_reader(
            stream.type, stream.spec, codec=schema.codec, field=stream.field, names=stream.names,
            true_when=stream.true_when,
        )  # fmt: skip
        found.setdefault(topic, []).append((stream, read))
    return found
