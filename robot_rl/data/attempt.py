"""One attempt while it is being recorded: bounded queues in, threads that encode and write, one episode out.

The thread that receives only copies: pictures into a fixed set of frames, small rows onto a list. Pictures are encoded
by their own thread each (the codecs release the interpreter lock), small rows are written in batches every 20 ms.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from robot_rl.data.schema import StoreSchema
from robot_rl.data.writer import EpisodeWriter
from robot_rl.errors import SpecError, StoreError
from robot_rl.specs import ArraySpec
from robot_rl.values import RecordingMeta, Stream

log = logging.getLogger(__name__)

LARGE_BYTES = 16_384
"""A sample of at least this size goes through frames of its own; smaller ones are written in batches."""
FRAME_QUEUE = 30
ROW_QUEUE = 4096
BATCH_S = 0.02

FULL = "queue full"
LATE = "stamp not later than the last"
REFUSED = "refused by its spec"
DISK = "disk full or store closed"


class FramePool:
    """A fixed number of frames for one stream, touched once so that the first pictures cost no page faults."""

    def __init__(self, spec: ArraySpec, n_frames: int = FRAME_QUEUE) -> None:
        frames = np.empty((n_frames, *spec.shape), spec.dtype)
        frames.fill(0)
        self._free: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        for frame in frames:
            self._free.put(frame)

    def take(self) -> np.ndarray | None:
        """Return a free frame, `None` when all are in use."""
        try:
            return self._free.get_nowait()
        except queue.Empty:
            return None

    def give(self, frame: np.ndarray) -> None:
        """Give a frame back."""
        self._free.put(frame)


def make_pools(schema: StoreSchema, n_frames: int = FRAME_QUEUE) -> dict[str, FramePool]:
    """Return frames for every stream whose samples are large."""
    return {
        name: FramePool(stream.spec, n_frames)
        for name, stream in schema.streams.items()
        if stream.spec.size * np.dtype(stream.spec.dtype).itemsize >= LARGE_BYTES
    }


class Attempt:
    """Takes samples from any thread without ever waiting for the disk; `finish` writes what is left and commits.

    Args:
        id: The episode's id.
        open_writer: Makes its writer; called on a thread, since making folders can wait for a busy disk.
        schema: Of the store.
        pools: Frames of the large streams, shared by one attempt after the other.
    """

    def __init__(
        self, id: str, open_writer: Callable[[], EpisodeWriter], schema: StoreSchema, pools: Mapping[str, FramePool]
    ) -> None:
        self.id = id
        self.encoding_cpu_s = 0.0
        self._open_writer, self._schema, self._pools = open_writer, schema, pools
        self._writer: Future[EpisodeWriter] = Future()
        self._lock = threading.Lock()
        self._open, self._kept = True, True
        self._last: dict[str, int] = {}
        self._rows: dict[str, list[tuple[int, np.ndarray]]] = {}
        self._frames: dict[str, queue.SimpleQueue[Any]] = {name: queue.SimpleQueue() for name in pools}
        self._end = threading.Event()
        self._complaints: dict[str, str] = {}
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._count_lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._write_frames, args=(name,), name=f"encode-{name}", daemon=True)
            for name in pools
        ]
        self._threads.append(threading.Thread(target=self._write_rows, name="write-rows", daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def complaints(self) -> dict[str, str]:
        """The first message of a refused sample, by stream."""
        return dict(self._complaints)

    def dropped(self, stream: str) -> dict[str, int]:
        """Return how many samples of a stream were received and not stored, by reason."""
        with self._count_lock:
            return {reason: n for (name, reason), n in self._dropped.items() if name == stream}

    def _drop(self, stream: str, reason: str) -> None:
        with self._count_lock:
            self._dropped[stream, reason] += 1

    def push(self, stream: str, stamp_ns: int, value: np.ndarray | bytes) -> bool:
        """Take one sample and return whether it will be stored, as far as one can tell now.

        Args:
            stream: Name in the store.
            stamp_ns: Capture; must grow within the stream.
            value: The sample, copied here; or the whole picture as bytes of the stream's codec.
        """
        with self._lock:
            if not self._open:
                return False
            if stamp_ns <= self._last.get(stream, -(2**63)):
                self._drop(stream, LATE)
                return False
            stored = self._put(stream, stamp_ns, value)
            if stored:
                self._last[stream] = stamp_ns
            return stored

    def _put(self, stream: str, stamp_ns: int, value: np.ndarray | bytes) -> bool:
        if stream not in self._pools:
            rows = self._rows.setdefault(stream, [])
            if len(rows) >= ROW_QUEUE:
                self._drop(stream, FULL)
                return False
            rows.append((stamp_ns, np.array(value)))
            return True
        frame = self._pools[stream].take()
        if frame is None:
            self._drop(stream, FULL)
            return False
        if isinstance(value, bytes):
            self._frames[stream].put((stamp_ns, frame, value))
            return True
        if value.shape != frame.shape or value.dtype != frame.dtype:
            self._pools[stream].give(frame)
            spec = self._schema.stream(stream).spec
            self._refuse(stream, f"`{stream}` must be {spec.describe()}, got {value.dtype}{value.shape}")
            return False
        np.copyto(frame, value)
        self._frames[stream].put((stamp_ns, frame, None))
        return True

    def _refuse(self, stream: str, message: str, reason: str = REFUSED) -> None:
        self._drop(stream, reason)
        if stream not in self._complaints:
            self._complaints[stream] = message
            log.warning("recording %s: %s", self.id, message)

    def _write_frames(self, stream: str) -> None:
        pool, frames = self._pools[stream], self._frames[stream]
        while (item := frames.get()) is not None:
            stamp_ns, frame, encoded = item
            if self._kept:
                self._guarded(stream, stamp_ns, frame, encoded)
            pool.give(frame)
        self._note_cpu()

    def _guarded(self, stream: str, stamp_ns: int, value: np.ndarray, encoded: bytes | None = None) -> None:
        """Write one sample; one that is refused is counted, and the next may be fine."""
        try:
            writer = self._writer.result()
            if encoded is None:
                writer.append(stream, stamp_ns, value)
            else:
                writer.append_encoded(stream, stamp_ns, encoded)
        except (StoreError, OSError) as error:
            self._refuse(stream, str(error), DISK)
        except SpecError as error:
            self._refuse(stream, str(error))

    def _write_rows(self) -> None:
        try:
            self._writer.set_result(self._open_writer())
        except (StoreError, SpecError, OSError) as error:
            self._writer.set_exception(error)
        while True:
            ended = self._end.wait(BATCH_S)
            with self._lock:
                rows, self._rows = self._rows, {}
            for stream, samples in rows.items() if self._kept else ():
                self._write_batch(stream, samples)
            if ended:
                break
        self._note_cpu()

    def _write_batch(self, stream: str, samples: Sequence[tuple[int, np.ndarray]]) -> None:
        try:
            stamps = np.array([stamp for stamp, _ in samples], np.int64)
            self._writer.result().append_stream(stream, Stream(stamps, np.stack([value for _, value in samples])))
        except (SpecError, StoreError, ValueError, OSError):
            # The writer took none of the batch; one by one tells which samples it will not have.
            for stamp_ns, value in samples:
                self._guarded(stream, stamp_ns, value)

    def _note_cpu(self) -> None:
        with self._lock:
            self.encoding_cpu_s += time.thread_time()

    def drain(self, *, keep: bool = True) -> None:
        """Take nothing more and wait until all that was taken is written (or, not kept, thrown away)."""
        with self._lock:
            self._open, self._kept = False, keep
        for frames in self._frames.values():
            frames.put(None)
        self._end.set()
        for thread in self._threads:
            thread.join()

    def commit(self, meta: RecordingMeta) -> str:
        """Make the episode visible and return its id; call `drain` first.

        Raises:
            SpecError: A stream without which there is no episode has no sample; nothing is saved.
            StoreError: The disk is full (the staging folder is kept), or the episode could not even be begun.
        """
        writer = self._writer.result()
        try:
            return writer.commit(meta)
        except SpecError:
            writer.discard()
            raise

    def discard(self) -> None:
        """Throw away what was recorded."""
        self.drain(keep=False)
        if self._writer.exception() is None:
            self._writer.result().discard()
