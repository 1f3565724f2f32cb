"""`episode.json`: what is known about one episode, and the one line the index keeps of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robot_rl.data.files import from_json
from robot_rl.data.schema import FORMAT_VERSION, StoreSchema, StreamSchema, check_row_type, meta_to_dict, migrate
from robot_rl.errors import StoreError
from robot_rl.values import RecordingMeta


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """One episode as the index lists it.

    Args:
        id: The episode's id.
        task: What was attempted.
        outcome: How it ended, as labelled.
        source: Who acted.
        policy_version: Bundle id that drove, if any.
        seed: Seed of a simulated reset.
        on_grid: Whether it was born on the control clock.
        salvaged: Why it had to be salvaged; empty when it was committed whole.
        steps: Number of action samples.
        duration_ns: From the first to the last sample of any stream.
        nbytes: Bytes of all arrays.
        checksum: SHA-256 over the checksums of all arrays; relabelling does not change it.
    """

    id: str
    task: str
    outcome: str
    source: str
    policy_version: str
    seed: int | None
    on_grid: bool
    salvaged: str
    steps: int
    duration_ns: int
    nbytes: int
    checksum: str


def stream_entry(
    schema: StreamSchema, arrays: Mapping[str, Mapping[str, Any]], *, first_ns: int | None, last_ns: int | None
) -> dict[str, Any]:
    """Return what episode.json says about one stream."""
    spec = schema.spec
    return {
        "codec": schema.codec, "row_shape": list(spec.shape), "dtype": spec.dtype, "unit": spec.unit,
        "first_ns": first_ns, "last_ns": last_ns, "arrays": dict(arrays),
    }  # fmt: skip


def episode_document(id: str, meta: RecordingMeta, streams: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the content of an episode.json."""
    return {"format_version": FORMAT_VERSION, "id": id, "meta": meta_to_dict(meta), "streams": dict(streams)}


def parse_episode(data: bytes | bytearray, id: str) -> dict[str, Any]:
    """Return an episode.json's content, migrated to this version.

    Raises:
        StoreError: It is damaged or too new; names the episode.
    """
    document = migrate(from_json(data, f"episode {id}: episode.json"), f"episode {id}")
    lacking = {"id", "meta", "streams"} - set(document)
    if lacking:
        raise StoreError(f"episode {id}: episode.json lacks {sorted(lacking)}")
    return document


def check_document(document: Mapping[str, Any], schema: StoreSchema) -> None:
    """Raise unless an episode's streams are those of a schema: its fields may have been renamed since it was written.

    Raises:
        SpecError: Names the stream, expected and got.
    """
    for name, about in document["streams"].items():
        check_row_type(schema.stream(name).spec, np.dtype(about["dtype"]), tuple(about["row_shape"]))
    schema.check_counts({name: s["arrays"]["stamp_ns"]["shape"][0] for name, s in document["streams"].items()})


def index_entry(document: Mapping[str, Any]) -> IndexEntry:
    """Return the index line of an episode."""
    streams, meta = document["streams"], document["meta"]
    first = [s["first_ns"] for s in streams.values() if s["first_ns"] is not None]
    last = [s["last_ns"] for s in streams.values() if s["last_ns"] is not None]
    arrays = {f"{n}/{a}": entry for n, s in sorted(streams.items()) for a, entry in sorted(s["arrays"].items())}
    sums = "\n".join(f"{path} {entry['dtype']}{entry['shape']} {entry['crc32']:08x}" for path, entry in arrays.items())
    same = ("task", "outcome", "source", "policy_version", "seed", "on_grid")
    return IndexEntry(
        id=document["id"],
        **{key: meta[key] for key in same},
        salvaged=str(meta["extra"].get("salvaged", "")),
        steps=streams["action"]["arrays"]["stamp_ns"]["shape"][0],
        duration_ns=max(last) - min(first),
        nbytes=sum(entry["nbytes"] for entry in arrays.values()),
        checksum=hashlib.sha256(sums.encode()).hexdigest(),
    )


def entry_to_dict(entry: IndexEntry) -> dict[str, Any]:
    """Return plain JSON values."""
    return asdict(entry)


def missing(mine: Sequence[IndexEntry], theirs: Sequence[IndexEntry], which: str) -> list[str]:
    """Return the ids that only `theirs` has; `which` names the two stores.

    Raises:
        StoreError: An id stands for different data on the two sides.
    """
    known = {entry.id: entry.checksum for entry in mine}
    clash = [entry.id for entry in theirs if known.get(entry.id, entry.checksum) != entry.checksum]
    if clash:
        raise StoreError(f"{which} hold different episodes with the same ids: {clash[:5]}")
    return [entry.id for entry in theirs if entry.id not in known]
