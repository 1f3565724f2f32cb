"""Make an episode of what a dead writer left in staging: whole rows only, nothing invented."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robot_rl.data import frame_codec, layout
from robot_rl.data.backend import Backend
from robot_rl.data.episode_file import check_document, episode_document, parse_episode, stream_entry
from robot_rl.data.files import from_json, fsync_dir, to_json, write_new
from robot_rl.data.reader import checksum
from robot_rl.data.rows import FileBlob, forget_maps
from robot_rl.data.schema import StoreSchema, StreamSchema, meta_from_dict
from robot_rl.data.staging import Claim, claim_dead, staged
from robot_rl.errors import SpecError, StoreError
from robot_rl.values import RecordingMeta


@dataclass(frozen=True)
class Found:
    """What opening a store found besides whole episodes.

    `salvaged` is an episode now; `quarantined` had nothing usable and lies in quarantine/; `discarded` was a whole
    recording being appended, whose source still has it; `in_progress` has a living writer; `unreadable` is damaged.
    """

    id: str
    state: Literal["salvaged", "quarantined", "discarded", "in_progress", "unreadable"]
    reason: str


def salvage(folder: Path, schema: StoreSchema) -> dict[str, Any] | None:
    """Turn a staging folder into a finished episode (not yet published) and return its episode.json.

    `None` says that it was part of a whole recording being appended: to keep a part under the id of the whole would
    make a repeated import skip it.

    Raises:
        SpecError: Nothing usable is there; says what lacks.
    """
    finished = _finished(folder)
    if finished is not None:
        check_document(finished, schema)
        return finished
    meta, streaming = _about(folder)
    if not streaming:
        return None
    names = [name for name in schema.streams if (folder / name).is_dir()]
    counts = {name: _whole_rows(folder / name, schema.streams[name]) for name in names}
    if meta.on_grid:
        counts = _on_grid(counts, schema)
    schema.check_counts(counts)
    streams = {}
    for name, count in counts.items():
        if count == 0:
            shutil.rmtree(folder / name)
        else:
            streams[name] = _truncate(folder / name, schema.streams[name], count)
    reason = "its writer ended before it committed"
    meta = replace(meta, outcome="unknown", terminated=False, truncated=True, extra={**meta.extra, "salvaged": reason})
    document = episode_document(folder.name, meta, streams)
    forget_maps(folder)
    layout.write_zarr(folder, streams)
    write_new(folder / layout.EPISODE_FILE, to_json(document), sync=True)
    fsync_dir(folder)
    return document


def _finished(folder: Path) -> dict[str, Any] | None:
    """Return the episode.json of a writer that died between writing it and publishing, if all it promises is there."""
    try:
        document = parse_episode((folder / layout.EPISODE_FILE).read_bytes(), folder.name)
    except (FileNotFoundError, StoreError):
        return None
    for name, about in document["streams"].items():
        for array, entry in about["arrays"].items():
            path = folder / layout.chunk_path(name, array, tuple(entry["shape"]))
            size = path.stat().st_size if path.exists() else 0
            if size != entry["nbytes"] or checksum(FileBlob(path, size), size) != entry["crc32"]:
                return None
    forget_maps(folder)
    layout.write_zarr(folder, document["streams"])
    return document


def _about(folder: Path) -> tuple[RecordingMeta, bool]:
    """Return the meta at the start, and whether the episode was recorded live; a lost note counts as live."""
    try:
        about = from_json((folder / layout.STAGING_FILE).read_bytes(), layout.STAGING_FILE)
        return meta_from_dict(about["meta"]), bool(about["live"])
    except (StoreError, KeyError):
        return RecordingMeta(), True


def _read(folder: Path, array: str) -> np.ndarray:
    path = folder / array / layout.chunk_name(1)
    if not path.exists():
        return np.empty(0, np.int64)
    return np.fromfile(path, np.int64, count=path.stat().st_size // 8)


def _whole_rows(folder: Path, schema: StreamSchema) -> int:
    """Return how many leading samples are whole: bytes there, stamps growing, pictures with their end."""
    stamps = _read(folder, "stamp_ns")
    count = len(stamps)
    if schema.codec == "raw":
        path = folder / "data" / layout.chunk_name(1 + len(schema.spec.shape))
        row = schema.spec.size * np.dtype(schema.spec.dtype).itemsize
        count = min(count, path.stat().st_size // row if path.exists() else 0)
    else:
        count = min(count, _whole_frames(folder, schema.codec))
    backwards = np.flatnonzero(np.diff(stamps[:count]) <= 0)
    return int(backwards[0]) + 1 if len(backwards) else count


def _whole_frames(folder: Path, codec: str) -> int:
    offset = _read(folder, "offset")
    path = folder / "frames" / layout.chunk_name(1)
    size = path.stat().st_size if path.exists() else 0
    if len(offset) == 0 or offset[0] != 0:
        return 0
    data = FileBlob(path, size).read(0, size)
    for i, (start, stop) in enumerate(itertools.pairwise(offset)):
        if not start < stop <= size or not frame_codec.is_whole(data[start:stop], codec):
            return i
    return len(offset) - 1


def _on_grid(counts: Mapping[str, int], schema: StoreSchema) -> dict[str, int]:
    """Cut every stream to the ticks that all have: obs N or N+1, everything else N."""
    obs = [name for name in counts if name in schema.spec.obs]
    steps = [name for name in counts if name not in schema.spec.obs]
    n = min(counts.values(), default=0)
    with_final = bool(obs) and min(counts[name] for name in obs) > n
    return {**dict.fromkeys(obs, n + with_final), **dict.fromkeys(steps, n)} if n else dict.fromkeys(counts, 0)


def _truncate(folder: Path, schema: StreamSchema, count: int) -> dict[str, Any]:
    stamps = _read(folder, "stamp_ns")[:count]
    rows = {"offset": count + 1}
    if schema.codec != "raw":
        rows["frames"] = int(_read(folder, "offset")[count])
    entries = {}
    for array, (shape, dtype) in layout.arrays_of(schema.codec, schema.spec.shape, schema.spec.dtype).items():
        entry = layout.array_entry((rows.get(array, count), *shape), dtype, 0)
        path = folder / array / layout.chunk_name(1 + len(shape))
        os.truncate(path, entry["nbytes"])
        crc32 = checksum(FileBlob(path, entry["nbytes"]), entry["nbytes"])
        entries[array] = {**entry, "crc32": crc32}
    return stream_entry(schema, entries, first_ns=int(stamps[0]), last_ns=int(stamps[-1]))


def salvage_all(backend: Backend, schema: StoreSchema, publish: Callable[[Path, dict[str, Any]], None]) -> list[Found]:
    """Salvage what dead writers left in staging, and say what became of each folder there."""
    found = []
    for folder in staged(backend.staging):
        claim = claim_dead(folder)
        if claim is None:
            found.append(Found(folder.name, "in_progress", "its writer is alive"))
            continue
        try:
            found.append(_salvage_one(claim, schema, publish))
        except (SpecError, StoreError) as error:
            _quarantine(folder, backend.quarantine, error)
            found.append(Found(folder.name, "quarantined", str(error)))
        finally:
            claim.release()
    return found


def _salvage_one(claim: Claim, schema: StoreSchema, publish: Callable[[Path, dict[str, Any]], None]) -> Found:
    document = salvage(claim.folder, schema)
    if document is None:
        claim.remove()
        return Found(claim.id, "discarded", "appending a whole recording was cut short; append it again")
    publish(claim.folder, document)
    reason = document["meta"]["extra"].get("salvaged", "it was whole but not yet published")
    return Found(claim.id, "salvaged", reason)


def _quarantine(folder: Path, root: Path, reason: Exception) -> None:
    """Move what cannot be salvaged out of staging, with a note that says why."""
    root.mkdir(parents=True, exist_ok=True)
    target = root / folder.name
    shutil.rmtree(target, ignore_errors=True)
    write_new(folder / "reason.json", to_json({"reason": str(reason)}))
    folder.rename(target)
