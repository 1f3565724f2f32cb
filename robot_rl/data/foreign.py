"""Data sets of other formats on their way into an episode store: what each reader gives, and one loop that imports it.

A reader opens a data set, looks at all of it once without decoding pictures, and lists every defect it finds. Nothing
is imported from a data set with defects that cost episodes, unless the caller asks for what is sound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from robot_rl.data.schema import StoreSchema
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import DataFormatError, SpecError, StoreError
from robot_rl.values import Recording

Progress = Callable[[int, int], None]
Severity = Literal["fatal", "episode", "warning"]


@dataclass(frozen=True, kw_only=True)
class Defect:
    """Something in a data set that is not as its format promises.

    Args:
        where: File, field or key.
        what: What was expected and what came.
        advice: What to do about it.
        severity: `fatal`: nothing can be imported; `episode`: the episodes named cannot; `warning`: all can.
        episodes: The episodes it concerns, by number; empty where it concerns the data set as a whole.
    """

    where: str
    what: str
    advice: str
    severity: Severity
    episodes: tuple[int, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.episodes[:8])) + (" ..." if len(self.episodes) > 8 else "")
        which = f" (episode {shown})" if self.episodes else ""
        return f"{self.severity}: {self.where}{which}: {self.what}; {self.advice}"


class Findings:
    """What a reader finds while it looks at a data set; the same fault in many episodes becomes one defect."""

    def __init__(self) -> None:
        self._found: dict[tuple[Severity, str, str, str], list[int]] = {}

    def add(self, severity: Severity, where: str, what: str, advice: str, *episodes: int) -> None:
        """Note a fault, of the episodes named or of the whole."""
        known = self._found.setdefault((severity, where, what, advice), [])
        known.extend(e for e in episodes if e not in known[-1:])

    @property
    def defects(self) -> list[Defect]:
        """Everything found, the worst first."""
        order = {"fatal": 0, "episode": 1, "warning": 2}
        found = [
            Defect(severity=severity, where=where, what=what, advice=advice, episodes=tuple(sorted(set(episodes))))
            for (severity, where, what, advice), episodes in self._found.items()
        ]
        return sorted(found, key=lambda d: order[d.severity])

    @property
    def fatal(self) -> bool:
        """Whether nothing can be imported."""
        return any(severity == "fatal" for severity, *_ in self._found)

    @property
    def broken(self) -> set[int]:
        """The episodes that cannot be imported."""
        return {i for d in self.defects if d.severity == "episode" for i in d.episodes}


@runtime_checkable
class ForeignDataset(Protocol):
    """A data set of another format, opened and looked at.

    Attributes:
        format: Name of the format, with its version where it has one: `lerobot v2.1`.
        schema: What its episodes look like in a store.
        defects: What was found when it was opened, without decoding pictures.
        lost: What of the source no episode will hold: field -> why.
        provenance: Where it came from, as plain JSON; goes into every episode's `meta.extra["imported"]`.
    """

    format: str
    schema: StoreSchema
    defects: Sequence[Defect]
    lost: Mapping[str, str]
    provenance: Mapping[str, Any]

    def __len__(self) -> int:
        """Return how many episodes the source says it has."""

    def episode_id(self, index: int) -> str:
        """Return the id that an episode will have in the store, the same at every call."""

    def episode(self, index: int) -> Recording:
        """Return one episode; its rows may be fetched or decoded when read.

        Raises:
            DataFormatError: It cannot be read; names the file and what is wrong with it.
        """


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did.

    Args:
        source: The data set.
        format: Its format.
        episodes: How many it says it has.
        imported: How many of them are in the store now, those of earlier runs included.
        skipped: Number of an episode -> why it is not.
        defects: All of them, those found while reading too.
        lost: Field -> why it is not in the store.
    """

    source: str
    format: str
    episodes: int
    imported: int
    skipped: Mapping[int, str] = field(default_factory=dict)
    defects: Sequence[Defect] = ()
    lost: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "skipped": {str(i): why for i, why in self.skipped.items()}}


def refuse(source: str | Path, defects: Sequence[Defect]) -> DataFormatError:
    """Return the error that lists every defect."""
    lines = "\n".join(f"  {defect}" for defect in defects)
    return DataFormatError(f"{source} has {len(defects)} defects, nothing was imported:\n{lines}")


def import_dataset(
    dataset: ForeignDataset,
    store_url: str | Path,
    *,
    source: str | Path = "",
    keep_sound: bool = False,
    limit: int | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Import a data set into a store; run again after an interruption, it goes on where it stopped.

    Args:
        dataset: An opened data set.
        store_url: Where the store is or shall be.
        source: What messages call the data set.
        keep_sound: Leave out episodes with defects, those found while decoding too, and import the others.
        limit: Import only the first episodes.
        progress: Called with (episodes done, episodes in all).

    Raises:
        DataFormatError: A fatal defect, or an episode's without `keep_sound`; the message lists every defect.
        StoreError: The store is of another schema, or the disk is full.
    """
    costly = [d for d in dataset.defects if d.severity == "fatal" or (d.severity == "episode" and not keep_sound)]
    if costly:
        hint = (
            [] if any(d.severity == "fatal" for d in costly) else ["import.skip_broken=true imports the sound episodes"]
        )
        raise DataFormatError("; ".join([str(refuse(source, dataset.defects)), *hint]))
    store = _store(dataset, store_url, source)
    there = set(store.ids())
    skipped = {i: d.what for d in dataset.defects if d.severity == "episode" for i in d.episodes}
    defects = list(dataset.defects)
    total = len(dataset) if limit is None else min(limit, len(dataset))
    for index in range(total):
        if index not in skipped and dataset.episode_id(index) not in there:
            defect = _import_one(dataset, store, index, keep_sound=keep_sound)
            if defect is not None:
                defects.append(defect)
                skipped[index] = defect.what
        if progress is not None:
            progress(index + 1, total)
    present = set(store.ids())
    imported = sum(dataset.episode_id(index) in present for index in range(total))
    return ImportReport(
        source=str(source), format=dataset.format, episodes=len(dataset), imported=imported,
        skipped=skipped, defects=defects, lost=dataset.lost,
    )  # fmt: skip


def _store(dataset: ForeignDataset, url: str | Path, source: str | Path) -> EpisodeStore:
    if not EpisodeStore.exists(url):
        schema = dataset.schema
        return EpisodeStore.create(url, schema.spec, extra=schema.extra, codecs=schema.codecs)
    store = EpisodeStore.open(url)
    if store.schema.to_dict() != dataset.schema.to_dict():
        raise StoreError(f"the store at {store.url} does not hold {source or dataset.format}; import into a new place")
    return store


def _import_one(dataset: ForeignDataset, store: EpisodeStore, index: int, *, keep_sound: bool) -> Defect | None:
    """Append one episode, or return why it cannot be."""
    try:
        store.append(dataset.episode(index), id=dataset.episode_id(index))
    except (DataFormatError, SpecError) as error:
        if not keep_sound:
            raise DataFormatError(
                f"episode {index}: {error}; the episodes before it are in the store, "
                "import.skip_broken=true leaves this one out"
            ) from error
        return Defect(
            where=f"episode {index}", what=str(error), advice="it was left out", severity="episode", episodes=(index,)
        )
    return None
