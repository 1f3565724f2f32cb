"""The data of the rounds: a store that begins as a copy of the first one and takes in what each round's policy played.

D_{m+1} = D_m u D_new,   successes and failures alike (RL-100, arXiv 2510.14830, algorithm 1)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.interfaces import EpisodeSink
from robot_rl.rl.actor import Played
from robot_rl.rl.ppo.rollouts import Player
from robot_rl.values import Recording

SEEDS_OF_A_ROUND = 10_000
"""Seeds between two rounds' first ones, so that a round may be given more episodes while it is on."""


@dataclass(frozen=True)
class Composition:
    """Of what a data set is made.

    Args:
        episodes: How many there are.
        successes: How many are labelled successes.
        failures: How many are labelled failures.
    """

    episodes: int
    successes: int
    failures: int

    @classmethod
    def of(cls, store: EpisodeStore, ids: Collection[str] | None = None) -> Composition:
        """Count a store's episodes, or those of `ids`."""
        found = [entry.outcome for entry in store.entries() if ids is None or entry.id in ids]
        count = Counter(found)
        return cls(len(found), count["success"], count["failure"])


@dataclass(frozen=True)
class Attempts:
    """Ids of the episodes of a round.

    Args:
        first: The first attempt at each scene: what says how good the policy is.
        again: Further attempts at those that failed.
    """

    first: tuple[str, ...]
    again: tuple[str, ...]


class PlainSink:
    """Keeps of every recording the streams that a store has a place for: what a policy thought is not data here.

    Args:
        store: Takes the episodes.
    """

    def __init__(self, store: EpisodeStore) -> None:
        self._store = store
        self._known = {*store.spec.obs, *store.schema.extra, "action", "action_executed", "reward", "by_human"}

    def append(self, recording: Recording) -> str:
        """Add an episode and return its id."""
        streams = {name: stream for name, stream in recording.streams.items() if name in self._known}
        return self._store.append(replace(recording, streams=streams))


def begin_store(source: EpisodeStore, folder: str | Path, first: int | None) -> EpisodeStore:
    """Return the run's store: made, if there is none, with the first `first` episodes of `source`, or all.

    A copy that was cut short is completed; what the source takes in after that is not of this run. The source is never
    written to.
    """
    target, part = Path(folder), Path(f"{folder}.part")
    if EpisodeStore.exists(target):
        return EpisodeStore.open(target)
    store = (
        EpisodeStore.open(part) if EpisodeStore.exists(part)
        else EpisodeStore.create(part, source.spec, extra=source.schema.extra, codecs=source.schema.codecs)
    )  # fmt: skip
    there = set(store.ids())
    for id in source.ids()[:first]:
        if id not in there:
            store.append(source.read(id), id=id)
    part.rename(target)
    return EpisodeStore.open(target)


def episodes_of(store: EpisodeStore, version: str, before: Collection[str] = ()) -> dict[int, str]:
    """Return {seed: id} of the episodes that one version of a policy played, but for those that were there before."""
    played = (e for e in store.entries() if e.policy_version == version and e.id not in before)
    return {e.seed: e.id for e in played if e.seed is not None}


def round_seeds(first_seed: int, number: int, episodes: int) -> range:
    """Return the seeds that a round plays, which no other round does.

    Raises:
        ConfigError: More episodes than a round has seeds.
    """
    if not 1 <= episodes <= SEEDS_OF_A_ROUND:
        raise ConfigError(f"`algo.rounds.episodes` must be in 1 ... {SEEDS_OF_A_ROUND}, got {episodes}")
    first = first_seed + number * SEEDS_OF_A_ROUND
    return range(first, first + episodes)


def play_round(
    make_player: Callable[[EpisodeSink, int], Player],
    store: EpisodeStore,
    seeds: Sequence[int],
    version: str,
    *,
    before: Collection[str] = (),
    again: int = 0,
    stop: Callable[[], bool] = lambda: False,
    on_attempt: Callable[[int, int], None] = lambda attempt, n: None,
    on_done: Callable[[Played], None] | None = None,
) -> Attempts:
    """Play each seed, and those that failed again with other noise, and return all that there are then.

    Successes at scenes that failed are data that first attempts do not give.

    Args:
        make_player: Called with the sink that its episodes go to and the number of the attempt, 0 for the first.
        store: The run's store.
        seeds: Of the episodes.
        version: Whose weights act; with the seed and the attempt it tells what was played before a kill.
        before: Ids of episodes that the round found there: another run may have played rounds of the same name.
        again: How often a scene is played again at most, until it succeeds.
        stop: Asked before an episode begins.
        on_attempt: Told the number of an attempt and how many episodes it is about to play.
        on_done: Called after each episode.

    Raises:
        StoreError: An episode could not be saved.
    """
    first: list[str] = []
    others: list[str] = []
    for attempt in range(again + 1):
        name = version if attempt == 0 else f"{version}-again-{attempt}"
        there = episodes_of(store, name, before)
        lacking = [seed for seed in seeds if seed not in there]
        if lacking and not stop():
            on_attempt(attempt, len(lacking))
            make_player(PlainSink(store), attempt).play(lacking, name, stop=stop, on_done=on_done)
            there = episodes_of(store, name, before)
        (others if attempt else first).extend(sorted(there.values()))
        succeeded = {e.id for e in store.entries() if e.outcome == "success"}
        won = {seed for seed, id in there.items() if id in succeeded}
        seeds = [seed for seed in seeds if seed not in won]
    return Attempts(tuple(first), tuple(others))
