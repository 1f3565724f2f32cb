"""The writer of one episode: what it appends is at once in its final place and form, so saving costs no copy.

Each row is written unbuffered as it comes (data first, its stamp last), so a killed process loses at most the row in
flight; a thread makes the files durable every second, so a power cut costs about the last second.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.data import frame_codec, layout
from robot_rl.data.episode_file import episode_document, stream_entry
from robot_rl.data.files import fsync_dir, to_json, write_all, write_new
from robot_rl.data.rows import EncodedRows
from robot_rl.data.schema import StoreSchema, StreamSchema, check_row_type, check_stamps, meta_to_dict
from robot_rl.data.staging import Claim
from robot_rl.errors import SpecError, StoreError
from robot_rl.values import RecordingMeta, Rows, Stream

SYNC_PERIOD_S = 1.0
_BATCH_ROWS = 4096
_BATCH_BYTES = 2**24


class _ArrayFile:
    """The chunk file of a growing array: append-only, with its running checksum."""

    def __init__(self, folder: Path, row_shape: tuple[int, ...], dtype: str) -> None:
        folder.mkdir(parents=True)
        self.row_shape, self.dtype = row_shape, dtype
        self.path = folder / layout.chunk_name(1 + len(row_shape))
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self.nbytes = 0
        self.crc32 = 0

    def append(self, data: bytes | memoryview) -> None:
        write_all(self.fd, data, self.path)
        self.nbytes += len(data)
        self.crc32 = zlib.crc32(data, self.crc32)

    def rewind(self, nbytes: int, crc32: int) -> None:
        """Drop what was written after a mark, so that a refused row leaves no torn bytes."""
        os.ftruncate(self.fd, nbytes)
        os.lseek(self.fd, nbytes, os.SEEK_SET)
        self.nbytes, self.crc32 = nbytes, crc32

    def entry(self) -> dict[str, Any]:
        row = int(np.prod(self.row_shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize
        return layout.array_entry((self.nbytes // row, *self.row_shape), self.dtype, self.crc32)


def _raw(array: np.ndarray) -> memoryview:
    """Return an array's bytes as stored: C order, little endian."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


class _StreamWriter:
    """One stream of an episode. Its lock lets each camera or topic append from its own thread."""

    def __init__(self, folder: Path, schema: StreamSchema) -> None:
        self.schema = schema
        self.lock = threading.Lock()
        arrays = layout.arrays_of(schema.codec, schema.spec.shape, schema.spec.dtype)
        self.files = {name: _ArrayFile(folder / name, shape, dtype) for name, (shape, dtype) in arrays.items()}
        self.count = 0
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        if schema.codec != "raw":
            self.files["offset"].append(_raw(np.zeros(1, np.int64)))

    def append(self, stamps: np.ndarray, parts: Mapping[str, bytes | memoryview]) -> None:
        """Append the bytes of some samples; all of them or, when the disk is full, none."""
        with self.lock:
            check_stamps(self.schema.spec.name, stamps, self.last_ns)
            marks = [(file, file.nbytes, file.crc32) for file in self.files.values()]
            try:
                for name, file in self.files.items():
                    file.append(_raw(stamps) if name == "stamp_ns" else self._part(name, parts))
            except (StoreError, OSError):
                for file, nbytes, crc32 in marks:
                    file.rewind(nbytes, crc32)
                raise
            self.count += len(stamps)
            self.first_ns = int(stamps[0]) if self.first_ns is None else self.first_ns
            self.last_ns = int(stamps[-1])

    def _part(self, name: str, parts: Mapping[str, bytes | memoryview]) -> bytes | memoryview:
        if name != "offset":
            return parts[name]
        return _raw(np.array([self.files["frames"].nbytes], np.int64))

    def sync(self) -> None:
        """Make the rows durable, data before stamps."""
        for file in self.files.values():
            os.fdatasync(file.fd)

    def entry(self) -> dict[str, Any]:
        """Return what episode.json says about this stream."""
        arrays = {name: file.entry() for name, file in self.files.items()}
        return stream_entry(self.schema, arrays, first_ns=self.first_ns, last_ns=self.last_ns)


class EpisodeWriter:
    """Writes one episode, stream by stream, row by row; `EpisodeStore.writer` makes it.

    A refused sample raises and leaves what was recorded so far as it was: go on, `commit` or `discard`. A writer that
    is dropped without either leaves its staging folder, which the next `EpisodeStore.open` salvages.
    """

    def __init__(
        self, claim: Claim, schema: StoreSchema, meta: RecordingMeta, publish: Callable[[Path, dict[str, Any]], None]
    ) -> None:
        self.id = claim.id
        self.meta = meta
        self._claim, self._schema, self._publish = claim, schema, publish
        self._open = True
        self._lock = threading.Lock()
        self._streams: dict[str, _StreamWriter] = {}
        self._stop = threading.Event()
        self._syncer = threading.Thread(target=self._sync_forever, name=f"sync-{self.id}", daemon=True)
        self._syncer.start()

    def append(self, stream: str, stamp_ns: int, value: Any) -> None:
        """Append one sample captured at `stamp_ns`.

        Raises:
            SpecError: Unknown stream, wrong shape or dtype, NaN, or a stamp that is not later than the last.
            StoreError: The disk is full, or the writer was closed.
        """
        schema = self._schema.stream(stream)
        array = schema.spec.validate(value, finite=schema.finite)
        if schema.codec == "raw":
            parts: dict[str, bytes | memoryview] = {"data": _raw(array)}
        else:
            parts = {"frames": frame_codec.encode(array, schema.codec)}
        self._stream(stream).append(np.array([stamp_ns], np.int64), parts)

    def append_encoded(self, stream: str, stamp_ns: int, data: bytes) -> None:
        """Append one picture that already is JPEG or PNG bytes, as the stream's codec has it.

        Raises:
            SpecError: As `append`, or the bytes are not a whole picture of the stream's size.
            StoreError: The disk is full, or the writer was closed.
        """
        schema = self._schema.stream(stream)
        frame_codec.check_encoded(data, schema.codec, schema.spec)
        self._stream(stream).append(np.array([stamp_ns], np.int64), {"frames": data})

    def append_stream(self, name: str, stream: Stream) -> None:
        """Append many samples at once; pictures stored with the same codec are copied as they are.

        Raises:
            SpecError: As `append`.
            StoreError: The disk is full, or the writer was closed.
        """
        schema = self._schema.stream(name)
        check_row_type(schema.spec, stream.data.dtype, stream.data.shape[1:])
        if schema.codec == "raw":
            count = max(1, min(_BATCH_ROWS, _BATCH_BYTES // (schema.spec.size * np.dtype(schema.spec.dtype).itemsize)))
            for start in range(0, len(stream), count):
                part = slice(start, start + count)
                rows = schema.spec.validate(stream.data[part], leading=1, finite=schema.finite)
                self._stream(name).append(stream.stamp_ns[part], {"data": _raw(rows)})
            return
        for i, stamp in enumerate(stream.stamp_ns):
            self._stream(name).append(np.array([stamp]), {"frames": _encoded(stream.data, i, schema.codec)})

    def _stream(self, name: str) -> _StreamWriter:
        with self._lock:
            if not self._open:
                raise StoreError(f"the writer of episode {self.id} was closed; ask the store for a new one")
            if name not in self._streams:
                self._streams[name] = _StreamWriter(self._claim.folder / name, self._schema.streams[name])
            return self._streams[name]

    def commit(self, meta: RecordingMeta | None = None) -> str:
        """Make the episode visible and return its id. Costs milliseconds, however long the episode is.

        Args:
            meta: What is known now that it has ended; `None` keeps what the writer was made with.

        Raises:
            SpecError: A required stream has no sample, or `on_grid` is promised and does not hold; the writer stays
                open, so fill in or `discard`.
            StoreError: The disk is full; staging is kept.
        """
        self.meta = self.meta if meta is None else meta
        self._check()
        document = episode_document(self.id, self.meta, {n: w.entry() for n, w in self._streams.items()})
        data = to_json(document)
        self._close()
        folder = self._claim.folder
        try:
            layout.write_zarr(folder, document["streams"])
            write_new(folder / layout.EPISODE_FILE, data, sync=True)
            fsync_dir(folder)
            self._publish(folder, document)
        finally:
            self._claim.release()
        return self.id

    def _check(self) -> None:
        if not self._open:
            raise StoreError(f"the writer of episode {self.id} was closed; ask the store for a new one")
        self._schema.check_counts({name: writer.count for name, writer in self._streams.items()})
        if self.meta.on_grid:
            paths = {name: writer.files["stamp_ns"].path for name, writer in self._streams.items()}
            self._schema.check_grid({name: np.fromfile(path, np.int64) for name, path in paths.items()})

    def discard(self) -> None:
        """Throw away what was recorded. Calling it after `commit` or twice does nothing."""
        if self._open:
            self._close(sync=False)
            self._claim.remove()

    def _close(self, *, sync: bool = True) -> None:
        with self._lock:
            self._open = False
        self._stop.set()
        self._syncer.join()
        if sync:
            self._sync()
        for writer in self._streams.values():
            for file in writer.files.values():
                os.close(file.fd)

    def _sync_forever(self) -> None:
        synced = 0
        while not self._stop.wait(SYNC_PERIOD_S):
            written = sum(writer.count for writer in list(self._streams.values()))
            if written != synced:
                self._sync()
                synced = written

    def _sync(self) -> None:
        """Make all rows durable, the data of each stream before its stamps; streams in parallel share one flush."""
        writers = list(self._streams.values())
        if not writers:
            return
        with ThreadPoolExecutor(len(writers)) as pool:
            list(pool.map(_StreamWriter.sync, writers))


def _encoded(rows: Rows, index: int, codec: str) -> bytes:
    if isinstance(rows, EncodedRows) and rows.codec == codec:
        return rows.encoded(index)
    return frame_codec.encode(rows[index], codec)


def staging_note(id: str, meta: RecordingMeta, *, live: bool) -> bytes:
    """Return what `staging.json` says while an episode is being written.

    Args:
        id: The episode's id.
        meta: What is known at the start.
        live: Whether this is the only copy, to be salvaged if the writer dies.

    Raises:
        SpecError: `meta.extra` is not plain JSON.
    """
    try:
        return to_json({"id": id, "meta": meta_to_dict(meta), "live": live})
    except StoreError as error:
        raise SpecError(f"`meta.extra`: {error}") from error
