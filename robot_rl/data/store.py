"""The episode store: whole recordings in, recordings and aligned episodes out, and a tail for new ones."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robot_rl.data import layout
from robot_rl.data.align import Alignment, to_episode
from robot_rl.data.backend import LocalBackend, RemoteBackend, make_backend
from robot_rl.data.episode_file import IndexEntry, index_entry, missing
from robot_rl.data.files import to_json
from robot_rl.data.follow import follow
from robot_rl.data.index import ListingIndex, LogIndex
from robot_rl.data.reader import read_document, read_recording, read_schema, verify
from robot_rl.data.salvage import Found, salvage_all
from robot_rl.data.schema import FORMAT_VERSION, StoreSchema, check_id, meta_from_dict, meta_to_dict
from robot_rl.data.staging import claim_new
from robot_rl.data.store_lock import changing
from robot_rl.data.transaction import empty_trash, recover, unfinished
from robot_rl.data.writer import EpisodeWriter, staging_note
from robot_rl.errors import StoreError
from robot_rl.specs import ArraySpec, RobotSpec
from robot_rl.values import Episode, Outcome, Recording, RecordingMeta

log = logging.getLogger(__name__)


class EpisodeStore:
    """A folder or URL of episodes that all follow one schema; `create` and `open` make it.

    Many processes may write and read one store at the same time. An episode is there when it is whole, and stays
    as it was when a later one goes wrong.
    """

    def __init__(self, backend: LocalBackend | RemoteBackend, schema: StoreSchema) -> None:
        self.schema = schema
        self.url = backend.url
        self.found: tuple[Found, ...] = ()
        self._backend = backend
        self._index: LogIndex | ListingIndex
        if isinstance(backend, LocalBackend):
            self._index = LogIndex(backend.root / layout.INDEX_FILE, backend, writable=backend.writable)
        else:
            self._index = ListingIndex(backend)

    @property
    def spec(self) -> RobotSpec:
        """The robot whose attempts are stored."""
        return self.schema.spec

    @classmethod
    def exists(cls, url: str | Path) -> bool:
        """Whether there is a store at `url`."""
        return make_backend(url).size(layout.STORE_FILE) is not None

    @classmethod
    def create(
        cls,
        url: str | Path,
        spec: RobotSpec,
        *,
        extra: Mapping[str, ArraySpec] | None = None,
        codecs: Mapping[str, str] | None = None,
    ) -> EpisodeStore:
        """Make an empty store.

        Args:
            url: Local path or fsspec URL.
            spec: The robot; every observation and the action become required streams.
            extra: Optional streams besides `action_executed`, `reward` and `by_human`.
            codecs: `jpeg` (default), `png` or `raw` per image stream.

        Raises:
            StoreError: There is one already.
            SpecError: The streams cannot be stored so.
        """
        schema = StoreSchema(spec=spec, extra=extra or {}, codecs=codecs or {})
        backend = make_backend(url)
        if backend.size(layout.STORE_FILE) is not None:
            raise StoreError(f"there is a store at {backend.url} already; open it, or choose another place")
        if isinstance(backend, LocalBackend):
            for folder in (layout.EPISODES, layout.STAGING):
                (backend.root / folder).mkdir(parents=True, exist_ok=True)
        backend.replace(layout.STORE_FILE, to_json({"format_version": FORMAT_VERSION, **schema.to_dict()}))
        return cls.open(url)

    @classmethod
    def open(cls, url: str | Path) -> EpisodeStore:
        """Open a store, salvage what dead writers left, and mend the index; `found` tells what there was.

        What a killed `robot-rl mend` left half done is taken back first.

        Raises:
            StoreError: There is none, or its format is newer than this program.
        """
        backend = make_backend(url)
        writable = not isinstance(backend, LocalBackend) or backend.writable
        if isinstance(backend, LocalBackend) and unfinished(backend.root):
            if not writable:
                raise StoreError(f"a mend of {url} was cut short; open the store once with permission to write")
            recover(backend.root)
        store = cls(backend, read_schema(backend))
        salvaged = salvage_all(backend, store.schema, store._publish) if writable else []
        unreadable = [Found(id, "unreadable", why) for id, why in store._index.reconcile().items()]
        store.found = (*salvaged, *unreadable)
        for found in store.found:
            log.warning("store %s: episode %s %s: %s", store.url, found.id, found.state, found.reason)
        return store

    def _changing(self) -> AbstractContextManager[None]:
        """Take back what a killed transaction left, and let none move files meanwhile."""
        self._recover()
        return changing(self._backend.root) if isinstance(self._backend, LocalBackend) else nullcontext()

    def _recover(self) -> None:
        if isinstance(self._backend, LocalBackend) and self._backend.writable:
            recover(self._backend.root)

    def _publish(self, folder: Path, document: Mapping[str, Any]) -> None:
        with self._changing():
            local = isinstance(self._backend, LocalBackend)
            if local and read_schema(self._backend).to_dict() != self.schema.to_dict():
                raise StoreError(
                    f"the fields of {self.url} were renamed or dropped after this program opened it; episode "
                    f"{document['id']} was not added and lies in {folder}: open the store again"
                )
            self._backend.publish(folder, document["id"])
        try:
            self._index.put(index_entry(document))
        except StoreError as error:
            # The episode is there and the index only a cache: to raise would make the caller save it twice.
            log.warning("store %s: episode %s is saved, but not its index line: %s", self.url, document["id"], error)

    # Writing

    def writer(self, meta: RecordingMeta, *, id: str | None = None) -> EpisodeWriter:
        """Return a writer for a new episode, which becomes visible when it commits.

        Args:
            meta: What is known at the start; `commit` may replace it.
            id: The episode's id; by default one that no other writer can draw, in order of time.

        Raises:
            SpecError: `meta.extra` is not plain JSON, or `id` cannot be a folder's name.
            StoreError: The id is taken.
        """
        return self._writer(meta, id, live=True)

    def _writer(self, meta: RecordingMeta, id: str | None, *, live: bool) -> EpisodeWriter:
        if id is None:
            id = new_id()
        check_id(id)
        if id in self._index.entries and id in self.ids():
            raise StoreError(f"episode {id} already exists in {self.url}; use another id")
        claim = claim_new(self._backend.staging, id, staging_note(id, meta, live=live))
        return EpisodeWriter(claim, self.schema, meta, self._publish)

    def append(self, recording: Recording, *, id: str | None = None) -> str:
        """Add a whole recording and return its id.

        Raises:
            SpecError: The recording is not what the schema says; nothing is written.
            StoreError: The disk is full or the id is taken.
        """
        self.schema.check(recording)
        writer = self._writer(recording.meta, id, live=False)
        try:
            for name, stream in recording.streams.items():
                writer.append_stream(name, stream)
            return writer.commit()
        finally:
            writer.discard()

    def merge(self, other: EpisodeStore) -> list[str]:
        """Copy the episodes that only `other` has, bytes and labels as they are, and return their ids.

        Raises:
            StoreError: The schemas differ, or an id stands for different data in the two stores; nothing is copied.
        """
        if other.schema.to_dict() != self.schema.to_dict():
            raise StoreError(f"{other.url} cannot be merged into {self.url}: their schemas differ")
        added = missing(self.entries(), other.entries(), f"{other.url} and {self.url}")
        for id in added:
            self.append(other.read(id), id=id)
        return added

    # Reading

    def ids(self) -> list[str]:
        """Return the ids of all episodes, sorted."""
        self._index.refresh()
        return sorted(self._index.entries)

    def entries(self) -> list[IndexEntry]:
        """Return what the index knows of each episode, in the order of `ids`."""
        return [self._index.entries[id] for id in self.ids()]

    def __len__(self) -> int:
        return len(self.ids())

    def read(self, id: str) -> Recording:
        """Return an episode as recorded; rows are fetched when indexed.

        Raises:
            StoreError: No such episode, or a chunk is missing or cut short.
        """
        return read_recording(self._backend, id)

    def episode(self, id: str, alignment: Alignment | None = None) -> Episode:
        """Return an episode seen from the control clock.

        Raises:
            StoreError: As `read`.
            SpecError: The streams do not overlap in time.
        """
        return to_episode(self.read(id), self.spec, alignment or Alignment(), id=id)

    def verify(self, id: str) -> None:
        """Raise unless every byte of an episode is what was saved.

        Raises:
            StoreError: Names the array and both checksums.
        """
        verify(self._backend, id)

    def digest(self) -> str:
        """Return a SHA-256 of all ids and array checksums: which data a policy was trained on."""
        lines = "\n".join(f"{entry.id} {entry.checksum}" for entry in self.entries())
        return hashlib.sha256(lines.encode()).hexdigest()

    def follow(
        self, *, poll_s: float = 0.02, stop: Callable[[], bool], seen: Collection[str] | None = None
    ) -> Iterator[str]:
        """Return an endless iterator over new episodes, from any process, that ends when `stop()` is true.

        Args:
            poll_s: How often to look, in seconds.
            stop: Asked at every look.
            seen: Ids not to report; by default those there at the time of this call.
        """
        known = set(self.ids() if seen is None else seen)
        return follow(self._index, known, poll_s=poll_s, stop=stop, recover=self._recover)

    # Changing

    def delete(self, id: str) -> None:
        """Take an episode out of the store; on a local disk it waits in the trash until `empty_trash`.

        Raises:
            StoreError: There is no such episode.
        """
        with self._changing():
            read_document(self._backend, id)
            self._backend.remove(id)
            self._index.drop(id)

    def empty_trash(self) -> None:
        """Free the disk space of deleted episodes; no transaction of `robot-rl mend` can be undone afterwards.

        Raises:
            StoreError: Somebody mends the store now.
        """
        if isinstance(self._backend, LocalBackend):
            empty_trash(self._backend.root)

    def relabel(self, id: str, *, outcome: Outcome | None = None, task: str | None = None) -> None:
        """Change an episode's labels; its data stays.

        Raises:
            StoreError: There is no such episode.
            SpecError: The outcome is not one.
        """
        changes = {key: value for key, value in (("outcome", outcome), ("task", task)) if value is not None}

        def change() -> IndexEntry:
            document = read_document(self._backend, id)
            document["meta"] = meta_to_dict(meta_from_dict({**document["meta"], **changes}))
            self._backend.replace(f"{layout.EPISODES}/{id}/{layout.EPISODE_FILE}", to_json(document))
            return index_entry(document)

        with self._changing():
            self._index.update(change)

    def rebuild_index(self) -> None:
        """Make the index anew from the episodes."""
        self._index.rebuild()


def new_id() -> str:
    """Return an episode id that no other writer can draw; ids sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"
