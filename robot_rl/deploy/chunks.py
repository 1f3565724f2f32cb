"""Action chunks become one action per control tick, by time stamp.

Receding horizon as in Chi et al., Diffusion Policy (2023), section on real-robot latency: rows that are already due are
dropped, a new chunk replaces the old one from its first surviving stamp on, and when every row is stale the last one is
kept and moved to the next grid point. Starvation is answered with `None`; the loop then holds and counts.

Other strategies differ in two places only: rows that are planned already may be combined with the new ones
(`robot_rl.deploy.ensembling`), and a request tells the policy what is promised and how many of those actions will be
gone when it answers, which real-time chunking and bidirectional decoding use.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from robot_rl.deploy.ensembling import Combine
from robot_rl.errors import ConfigError, SpecError
from robot_rl.values import ActionChunk, Obs, PolicyInput

log = logging.getLogger(__name__)

MARGIN_NS = 10_000_000
DELAY_WINDOW = 10


@dataclass(frozen=True)
class ChunkCounts:
    """What happened to chunks so far.

    Args:
        chunks: Chunks taken in.
        stale_actions: Rows dropped because they were due already.
        stale_chunks: Chunks of which no row survived, so that the last was moved to the next grid point.
        starved: Ticks with no valid action.
        boundaries: Ticks at which a chunk took over from another.
        boundary_jump_max: Largest |new - old plan| over the elements of the action due at such a tick.
        boundary_jump_sum: Sum of those jumps, for the mean.
        late_chunks: Chunks that took more steps than the policy was told, so that it continued what was past.
    """

    chunks: int = 0
    stale_actions: int = 0
    stale_chunks: int = 0
    starved: int = 0
    boundaries: int = 0
    boundary_jump_max: float = 0.0
    boundary_jump_sum: float = 0.0
    late_chunks: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def plus(self, other: ChunkCounts) -> ChunkCounts:
        """Return the counts of both."""
        mine, theirs = asdict(self), asdict(other)
        largest = max(self.boundary_jump_max, other.boundary_jump_max)
        return ChunkCounts(**{name: mine[name] + theirs[name] for name in mine} | {"boundary_jump_max": largest})


class ChunkExecutor:
    """Holds what has been promised and gives the action in force at a tick. Safe to use from two threads.

    An action is in force from its stamp until the chunk's next one; after the last row there is none.

    Args:
        n_execute: Ticks after which `wants_chunk` asks for the next chunk, unless a chunk brings its own number.
        margin_ns: A row must be due at least this much after `now` to be kept by `offer`.
        combine: What to do where a new row meets a planned one; the new one replaces it when `None`.
        delay_window: A request expects the longest of so many last delays. The first chunk's is forgotten as soon as
            there is another, because a first call may compile or allocate.
        lead_ns: Send rows this much before they are due, in whole steps (`LatencyCalibration.lead_ns`).
    """

    def __init__(
        self,
        *,
        n_execute: int,
        margin_ns: int = MARGIN_NS,
        combine: Combine | None = None,
        delay_window: int = DELAY_WINDOW,
        lead_ns: int = 0,
    ) -> None:
        if n_execute < 1:
            raise ConfigError(f"`n_execute` must be at least 1, got {n_execute}")
        if margin_ns < 0:
            raise ConfigError(f"`margin_ns` must not be negative, got {margin_ns}")
        if delay_window < 1:
            raise ConfigError(f"`delay_window` must be at least 1, got {delay_window}")
        self.n_execute = n_execute
        self.margin_ns = margin_ns
        if lead_ns < 0:
            raise ConfigError(f"`lead_ns` must not be negative, got {lead_ns}")
        self.lead_ns, self._combine = lead_ns, combine
        self._first_delay: int | None = None
        self._delays: deque[int] = deque(maxlen=delay_window)
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget all chunks; the counts start again. How long chunks take is remembered."""
        with self._lock:
            self._plan: list[_Planned] = []
            self._requested_ns: int | None = None
            self._told_steps: int | None = None
            self._period_ns = 0
            self._source_ns: int | None = None
            self._counts = ChunkCounts()

    @property
    def counts(self) -> ChunkCounts:
        """What happened since the last reset."""
        with self._lock:
            return self._counts

    @property
    def source_ns(self) -> int | None:
        """Stamp of the observation behind the action that `action_at` gave last; `None` when it gave none."""
        with self._lock:
            return self._source_ns

    def wants_chunk(self, tick_ns: int) -> bool:
        """Whether to ask for a chunk: none is in force, or `n_execute` steps have passed since the last request."""
        with self._lock:
            if self._requested_ns is None or self._in_force(tick_ns) is None:
                return True
            return tick_ns - self._requested_ns >= self._period_ns

    def requested(self, tick_ns: int) -> None:
        """Note that a chunk was asked for at a tick."""
        with self._lock:
            self._requested_ns = tick_ns

    @property
    def delay_steps(self) -> int:
        """How many actions are expected to be gone when a chunk asked for now is there."""
        with self._lock:
            return max(self._delays, default=self._first_delay or 0)

    def ask(self, obs: Obs, tick_ns: int) -> PolicyInput:
        """Return the request of a chunk at a tick, with what is promised from that tick on, and note it."""
        delay = self.delay_steps
        with self._lock:
            prefix = self._promised(tick_ns - self._lead(self._plan[-1].chunk) if self._plan else tick_ns)
            self._requested_ns, self._told_steps = tick_ns, None if prefix is None else delay
        return PolicyInput(
            obs=obs, stamp_ns=tick_ns, prefix=prefix, delay_steps=0 if prefix is None else min(delay, len(prefix))
        )

    def load(self, chunk: ActionChunk) -> None:
        """Take a chunk computed while the loop waited: it replaces everything, and row 0 is still in time."""
        with self._lock:
            self._note_delay(0)
            self._take(self._planned(self._early(chunk), chunk), keep_before=False)

    def offer(self, chunk: ActionChunk, now_ns: int) -> int:
        """Take a chunk computed while the old one ran, without its stale rows.

        Args:
            chunk: The new chunk.
            now_ns: The present time; rows due at or before `now_ns + margin_ns` are stale.

        Returns:
            How many rows survived; 0 when only the last was kept, moved to the next grid point.
        """
        sent = self._early(chunk)
        fresh = int(np.count_nonzero(sent.stamp_ns > now_ns + self.margin_ns))
        dropped = len(chunk) - fresh
        if fresh:
            kept = ActionChunk(sent.start_ns + dropped * sent.step_ns, sent.step_ns, sent.action[dropped:])
        else:
            steps = -((sent.start_ns - now_ns) // sent.step_ns)  # ceil((now - start) / step) in integers
            kept = ActionChunk(sent.start_ns + steps * sent.step_ns, sent.step_ns, sent.action[-1:])
        with self._lock:
            self._counts = replace(
                self._counts,
                stale_actions=self._counts.stale_actions + dropped,
                stale_chunks=self._counts.stale_chunks + (fresh == 0),
            )
            self._note_delay(dropped)
            self._take(self._planned(kept, chunk, combine=fresh > 0), keep_before=True)
        return fresh

    def action_at(self, tick_ns: int) -> np.ndarray | None:
        """Return a copy of the action [A] in force at a tick, or `None` (counted as starvation)."""
        with self._lock:
            planned = self._in_force(tick_ns)
            self._source_ns = None if planned is None else planned.source_ns
            if planned is None:
                self._counts = replace(self._counts, starved=self._counts.starved + 1)
                return None
            self._plan = [p for p in self._plan if p.end_ns + self._lead(p.chunk) > tick_ns]
            return planned.row(tick_ns).copy()

    def _lead(self, chunk: ActionChunk) -> int:
        return round(self.lead_ns / chunk.step_ns) * chunk.step_ns

    def _early(self, chunk: ActionChunk) -> ActionChunk:
        """Return the chunk by when its rows are sent: before they are due, by the lead in whole steps."""
        return replace(chunk, start_ns=chunk.start_ns - self._lead(chunk))

    def _note_delay(self, steps: int) -> None:
        if self._first_delay is None:
            self._first_delay = steps
        else:
            self._delays.append(steps)
        told, self._told_steps = self._told_steps, None
        if told is not None and steps > told:
            self._counts = replace(self._counts, late_chunks=self._counts.late_chunks + 1)
            log.info("a chunk took %d control steps, the policy was told %d", steps, told)

    def _promised(self, tick_ns: int) -> np.ndarray | None:
        """Return the actions [P, A] planned for a tick and the steps after it, as long as there is no gap."""
        rows, stamp = [], tick_ns
        while (planned := self._in_force(stamp)) is not None:
            rows.append(planned.row(stamp))
            stamp += planned.chunk.step_ns
        return np.stack(rows) if rows else None

    def _planned(self, kept: ActionChunk, chunk: ActionChunk, *, combine: bool = True) -> _Planned:
        """Return the part of a new chunk that is kept, combined with what is planned for the same instants."""
        action, count = kept.action, np.ones(len(kept), dtype=np.int64)
        if self._combine is not None and combine:
            action = np.array(action)
            meets = [(i, p) for i, stamp in enumerate(kept.stamp_ns) if (p := self._in_force(int(stamp))) is not None]
            if meets:
                index = [i for i, _ in meets]
                stamps = [int(kept.stamp_ns[i]) for i in index]
                old = np.stack([p.row(stamp) for (_, p), stamp in zip(meets, stamps, strict=True)])
                n_old = np.array([p.count[p.index(stamp)] for (_, p), stamp in zip(meets, stamps, strict=True)])
                action[index], count[index] = self._combine(old, n_old, action[index]), n_old + 1
        joined = ActionChunk(kept.start_ns, kept.step_ns, action)
        return _Planned(joined, chunk.start_ns, chunk.n_execute or self.n_execute, count)

    def _take(self, new: _Planned, *, keep_before: bool) -> None:
        if not np.isfinite(new.chunk.action).all():
            raise SpecError("`action` of a chunk must be finite, got NaN or infinity; the policy is broken")
        self._count_boundary(new.chunk)
        cut = [old.before(new.chunk.start_ns) for old in self._plan] if keep_before else []
        self._plan = [old for old in cut if old is not None] + [new]
        self._period_ns = new.n_execute * new.chunk.step_ns
        self._counts = replace(self._counts, chunks=self._counts.chunks + 1)

    def _count_boundary(self, chunk: ActionChunk) -> None:
        planned = self._in_force(chunk.start_ns)
        if planned is None:
            return
        jump, c = float(np.max(np.abs(chunk.action[0] - planned.row(chunk.start_ns)))), self._counts
        self._counts = replace(
            c,
            boundaries=c.boundaries + 1,
            boundary_jump_max=max(c.boundary_jump_max, jump),
            boundary_jump_sum=c.boundary_jump_sum + jump,
        )

    def _in_force(self, tick_ns: int) -> _Planned | None:
        for planned in reversed(self._plan):
            if planned.chunk.start_ns <= tick_ns < planned.end_ns:
                return planned
        return None


@dataclass(frozen=True)
class _Planned:
    """What is left of a chunk, the stamp of the observation it came from, and when to ask for the next (steps).

    `count` [H] says how many predictions each row stands for.
    """

    chunk: ActionChunk
    source_ns: int
    n_execute: int
    count: np.ndarray

    @property
    def end_ns(self) -> int:
        """When the last row stops being in force."""
        return self.chunk.start_ns + len(self.chunk) * self.chunk.step_ns

    def index(self, tick_ns: int) -> int:
        """Return which row is in force at a tick inside the chunk."""
        return (tick_ns - self.chunk.start_ns) // self.chunk.step_ns

    def row(self, tick_ns: int) -> np.ndarray:
        """Return the row [A] in force at a tick inside the chunk."""
        return np.asarray(self.chunk.action[self.index(tick_ns)])

    def before(self, stamp_ns: int) -> _Planned | None:
        """Return the part that is due before a stamp."""
        n = int(np.count_nonzero(self.chunk.stamp_ns < stamp_ns))
        c = self.chunk
        if not n:
            return None
        return replace(self, chunk=ActionChunk(c.start_ns, c.step_ns, c.action[:n]), count=self.count[:n])
