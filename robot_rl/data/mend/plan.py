"""What a mend would do, worked out without writing a byte: which episodes go, which come, which labels change."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robot_rl import __version__
from robot_rl.data.backend import LocalBackend, make_backend
from robot_rl.data.episode_file import parse_episode
from robot_rl.data.mend.episodes import nbytes, write_parts
from robot_rl.data.reader import read_recording, verify
from robot_rl.data.schema import StoreSchema
from robot_rl.data.store import EpisodeStore
from robot_rl.data.transaction import episode_json, next_number
from robot_rl.errors import ConfigError, StoreError
from robot_rl.values import OUTCOMES, Recording, RecordingMeta

Write = Callable[[Path, str], None]
"""Writes the folder of an episode, finished, into `folder/<id>`."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """An episode that a mend would make.

    Args:
        id: Its id.
        steps: Number of commands.
        nbytes: Bytes that it needs on the disk; 0 where the files are shared with the original.
        write: Makes it.
    """

    id: str
    steps: int
    nbytes: int
    write: Write


@dataclass(frozen=True, kw_only=True)
class Change:
    """One line of a preview.

    Args:
        episode: The episode it is about.
        what: What happens to it, in words.
        out: Ids that go to the trash.
        products: Episodes that come.
        files: Path in the store -> its new content.
    """

    episode: str
    what: str
    out: tuple[str, ...] = ()
    products: tuple[Product, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A mend that was worked out and not yet applied.

    Args:
        root: The store.
        number: The transaction's number, part of the new ids.
        operation: What would be done.
        arguments: With which arguments, plain JSON.
        when: UTC time, ISO 8601.
        changes: What would change.
        skipped: Id -> why nothing happens to it.
        seen: Path -> SHA-256 of each document that the plan rests on.
        schema: The store's schema afterwards, where it changes.
        reindex: Index lines of all episodes are written anew.
    """

    root: Path
    number: int
    operation: str
    arguments: Mapping[str, Any]
    when: str
    changes: tuple[Change, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, str] = field(default_factory=dict)
    schema: StoreSchema | None = None
    reindex: bool = False

    @property
    def out(self) -> list[str]:
        """Ids of the episodes that go."""
        return [id for change in self.changes for id in change.out]

    @property
    def products(self) -> list[Product]:
        """The episodes that come."""
        return [product for change in self.changes for product in change.products]

    @property
    def files(self) -> dict[str, bytes]:
        """Path -> new content."""
        return {path: data for change in self.changes for path, data in change.files.items()}

    @property
    def nbytes(self) -> int:
        """Bytes that applying it needs on the disk."""
        return sum(product.nbytes for product in self.products) + sum(map(len, self.files.values()))


class Mend:
    """What every operation works with: the store, what was read of it, and who did what when.

    Args:
        store: A local store.
        when: UTC time that provenance tells; by default now.

    Raises:
        StoreError: The store lies behind a URL.
    """

    def __init__(self, store: EpisodeStore, *, when: datetime | None = None) -> None:
        backend = make_backend(store.url)
        if not isinstance(backend, LocalBackend):
            raise StoreError(
                f"{store.url} lies behind a URL, where many files cannot change as one; copy it to a local store "
                "(EpisodeStore.create, then merge), mend that, and copy it back to a new URL"
            )
        self.store, self.backend, self.root = store, backend, backend.root
        self.number = next_number(self.root)
        self.when = (datetime.now(UTC) if when is None else when).isoformat(timespec="seconds")
        self.seen: dict[str, str] = {}

    def document(self, id: str) -> dict[str, Any]:
        """Return an episode's document, and remember that the plan rests on it.

        Raises:
            StoreError: There is no such episode.
        """
        path = episode_json(id)
        try:
            data = self.backend.read(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(f"there is no episode {id!r} in {self.store.url}") from error
        self.seen[path] = hashlib.sha256(data).hexdigest()
        return parse_episode(data, id)

    def recording(self, id: str) -> Recording:
        """Return an episode, and remember that the plan rests on it.

        Raises:
            StoreError: There is no such episode, or it is damaged.
        """
        self.document(id)
        return read_recording(self.backend, id)

    def new_id(self, parent: str, part: int | None = None) -> str:
        """Return the id of what becomes of `parent`; it sorts right after it and is never used twice."""
        return f"{parent}.m{self.number}" + ("" if part is None else f".{part:03d}")

    def explain(self, meta: RecordingMeta, operation: str, parents: Sequence[str], **arguments: Any) -> RecordingMeta:
        """Return `meta` with this operation added to `extra["provenance"]`, newest last."""
        entry = {
            "operation": operation, "parents": list(parents), "arguments": arguments, "transaction": self.number,
            "when": self.when, "version": __version__,
        }  # fmt: skip
        earlier = list(meta.extra.get("provenance", []))
        return replace(meta, extra={**meta.extra, "provenance": [*earlier, entry]})

    def product(
        self, id: str, meta: RecordingMeta, parents: Sequence[str], build: Callable[[], Sequence[Recording]]
    ) -> Product:
        """Return a new episode whose streams are those that `build` returns, one after the other.

        `build` is called again when it is written, so that a plan of many episodes holds no data. The parents' bytes
        are checked then, lest a flipped bit be given a new checksum.
        """
        parts, schema = build(), self.store.schema

        def write(folder: Path, id: str) -> None:
            for parent in parents:
                verify(self.backend, parent)
            write_parts(folder, id, schema, meta, build())

        return Product(id=id, steps=sum(len(p.streams["action"]) for p in parts), nbytes=nbytes(parts), write=write)

    def plan(self, operation: str, changes: Sequence[Change], **kwargs: Any) -> Plan:
        """Return the plan of an operation."""
        return Plan(
            root=self.root, number=self.number, operation=operation, when=self.when, changes=tuple(changes),
            seen=dict(self.seen), **kwargs,
        )  # fmt: skip


def check_outcome(outcome: str | None, *, keep: bool = False) -> None:
    """Raise unless `outcome` is a label, `None`, or `keep` where that is allowed.

    Raises:
        ConfigError: Names what is allowed.
    """
    allowed = (*OUTCOMES, "keep") if keep else OUTCOMES
    if outcome is not None and outcome not in allowed:
        raise ConfigError(f"`outcome` must be one of {allowed}, got {outcome!r}")
