"""What a store holds, in bounded memory: every episode's labels, ranges and samples of the small streams."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from robot_rl.data.episode_file import IndexEntry
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import StoreError
from robot_rl.specs import ArraySpec
from robot_rl.values import Recording
from robot_rl.view.signals import MAX_ELEMENTS, element_names, element_units, from_extra

Progress = Callable[[int, int], None]

SAMPLES = 100_000
"""Rows of a stream kept for its histograms, spread evenly over all episodes; the ranges are of every row."""
SESSION_GAP_S = 1800.0
"""Episodes further apart belong to two recording sessions."""
_FIRST_DATE_NS = 946_684_800_000_000_000  # 2000-01-01: smaller stamps count from the start of an episode
_ID_DATE = re.compile(r"(\d{8}T\d{6})\d*-")


@dataclass(frozen=True, kw_only=True)
class EpisodeFacts:
    """What the report says of one episode.

    Args:
        id: The episode.
        task: What was attempted.
        outcome: As labelled.
        source: Who acted.
        operator: `meta.extra["operator"]`, if any.
        seconds: From the first to the last sample.
        steps: Number of action samples.
        start_ns: When it began, Unix time; `None` where neither stamps nor id tell.
        human: Share of its steps that a person drove; `None` where nobody noted it.
        reward: Sum of its rewards; `None` where there are none.
        recorder: The recorder's verdict, empty where there is none.
        flags: What deserves a look: salvaged, warnings of the recorder, ended without an outcome, unreadable.
    """

    id: str
    task: str
    outcome: str
    source: str
    operator: str = ""
    seconds: float
    steps: int
    start_ns: int | None = None
    human: float | None = None
    reward: float | None = None
    recorder: str = ""
    flags: Sequence[str] = ()


@dataclass(kw_only=True)
class StreamFacts:
    """What the values of a stream are like, element by element.

    Args:
        names: Of the elements.
        units: Of the elements.
        low: Smallest of all values, float64 [D].
        high: Largest of all values, float64 [D].
        kept: Rows kept for histograms, a block [m, D] of each episode.
        samples: How many samples there are in all.
        rates: Median rate of each episode in hertz.
    """

    names: Sequence[str]
    units: Sequence[str]
    low: np.ndarray
    high: np.ndarray
    kept: list[np.ndarray] = field(default_factory=list)
    samples: int = 0
    rates: list[float] = field(default_factory=list)

    @property
    def rows(self) -> np.ndarray:
        """The kept rows, [m, D]."""
        return np.concatenate(self.kept) if self.kept else np.empty((0, len(self.names)))


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a store holds.

    Args:
        episodes: In the order of ids, unreadable ones included.
        streams: Low-dimensional streams by name; pictures and clouds only by their rates.
        rates: Every stream's median rate in each episode that has it, in hertz.
        nbytes: Bytes of all arrays.
    """

    episodes: Sequence[EpisodeFacts]
    streams: Mapping[str, StreamFacts]
    rates: Mapping[str, Sequence[float]]
    nbytes: int

    def count(self, field_name: str) -> Counter[str]:
        """Return how many episodes have each value of a text field."""
        return Counter(str(getattr(episode, field_name)) for episode in self.episodes)

    @property
    def hours(self) -> float:
        """Recorded time."""
        return sum(episode.seconds for episode in self.episodes) / 3600.0


def survey(store: EpisodeStore, progress: Progress | None = None) -> Survey:
    """Look at every episode once; pictures are not read, one episode is in memory at a time.

    An episode that cannot be read is listed with the reason as its flag.

    Args:
        store: The store.
        progress: Called with (episodes done, episodes in all).
    """
    entries = store.entries()
    share = max(4, SAMPLES // max(1, len(entries)))
    streams: dict[str, StreamFacts] = {}
    rates: dict[str, list[float]] = {}
    episodes = []
    for done, entry in enumerate(entries, 1):
        try:
            recording = store.read(entry.id)
            for name, stream in recording.streams.items():
                if len(stream) > 1:
                    rates.setdefault(name, []).append(1e9 / float(np.median(np.diff(stream.stamp_ns))))
                spec = store.schema.stream(name).spec
                if len(stream) and not spec.is_image and spec.size <= MAX_ELEMENTS and spec.dtype != "bool":
                    _add(streams, spec, recording, share)
            episodes.append(_facts(entry, recording))
        except StoreError as error:
            episodes.append(_unreadable(entry, error))
        if progress is not None:
            progress(done, len(entries))
    return Survey(episodes=episodes, streams=streams, rates=rates, nbytes=sum(entry.nbytes for entry in entries))


def _add(streams: dict[str, StreamFacts], spec: ArraySpec, recording: Recording, share: int) -> None:
    stream = recording.streams[spec.name]
    rows = np.asarray(stream.data[:], np.float64).reshape(len(stream), -1)
    if spec.name not in streams:
        inf = np.full(spec.size, np.inf)
        names = [spec.name] if spec.shape == () else element_names(spec, recording.meta)
        streams[spec.name] = StreamFacts(names=names, units=element_units(spec), low=inf, high=-inf)
    facts = streams[spec.name]
    facts.low, facts.high = np.fmin(facts.low, rows.min(axis=0)), np.fmax(facts.high, rows.max(axis=0))
    facts.kept.append(rows[np.unique(np.linspace(0, len(rows) - 1, min(share, len(rows))).astype(int))])
    facts.samples += len(rows)


def _facts(entry: IndexEntry, recording: Recording) -> EpisodeFacts:
    meta, streams = recording.meta, recording.streams
    noted, reward = streams.get("by_human"), streams.get("reward")
    recorder = str(from_extra(meta, "quality").get("level", ""))
    flags = [f"salvaged: {entry.salvaged}"] if entry.salvaged else []
    flags += [f"recorder: {recorder}"] if recorder in ("warn", "error") else []
    flags += ["ended without an outcome"] if recorder and meta.truncated and meta.outcome == "unknown" else []
    return EpisodeFacts(
        id=entry.id, task=meta.task, outcome=meta.outcome, source=meta.source,
        operator=str(meta.extra.get("operator", "")), seconds=entry.duration_ns / 1e9, steps=entry.steps,
        start_ns=_start(entry.id, recording), recorder=recorder, flags=flags,
        human=float(np.mean(np.asarray(noted.data[:], bool))) if noted is not None and len(noted) else None,
        reward=float(np.sum(np.asarray(reward.data[:], np.float64))) if reward is not None and len(reward) else None,
    )  # fmt: skip


def _unreadable(entry: IndexEntry, error: StoreError) -> EpisodeFacts:
    return EpisodeFacts(
        id=entry.id, task=entry.task, outcome=entry.outcome, source=entry.source,
        seconds=entry.duration_ns / 1e9, steps=entry.steps, flags=[f"unreadable: {error}"],
    )  # fmt: skip


def _start(id: str, recording: Recording) -> int | None:
    """Return when an episode began in Unix nanoseconds: by its stamps, else by the date in its id."""
    first = min(int(s.stamp_ns[0]) for s in recording.streams.values() if len(s))
    if first > _FIRST_DATE_NS:
        return first
    if (found := _ID_DATE.match(id)) is None:
        return None
    return int(datetime.strptime(found[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()) * 1_000_000_000


def sessions(episodes: Sequence[EpisodeFacts]) -> list[list[EpisodeFacts]]:
    """Return the dated episodes in order of time, cut where half an hour passed between two."""
    dated = sorted((e for e in episodes if e.start_ns is not None), key=lambda e: e.start_ns or 0)
    found: list[list[EpisodeFacts]] = []
    end_s = -np.inf
    for episode in dated:
        start_s = (episode.start_ns or 0) / 1e9
        if start_s - end_s > SESSION_GAP_S:
            found.append([])
        found[-1].append(episode)
        end_s = max(end_s, start_s + episode.seconds)
    return found
