"""A recorder without ROS: streams come in at any time, episodes are started and ended, each ends with a verdict."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robot_rl.data.attempt import REFUSED, Attempt, make_pools
from robot_rl.data.plan import RecordingPlan
from robot_rl.data.quality import Figures, StreamMonitor
from robot_rl.data.store import EpisodeStore, new_id
from robot_rl.data.verdict import StreamVerdict, judge, measure, worst
from robot_rl.errors import RecordingError, SpecError
from robot_rl.values import Outcome, RecordingMeta

log = logging.getLogger(__name__)

State = Literal["idle", "recording"]
RESERVE_BYTES = 256 * 1024 * 1024
"""Disk space that a recording leaves free."""
_COMPRESSION = {"jpeg": 6.0, "png": 1.3, "raw": 1.0}
_UNKNOWN_HZ = 100.0


class RecordingSession:
    """Records the streams of a plan into a store, one episode after the other.

    `push` may be called from any thread at any time and never waits for the disk; outside an episode it only feeds the
    verdict. The rest is for one controlling thread.

    Args:
        store: Where episodes go.
        plan: The streams.
        monotonic_ns: The clock of time-outs.
        max_episode_s: How long an episode may become; for the estimate of disk space.
        free_bytes: Asked for the free disk space; by default the store's disk.
    """

    def __init__(
        self,
        store: EpisodeStore,
        plan: RecordingPlan,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        max_episode_s: float = 300.0,
        free_bytes: Callable[[], int] | None = None,
    ) -> None:
        self.store, self.plan = store, plan
        self.monitors = {name: StreamMonitor(name, s.expected) for name, s in plan.streams.items()}
        self.last_id = ""
        self._now, self._max_episode_s = monotonic_ns, max_episode_s
        self._free_bytes = self._disk_free if free_bytes is None else free_bytes
        self._pools = make_pools(store.schema)
        self._attempt: Attempt | None = None
        self._meta = RecordingMeta()
        self._held: dict[str, Any] = {}
        self._complaints: dict[str, str] = {}
        self._began = (0.0, 0)
        self._lock = threading.Lock()
        self._saver = ThreadPoolExecutor(1, thread_name_prefix="save-episode")

    @property
    def state(self) -> State:
        """Whether an episode is being recorded; one that is being saved no longer is."""
        return "idle" if self._attempt is None else "recording"

    @property
    def episode_id(self) -> str:
        """The id of the episode being recorded, empty when none is."""
        attempt = self._attempt
        return "" if attempt is None else attempt.id

    def push(
        self,
        stream: str,
        stamp_ns: int | None,
        value: np.ndarray | bytes,
        *,
        received_ns: int,
        monotonic_ns: int | None = None,
        sequence: int = -1,
    ) -> None:
        """Take one sample; what cannot be stored is counted by reason.

        Args:
            stream: Name in the plan.
            stamp_ns: Its own stamp, `None` where it has none: the time of receipt is stored.
            value: The sample (copied), or a whole picture as bytes of the stream's codec.
            received_ns: ROS time of receipt.
            monotonic_ns: Monotonic time of receipt; now when not given.
            sequence: The publisher's running number, -1 when unknown.
        """
        on_receipt = stamp_ns is None
        stamp = received_ns if stamp_ns is None else stamp_ns
        now = self._now() if monotonic_ns is None else monotonic_ns
        self.monitors[stream].add(stamp, received_ns, now, sequence=sequence, on_receipt=on_receipt)
        if self.plan.streams[stream].qos == "latched" and not isinstance(value, bytes):
            self._held[stream] = np.array(value)
        attempt = self._attempt
        if attempt is not None:
            attempt.push(stream, stamp, value)

    def refuse(self, stream: str, message: str) -> None:
        """Count a message that could not even be read; the first of each stream and episode is logged and kept."""
        self.monitors[stream].drop(REFUSED)
        if stream not in self._complaints:
            log.warning("stream %s: %s", stream, message)
            self._complaints[stream] = message

    def verdicts(self, *, live: bool = True) -> dict[str, StreamVerdict]:
        """Return the verdict on every stream as of now; `live` judges the rate by the last seconds."""
        return self._judge(measure(self.monitors, self._now()), self._attempt, live=live)

    def _judge(
        self, figures: Mapping[str, Figures], attempt: Attempt | None, *, live: bool
    ) -> dict[str, StreamVerdict]:
        judged = {}
        for name, found in figures.items():
            dropped = Counter(found.dropped)
            if attempt is not None:
                dropped.update(attempt.dropped(name))
            judged[name] = judge(self.monitors[name], replace(found, dropped=dict(dropped)), live=live)
        return judged

    # Before an episode

    def preflight(self) -> None:
        """Raise unless an episode can be recorded now.

        Raises:
            RecordingError: Too little disk space, or required streams that are not there; says how much, and which.
        """
        needed, free = self.needed_bytes(), self._free_bytes()
        if free < needed:
            raise RecordingError(
                f"the disk of {self.store.url} has {free / 1e6:.0f} MB free; an episode of up to "
                f"{self._max_episode_s:g} s needs about {needed / 1e6:.0f} MB: free some space, record elsewhere or "
                "lower max_episode_s"
            )
        silent = []
        for name, stream in self.plan.streams.items():
            limit, last = stream.expected.stale_after_s, self.monitors[name].last_receipt_ns
            if not stream.expected.required:
                continue
            if last is None:
                silent.append(f"`{name}` (topic {stream.topic}): nothing was received yet")
            elif limit is not None and self._now() - last > limit * 1e9:
                silent.append(f"`{name}` (topic {stream.topic}): silent for {(self._now() - last) / 1e9:.2f} s")
        if silent:
            raise RecordingError(f"required streams are not there: {'; '.join(silent)}")

    def needed_bytes(self) -> int:
        """Return an upper estimate of what an episode takes on the disk, with the reserve."""
        rate = 0.0
        for name, stream in self.plan.streams.items():
            schema = self.store.schema.stream(name)
            nbytes = schema.spec.size * np.dtype(schema.spec.dtype).itemsize / _COMPRESSION[schema.codec] + 16
            rate += nbytes * (_UNKNOWN_HZ if stream.expected.rate_hz is None else stream.expected.rate_hz)
        return int(rate * self._max_episode_s) + RESERVE_BYTES

    def _disk_free(self) -> int:
        local = Path(self.store.url)
        return shutil.disk_usage(local if local.exists() else tempfile.gettempdir()).free

    # Episodes

    def start(self, meta: RecordingMeta, *, stamp_ns: int) -> str:
        """Begin an episode and return its id.

        Args:
            meta: What is known now.
            stamp_ns: ROS time; the last value of a latched stream enters the episode with it.

        Raises:
            RecordingError: One is being recorded already, or `preflight` refuses.
        """
        if self._attempt is not None:
            raise RecordingError(f"episode {self._attempt.id} is being recorded already; stop or discard it first")
        self.preflight()
        for monitor in self.monitors.values():
            monitor.begin()
        self._complaints = {}
        id = new_id()
        attempt = Attempt(id, lambda: self.store.writer(meta, id=id), self.store.schema, self._pools)
        for stream, value in list(self._held.items()):
            attempt.push(stream, stamp_ns, value)
        self._meta, self._began = meta, (time.process_time(), self._now())
        self._attempt = attempt
        return attempt.id

    def stop(self, outcome: Outcome = "unknown", **changes: Any) -> Future[str]:
        """End the episode; it is saved on a thread, and the future gives its id.

        Args:
            outcome: How it ended.
            changes: Further fields of `RecordingMeta` that are known now (`task`, `terminated`, `policy_version` ...).

        Raises:
            RecordingError: None is being recorded. The future raises it when a stream that every episode of the store
                needs had no sample (nothing is saved), and `StoreError` when the disk is full (salvaged later).
        """
        attempt = self._take()
        figures = measure(self.monitors, self._now())
        meta = replace(self._meta, outcome=outcome, **changes)
        return self._saver.submit(self._save, attempt, meta, figures, self._began)

    def _take(self) -> Attempt:
        with self._lock:
            attempt, self._attempt = self._attempt, None
        if attempt is None:
            raise RecordingError("no episode is being recorded; start one first")
        return attempt

    def _save(
        self, attempt: Attempt, meta: RecordingMeta, figures: Mapping[str, Figures], began: tuple[float, int]
    ) -> str:
        cpu_s, began_ns = began
        complaints = dict(self._complaints)
        attempt.drain()
        verdicts = self._judge(figures, attempt, live=False)  # after the last sample was written or refused
        quality = {
            "level": worst(verdicts),
            "streams": {name: verdict.to_dict() for name, verdict in verdicts.items()},
            "refused": {**complaints, **attempt.complaints},
            "cpu": {"seconds": round((self._now() - began_ns) / 1e9, 3),
                    "process_s": round(time.process_time() - cpu_s, 3),
                    "encoding_s": round(attempt.encoding_cpu_s, 3)},
        }  # fmt: skip
        try:
            self.last_id = attempt.commit(replace(meta, extra={**meta.extra, "quality": quality}))
        except (SpecError, OSError) as error:
            raise RecordingError(f"episode {attempt.id} was not saved: {error}") from error
        log.info("episode %s saved as %s; quality %s", self.last_id, meta.outcome, quality["level"])
        return self.last_id

    def discard(self) -> str:
        """Throw the episode away and return the id it would have had.

        Raises:
            RecordingError: None is being recorded.
        """
        attempt = self._take()
        attempt.discard()
        return attempt.id

    def label(self, outcome: Outcome) -> str:
        """Relabel the last episode saved in this session and return its id.

        Raises:
            RecordingError: There is none.
        """
        if not self.last_id:
            raise RecordingError("no episode is being recorded and none was saved by this recorder")
        self.store.relabel(self.last_id, outcome=outcome)
        return self.last_id

    def close(self) -> None:
        """End what is going on: an episode being recorded is saved as it is, truncated, with outcome unknown."""
        if self._attempt is not None:
            self.stop(truncated=True).result()
        self._saver.shutdown()
