"""Episodes out as MCAP files that Foxglove, `ros2 bag` and rosbags open. Needs no ROS.

An export is one `ros2`-profile file with the message definitions in it, and beside the messages a metadata record from
which `bag_import.import_bag` restores the episode exactly.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_rl.data.plan import RecordingPlan, StreamPlan
from robot_rl.data.quality import Expected
from robot_rl.data.ros_encoding import Encoding, encoding_of
from robot_rl.data.schema import StoreSchema, meta_from_dict, meta_to_dict
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import DataFormatError, MissingExtraError, StoreError
from robot_rl.values import RecordingMeta, Stream

METADATA = "robot_rl.episode"
EXTRA = "bags"
"""The optional dependencies that bags need."""
_FORMAT = "1"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Exported:
    """What an exported file says of its episode: id, meta, and how to read it back."""

    id: str
    meta: RecordingMeta
    plan: RecordingPlan


def read_exported(path: Path) -> Exported | None:
    """Return how an exported file describes its episode, `None` for any other bag.

    Raises:
        DataFormatError: Not MCAP inside, or exported by a newer program.
    """
    if path.suffix != ".mcap" or not path.is_file():
        return None
    make_mcap_reader, _, errors = _mcap()
    try:
        with path.open("rb") as file:
            records = {record.name: record.metadata for record in make_mcap_reader(file).iter_metadata()}
    except errors as error:
        raise DataFormatError(f"{path} is not an MCAP file that can be read: {error!r}") from error
    if METADATA not in records:
        return None
    record = records[METADATA]
    if record["format"] != _FORMAT:
        raise DataFormatError(f"{path}: {METADATA} has format {record['format']!r}, this robot_rl reads {_FORMAT!r}")
    schema = StoreSchema.from_dict(json.loads(record["schema"]))
    streams = {
        name: StreamPlan(
            name=name, topic=topic, type=type_name, field=part, qos="sensor", spec=schema.stream(name).spec,
            expected=Expected(rate_hz=None, required=False),
        )
        for name, (topic, type_name, part) in json.loads(record["streams"]).items()
    }  # fmt: skip
    plan = RecordingPlan(schema=schema, streams=streams)
    return Exported(record["id"], meta_from_dict(json.loads(record["meta"])), plan)


def _mcap() -> tuple[Any, Any, tuple[type[Exception], ...]]:
    """Return mcap's reader factory, the ROS 2 writer, and what the reader raises."""
    try:
        from mcap.exceptions import McapError
        from mcap.reader import make_reader as make_mcap_reader
        from mcap_ros2.writer import Writer
    except ImportError as error:
        raise MissingExtraError("mcap-ros2-support", EXTRA) from error
    return make_mcap_reader, Writer, (McapError, OSError, ValueError)


def _definitions() -> Callable[[str], str]:
    """Return what gives a message type's definition, with those of the types inside it."""
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise MissingExtraError("rosbags", EXTRA) from error
    types = get_typestore(Stores.ROS2_KILTED)
    return lambda type_name: str(types.generate_msgdef(type_name, ros_version=2)[0])


def export_mcap(store: EpisodeStore, id: str, path: str | Path, *, progress: Progress | None = None) -> dict[str, str]:
    """Write an episode as an MCAP file and return the topic of each stream.

    Each stream becomes a topic with a standard message (`ros_encoding.encoding_of` says which); stored JPEG and PNG
    bytes go through untouched. Log time, publish time and header stamp are the stamp of capture.

    Args:
        store: Where it is.
        id: Which.
        path: File to write; must not exist.
        progress: Called with (messages written, messages in all).

    Raises:
        MissingExtraError: mcap-ros2-support or rosbags is not installed.
        StoreError: No such episode, or the file exists.
        DataFormatError: A stamp that ROS time cannot hold.
    """
    path = Path(path)
    if path.exists():
        raise StoreError(f"cannot export episode {id}: {path} exists already")
    recording = store.read(id)
    streams = recording.streams
    encodings = {name: encoding_of(name, store.schema.stream(name).spec, s.data) for name, s in streams.items()}
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with unfinished.open("wb") as file, _mcap()[1](file) as writer:
            _write_metadata(writer, store, id, recording.meta, encodings)
            _write_messages(writer, streams, encodings, progress)
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return {name: encoding.topic for name, encoding in encodings.items()}


def _write_messages(
    writer: Any, streams: Mapping[str, Stream], encodings: Mapping[str, Encoding], progress: Progress | None
) -> None:
    definition = _definitions()
    types = sorted({encoding.type for encoding in encodings.values()})
    schemas = {name: writer.register_msgdef(name, definition(name)) for name in types}
    total = sum(len(stream) for stream in streams.values())
    # One heap over all streams, so that the file is in the order of time without holding the episode.
    order = heapq.merge(
        *([(int(t), name, i) for i, t in enumerate(stream.stamp_ns)] for name, stream in streams.items())
    )
    for n, (stamp_ns, name, row) in enumerate(order, start=1):
        encoding = encodings[name]
        message = encoding.message(row, stamp_ns)
        writer.write_message(encoding.topic, schemas[encoding.type], message, stamp_ns, stamp_ns, row)
        if progress is not None:
            progress(n, total)


def _write_metadata(
    writer: Any, store: EpisodeStore, id: str, meta: RecordingMeta, encodings: Mapping[str, Encoding]
) -> None:
    record = {
        "format": _FORMAT,
        "id": id,
        "meta": json.dumps(meta_to_dict(meta)),
        "schema": json.dumps(store.schema.to_dict()),
        "streams": json.dumps({name: (e.topic, e.type, e.field) for name, e in encodings.items()}),
    }
    writer.add_metadata(METADATA, record)
