"""How good each stream of a running recording is: rate, gaps, jitter, latency, skew, losses, staleness, clock jumps.

One `StreamMonitor` per stream takes three clock readings per sample and keeps a fixed amount of memory, however long
the recording runs. Durations come from the monotonic clock, stamps are compared with stamps.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from robot_rl.data.spread import Spread
from robot_rl.errors import ConfigError

WINDOW_S = 2.0
_BLOCK = 2048
_SEEN = 1024
_LEARN_NS = 500_000_000
_JUMP_NS = 50_000_000


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a stream should be like.

    Args:
        rate_hz: Samples per second; `None` for a stream that comes when something happens.
        required: No episode may start or go on without it.
        stale_s: Silence after which it counts as dead; by default 4.5 periods, at least 0.1 s.
        max_gap_s: Time between two stamps that is a gap; by default 3 periods, at least 0.03 s.

    Raises:
        ConfigError: A number that is not positive.
    """

    rate_hz: float | None = None
    required: bool = True
    stale_s: float | None = None
    max_gap_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("rate_hz", "stale_s", "max_gap_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"`{name}` must be positive, got {value}")

    @property
    def stale_after_s(self) -> float | None:
        """Silence after which the stream counts as dead [s]; `None` when silence says nothing."""
        if self.stale_s is not None or self.rate_hz is None:
            return self.stale_s
        return max(0.1, 4.5 / self.rate_hz)

    @property
    def gap_after_s(self) -> float | None:
        """Time between two stamps that is a gap [s]; `None` when there is no rate to miss."""
        if self.max_gap_s is not None or self.rate_hz is None:
            return self.max_gap_s
        return max(0.03, 3.0 / self.rate_hz)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured of one stream since the episode began; durations in milliseconds, `None` where unknown.

    Args:
        samples: How many came.
        rate_hz: By stamps, over the episode.
        recent_hz: By receipt, over the last two seconds.
        age_ms: Since the last receipt; `None` when nothing ever came.
        gaps: Times between stamps longer than allowed.
        longest_gap_ms: The longest time between two stamps.
        missing: Samples that the expected rate would have put into the gaps.
        jitter_ms: 95th percentile of |time between stamps - median|, of the newest samples.
        latency_p50_ms: Stamp to receipt; smaller than zero when the stamps lie in the future.
        latency_p99_ms: Likewise.
        skew_ms: Median latency less the median of all streams' median latencies.
        clock_jumps: Times the stamps left the receiver's clock by more than 50 ms at once.
        largest_jump_ms: The largest of them, with its sign.
        lost: Messages published and never received, by the publisher's own count.
        dropped: What was received and not stored, by reason.
    """

    samples: int = 0
    rate_hz: float | None = None
    recent_hz: float = 0.0
    age_ms: float | None = None
    gaps: int = 0
    longest_gap_ms: float = 0.0
    missing: int = 0
    jitter_ms: float | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    skew_ms: float | None = None
    clock_jumps: int = 0
    largest_jump_ms: float = 0.0
    lost: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass
class _Totals:
    """Running sums of one episode."""

    samples: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    gaps: int = 0
    longest_ns: int = 0
    missing: int = 0
    jumps: int = 0
    jump_ns: int = 0
    lost: int = 0
    latency: Spread = field(default_factory=Spread)
    dropped: Counter[str] = field(default_factory=Counter)
    stamped_on_receipt: bool = False


class StreamMonitor:
    """Watches one stream. `add` costs about a microsecond; the arithmetic is done on blocks, when asked or when full.

    Args:
        name: The stream.
        expected: What it should be like.
    """

    def __init__(self, name: str, expected: Expected) -> None:
        self.name = name
        self.expected = expected
        self._lock = threading.Lock()
        self._new = np.zeros((_BLOCK, 4), np.int64)  # stamp, receipt (ROS), receipt (monotonic), sequence
        self._n_new = 0
        self._seen = np.zeros((0, 4), np.int64)  # the newest samples, already counted
        self._offset: int | None = None  # stamp less monotonic receipt at the least delay so far
        self._learn_until: int | None = None
        self._totals = _Totals()

    @property
    def last_receipt_ns(self) -> int | None:
        """Monotonic time of the last receipt; `None` when nothing ever came."""
        with self._lock:
            rows = self._new[: self._n_new] if self._n_new else self._seen
            return int(rows[-1, 2]) if len(rows) else None

    def begin(self) -> None:
        """Count from here on; what is known about the clock stays."""
        with self._lock:
            self._fold()
            self._totals = _Totals()

    def add(
        self, stamp_ns: int, received_ns: int, monotonic_ns: int, *, sequence: int = -1, on_receipt: bool = False
    ) -> None:
        """Note one sample.

        Args:
            stamp_ns: Its stamp.
            received_ns: ROS time of its receipt.
            monotonic_ns: Monotonic time of its receipt.
            sequence: The publisher's running number of the message; -1 when unknown.
            on_receipt: The message has no stamp of its own, `stamp_ns` is the time of receipt.
        """
        with self._lock:
            self._new[self._n_new] = (stamp_ns, received_ns, monotonic_ns, sequence)
            self._n_new += 1
            self._totals.stamped_on_receipt = on_receipt
            if self._n_new == _BLOCK:
                self._fold()

    def drop(self, reason: str, count: int = 1) -> None:
        """Note samples that were received and will not be stored."""
        with self._lock:
            self._totals.dropped[reason] += count

    @property
    def stamped_on_receipt(self) -> bool:
        """Whether the stream's messages carry no stamp."""
        return self._totals.stamped_on_receipt

    def figures(self, monotonic_ns: int) -> Figures:
        """Return what was measured; `monotonic_ns` is now."""
        with self._lock:
            self._fold()
            totals, seen = self._totals, self._seen
            recent = int(np.count_nonzero(seen[:, 2] > monotonic_ns - int(WINDOW_S * 1e9)))
            window = min(WINDOW_S, (monotonic_ns - int(seen[0, 2])) / 1e9) if len(seen) else WINDOW_S
            full = len(seen) == _SEEN and recent == _SEEN
            return Figures(
                samples=totals.samples,
                rate_hz=_rate(totals),
                recent_hz=round(recent / window, 2) if window > 0 and not full else _rate_of(seen[:, 2]),
                age_ms=None if not len(seen) else _ms(monotonic_ns - int(seen[-1, 2])),
                gaps=totals.gaps,
                longest_gap_ms=_ms(totals.longest_ns),
                missing=totals.missing,
                jitter_ms=_jitter_ms(seen[-totals.samples :, 0]) if totals.samples > 2 else None,
                latency_p50_ms=totals.latency.percentile_ms(50),
                latency_p99_ms=totals.latency.percentile_ms(99),
                clock_jumps=totals.jumps,
                largest_jump_ms=_ms(totals.jump_ns),
                lost=totals.lost,
                dropped=dict(totals.dropped),
            )

    def _fold(self) -> None:
        """Count the new block: vector arithmetic over at most 2048 samples."""
        if self._n_new == 0:
            return
        totals, new = self._totals, self._new[: self._n_new]
        first = totals.samples == 0
        before = self._seen[-1:] if len(self._seen) else new[:1]
        delta = np.diff(np.concatenate([before, new]), axis=0)
        self._count_jumps(new, delta[:, 0])
        self._count_gaps(delta[1:, 0] if first else delta[:, 0])
        step = delta[1:, 3] if first else delta[:, 3]
        totals.lost += int((step[step > 1] - 1).sum())  # a publisher that starts anew begins at 1: not a loss
        totals.latency.add(new[:, 1] - new[:, 0])
        totals.samples += len(new)
        totals.first_ns = int(new[0, 0]) if totals.first_ns is None else totals.first_ns
        totals.last_ns = int(new[-1, 0])
        self._seen = np.concatenate([self._seen, new])[-_SEEN:]
        self._n_new = 0

    def _count_gaps(self, delta: np.ndarray) -> None:
        limit, rate, totals = self.expected.gap_after_s, self.expected.rate_hz, self._totals
        if len(delta):
            totals.longest_ns = max(totals.longest_ns, int(delta.max()))
        if limit is None:
            return
        gaps = delta[delta > limit * 1e9]
        totals.gaps += len(gaps)
        if rate is not None:
            totals.missing += int(np.maximum(np.round(gaps * rate / 1e9) - 1, 0).sum())

    def _count_jumps(self, new: np.ndarray, delta: np.ndarray) -> None:
        """Count stamps that come from the future of the least delay so far, and stamps far before their predecessor.

        A stalled receiver only makes samples late, which moves neither; a clock that creeps does not either.
        """
        for part in np.split(np.arange(len(new)), np.flatnonzero(delta < -_JUMP_NS)):
            if not len(part):
                continue
            if delta[part[0]] < -_JUMP_NS:
                self._note_jump(int(delta[part[0]]))
                self._offset = None
            offset = new[part, 0] - new[part, 2]
            start = int(offset[0]) if self._offset is None else self._offset
            if self._learn_until is None:
                self._learn_until = int(new[0, 2]) + _LEARN_NS
            best = np.maximum.accumulate(np.concatenate([[start], offset]))
            ahead = np.diff(best)
            for jump in ahead[(ahead > _JUMP_NS) & (new[part, 2] > self._learn_until)]:
                self._note_jump(int(jump))
            self._offset = int(best[-1])

    def _note_jump(self, jump_ns: int) -> None:
        self._totals.jumps += 1
        if abs(jump_ns) > abs(self._totals.jump_ns):
            self._totals.jump_ns = jump_ns


def _ms(ns: float) -> float:
    return round(ns / 1e6, 3)


def _rate_of(stamps: np.ndarray) -> float:
    span = int(stamps[-1] - stamps[0]) if len(stamps) else 0
    return round((len(stamps) - 1) * 1e9 / span, 2) if span > 0 else 0.0


def _rate(totals: _Totals) -> float | None:
    if totals.first_ns is None or totals.last_ns is None or totals.last_ns <= totals.first_ns:
        return None
    return round((totals.samples - 1) * 1e9 / (totals.last_ns - totals.first_ns), 3)


def _jitter_ms(stamps: np.ndarray) -> float | None:
    delta = np.diff(stamps)
    return _ms(float(np.percentile(np.abs(delta - np.median(delta)), 95))) if len(delta) > 1 else None
