"""How the folder of a new episode is made: rows and coded pictures copied, or files shared with the original."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.data import layout
from robot_rl.data.episode_file import episode_document
from robot_rl.data.files import fsync_dir, to_json, write_new
from robot_rl.data.rows import FrameRows
from robot_rl.data.schema import StoreSchema
from robot_rl.data.staging import claim_new
from robot_rl.data.writer import EpisodeWriter, staging_note
from robot_rl.values import Recording, RecordingMeta, Stream


def write_parts(folder: Path, id: str, schema: StoreSchema, meta: RecordingMeta, parts: Sequence[Recording]) -> None:
    """Write an episode whose streams are those of `parts`, one after the other; pictures are copied as they are coded.

    Raises:
        StoreError: The disk is full.
        SpecError: The streams do not fit the schema.
    """

    def publish(staged: Path, document: Mapping[str, Any]) -> None:
        (staged / layout.STAGING_FILE).unlink()
        folder.mkdir(parents=True, exist_ok=True)
        staged.rename(folder / id)
        fsync_dir(folder)

    claim = claim_new(folder.with_name("staging"), id, staging_note(id, meta, live=False))
    writer = EpisodeWriter(claim, schema, meta, publish)
    try:
        for part in parts:
            for name, stream in part.streams.items():
                if len(stream):
                    writer.append_stream(name, stream)
        writer.commit()
    finally:
        writer.discard()


def link_streams(source: Path, folder: Path, meta: RecordingMeta, streams: Mapping[str, tuple[str, Any]]) -> None:
    """Make an episode of another one's arrays, under other names; the files are shared, none is copied if need not be.

    Args:
        source: The original's folder.
        folder: Where the new one is made; its name is its id.
        meta: The new one's meta.
        streams: New name -> (old name, what episode.json says of it).
    """
    for name, (old, about) in streams.items():
        for array, entry in about["arrays"].items():
            target = folder / layout.chunk_path(name, array, tuple(entry["shape"]))
            target.parent.mkdir(parents=True, exist_ok=True)
            origin = source / layout.chunk_path(old, array, tuple(entry["shape"]))
            if origin.exists():
                _share(origin, target)
    document = episode_document(folder.name, meta, {name: about for name, (_, about) in streams.items()})
    layout.write_zarr(folder, document["streams"])
    write_new(folder / layout.EPISODE_FILE, to_json(document))


def _share(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def part(stream: Stream, start: int, stop: int) -> Stream:
    """Return samples [start, stop) of a stream; pictures stay coded."""
    rows = stream.data.part(start, stop) if isinstance(stream.data, FrameRows) else stream.data[start:stop]
    return Stream(stream.stamp_ns[start:stop], rows)


def nbytes(recordings: Sequence[Recording]) -> int:
    """Return the bytes that recordings need in a store."""
    total = 0
    for stream in (stream for recording in recordings for stream in recording.streams.values()):
        rows = stream.data
        if isinstance(rows, FrameRows):
            total += rows.stored_nbytes + 8 * len(rows) + 8 * len(stream)
        else:
            total += int(np.prod(rows.shape, dtype=np.int64)) * rows.dtype.itemsize + 8 * len(stream)
    return total


def encoded(stream: Stream, index: int) -> bytes:
    """Return the bytes of one sample as stored."""
    rows = stream.data
    return rows.encoded(index) if isinstance(rows, FrameRows) else np.asarray(rows[index]).tobytes()
