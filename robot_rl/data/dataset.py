"""Rows of many episodes under one flat numbering: from memory, from memory maps, or decoded on demand.

Row r of a table is step `r - starts[e]` of episode e, so a batch is one int64 array and gathering it has no Python loop
over samples. Columns that fit the memory budget are held as one array; the rest, and every picture, are read per
episode for just the rows asked for, each needed row once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, overload

import numpy as np

from robot_rl.data.frame_cache import FrameCache
from robot_rl.data.rows import RowView
from robot_rl.errors import ConfigError, SpecError
from robot_rl.values import Episode, Rows

ACTION = "action"
_JOB_ROWS = 8  # rows of one job: enough to hide a thread's start, few enough that one long episode still spreads

_BLOCK_ROWS = 4096


class LazyEpisodes(Sequence[Episode]):
    """Episodes that are opened when asked for and not kept.

    Args:
        ids: Which episodes, in order.
        open_episode: Opens one, for example `store.episode`.
    """

    def __init__(self, ids: Sequence[str], open_episode: Callable[[str], Episode]) -> None:
        self.ids = tuple(ids)
        self._open = open_episode

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> LazyEpisodes: ...
    def __getitem__(self, index: int | slice) -> Episode | LazyEpisodes:
        if isinstance(index, slice):
            return LazyEpisodes(self.ids[index], self._open)
        return self._open(self.ids[index])


class RecentEpisodes:
    """The last few episodes used, kept open, so that ten thousand of them do not exhaust file handles.

    Args:
        open_episode: Opens one by its number.
        max_open: How many to keep.
    """

    def __init__(self, open_episode: Callable[[int], Episode], max_open: int) -> None:
        if max_open < 1:
            raise ConfigError(f"`max_open` must be at least 1 episode, got {max_open}")
        self._open_episode = open_episode
        self._max_open = max_open
        self._open: OrderedDict[int, Episode] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, index: int) -> Episode:
        """Return episode `index`, opening it if it is not among the recent ones."""
        with self._lock:  # held while opening, so that two threads never open the same episode twice
            episode = self._open.pop(index, None)
            if episode is None:
                episode = self._open_episode(index)
            self._open[index] = episode
            while len(self._open) > self._max_open:
                self._open.popitem(last=False)
            return episode


class _Job(NamedTuple):
    """Rows `steps` of one episode go to `positions` of the result."""

    episode: int
    steps: np.ndarray
    positions: np.ndarray


class EpisodeTable:
    """The rows of many episodes, numbered through, with named columns `action` and the observations.

    Args:
        episodes: The episodes; a lazy sequence is opened once each here, and again only for what is not in memory.
        obs_names: Observations to serve; `None` takes all of the first episode.
        subset: Positions of the episodes to use; `None` takes all.
        max_memory_bytes: Budget of the columns held in memory; the largest ones stay outside when it is exceeded. What
            they leave of it keeps decoded pictures.
        max_open: How many episodes to keep open for the columns outside.
        threads: Threads that read and decode; 1 means the caller's own.
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        obs_names: Sequence[str] | None,
        *,
        subset: Sequence[int] | np.ndarray | None = None,
        max_memory_bytes: int = 2**31,
        max_open: int = 64,
        threads: int = 2,
    ) -> None:
        if threads < 1:
            raise ConfigError(f"`threads` must be at least 1, got {threads}")
        chosen = _positions(len(episodes), subset)
        self._recent = RecentEpisodes(lambda e: episodes[chosen[e]], max_open)
        self.obs_names = tuple(self._recent.get(0).obs if obs_names is None else obs_names)
        self.names = (ACTION, *self.obs_names)
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self.row_shape: dict[str, tuple[int, ...]] = {}
        self.dtype: dict[str, np.dtype] = {}
        self._columns, lengths, self.valid = self._scan(len(chosen), max_memory_bytes)
        self.starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        """First row of each episode, and behind the last one the number of rows; int64 [episodes + 1]."""
        cameras = {name: self.row_shape[name] for name in self.names if self.is_frame(name)}
        left = max_memory_bytes - sum(column.nbytes for column in self._columns.values())
        self.frames = FrameCache(len(self.valid), shapes=cameras, dtypes=self.dtype, budget=left)
        """Decoded pictures kept so far."""

    @property
    def in_memory(self) -> tuple[str, ...]:
        """Names of the columns held in memory."""
        return tuple(self._columns)

    def is_frame(self, name: str) -> bool:
        """Whether one row of the column is a picture or a volume, which keeps its own dtype."""
        return len(self.row_shape[name]) >= 3

    def _scan(self, n_episodes: int, budget: int) -> tuple[dict[str, np.ndarray], list[int], np.ndarray]:
        """Open every episode once: check it, count it, and collect the columns that fit the budget."""
        parts: dict[str, list[np.ndarray]] = {}
        lengths: list[int] = []
        valid: list[np.ndarray] = []
        for e in range(n_episodes):
            episode = self._recent.get(e)
            lengths.append(len(episode))
            valid.append(np.asarray(episode.valid, dtype=bool))
            self._check(episode)
            if e == 0:
                parts = {name: [] for name in self.names if not self.is_frame(name)}
            for name, part in parts.items():
                part.append(np.array(_column(episode, name)[:], dtype=np.float32))
            _drop_largest_until_fit(parts, budget)
        columns = {name: np.concatenate(parts.pop(name)) for name in list(parts)}
        return columns, lengths, np.concatenate(valid)

    def _check(self, episode: Episode) -> None:
        """Raise unless the episode has the columns of the first one, in the same shapes."""
        for name in self.names:
            if name != ACTION and name not in episode.obs:
                raise SpecError(f"episode `{episode.id}` has no observation `{name}`; it has {sorted(episode.obs)}")
            rows = _column(episode, name)
            got, dtype = tuple(rows.shape), np.dtype(rows.dtype)
            shape = self.row_shape.setdefault(name, got[1:])
            self.dtype.setdefault(name, dtype if self.is_frame(name) else np.dtype(np.float32))
            if got != (len(episode), *shape):
                wanted = (len(episode), *shape)
                raise SpecError(f"episode `{episode.id}`: `{name}` must be {wanted}, as in the first one, got {got}")

    def episode_of(self, rows: np.ndarray) -> np.ndarray:
        """Return which episode each row belongs to."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def episode_rows(self, name: str) -> Iterator[np.ndarray]:
        """Yield every valid row of one column once, in order, in blocks that stay within an episode."""
        for e in range(len(self.starts) - 1):
            for first in range(self.starts[e], self.starts[e + 1], _BLOCK_ROWS):
                rows = first + np.flatnonzero(self.valid[first : min(first + _BLOCK_ROWS, self.starts[e + 1])])
                if len(rows):
                    yield self.gather([name], rows)[name]

    def gather(self, names: Sequence[str], rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the rows numbered `rows`, int64 [K], of each named column: arrays [K, ...] by name."""
        out = {name: self._columns[name].take(rows, axis=0) for name in names if name in self._columns}
        frames = [name for name in names if self.is_frame(name)]
        out |= self._read([name for name in names if name not in out and name not in frames], rows)
        return out | (self._gather_frames(frames, rows) if frames else {})

    def _gather_frames(self, names: Sequence[str], rows: np.ndarray) -> dict[str, np.ndarray]:
        """Take pictures from memory where they are kept, decode the others, and keep what there is room for."""
        slots = self.frames.slots(rows)
        missing = np.flatnonzero(slots < 0)
        if not len(missing):
            return {name: self.frames.take(name, slots) for name in names}
        decoded = self._read(names, rows[missing])
        if len(names) == sum(map(self.is_frame, self.names)):
            distinct, first = np.unique(rows[missing], return_index=True)
            self.frames.put(distinct, {name: column[first] for name, column in decoded.items()})
        if len(missing) == len(rows):
            return decoded
        out = {}
        for name in names:
            out[name] = np.empty((len(rows), *self.row_shape[name]), self.dtype[name])
            out[name][missing] = decoded[name]
            out[name][slots >= 0] = self.frames.take(name, slots[slots >= 0])
        return out

    def _read(self, names: Sequence[str], rows: np.ndarray) -> dict[str, np.ndarray]:
        """Read the rows of named columns from the episodes."""
        read = {name: np.empty((len(rows), *self.row_shape[name]), self.dtype[name]) for name in names}
        if read:
            unique, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
            self._run(self._jobs(unique, first), read)
            source = first[inverse]
            again = np.flatnonzero(source != np.arange(len(rows)))
            for column in read.values():
                column[again] = column[source[again]]
        return read

    def _jobs(self, unique: np.ndarray, positions: np.ndarray) -> list[_Job]:
        """Cut sorted row numbers into jobs that stay within one episode."""
        episode = self.episode_of(unique)
        steps = unique - self.starts[episode]
        cuts = (np.flatnonzero(np.diff(episode)) + 1).tolist()
        jobs = []
        for start, end in zip([0, *cuts], [*cuts, len(unique)], strict=True):
            for i in range(start, end, _JOB_ROWS):
                part = slice(i, min(i + _JOB_ROWS, end))
                jobs.append(_Job(int(episode[start]), steps[part], positions[part]))
        return jobs

    def _run(self, jobs: list[_Job], out: dict[str, np.ndarray]) -> None:
        def read(job: _Job) -> None:
            episode = self._recent.get(job.episode)
            for name, column in out.items():
                if self.is_frame(name):
                    _read_frames(_column(episode, name), job, column)
                else:
                    column[job.positions] = _column(episode, name)[job.steps]

        if self._threads == 1 or len(jobs) < 2:
            for job in jobs:
                read(job)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="read-rows")
        for _ in self._pool.map(read, jobs):
            pass

    def close(self) -> None:
        """Stop the reading threads; they start again when needed."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _positions(n_episodes: int, subset: Sequence[int] | np.ndarray | None) -> list[int]:
    chosen = list(range(n_episodes)) if subset is None else [int(p) for p in subset]
    outside = [p for p in chosen if not 0 <= p < n_episodes]
    if outside or not chosen:
        raise ConfigError(
            f"`subset` must name at least one of {n_episodes} episodes by position, got {outside or chosen}"
        )
    return chosen


def _column(episode: Episode, name: str) -> Rows:
    return episode.action if name == ACTION else episode.obs[name]


def _read_frames(rows: Rows, job: _Job, out: np.ndarray) -> None:
    """Read one picture at a time straight to its place: an array of a few would cost a second copy."""
    steps = job.steps
    while isinstance(rows, RowView):  # ticks that see the same frame of a slower camera show only below the view
        steps = rows.index[steps]
        rows = rows.rows
    done: dict[int, int] = {}
    for step, position in zip(steps.tolist(), job.positions.tolist(), strict=True):
        out[position] = out[done[step]] if step in done else rows[step]
        done.setdefault(step, position)


def _drop_largest_until_fit(parts: dict[str, list[np.ndarray]], budget: int) -> None:
    """Give up the largest columns until the rest, and one of them copied while joining, fit the budget."""
    sizes = {name: sum(part.nbytes for part in chunks) for name, chunks in parts.items()}
    while sizes and sum(sizes.values()) + max(sizes.values()) > budget:
        largest = max(sizes, key=lambda name: sizes[name])
        del sizes[largest], parts[largest]
