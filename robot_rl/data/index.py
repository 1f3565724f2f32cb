"""The store's index: for a local store an append-only log, behind a URL the listing itself.

The log is a cache. A line is added after an episode's rename, so a crash in between leaves an episode without a line;
`reconcile` compares the log with the folder and mends either side.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from robot_rl.data import layout
from robot_rl.data.backend import Backend
from robot_rl.data.episode_file import IndexEntry, entry_to_dict, index_entry, parse_episode
from robot_rl.data.files import from_json, locked, replace_file, to_json, write_all
from robot_rl.errors import StoreError


class Index(Protocol):
    """Which episodes a store holds; `version` grows when `entries` change."""

    entries: dict[str, IndexEntry]
    version: int

    def refresh(self) -> None:
        """Bring `entries` up to date with what others wrote."""

    def put(self, entry: IndexEntry) -> None:
        """Add an episode or change its entry."""

    def drop(self, id: str) -> None:
        """Forget an episode."""

    def reconcile(self) -> dict[str, str]:
        """Compare with the episodes that are there, mend, and return unreadable ones with their reason."""

    def rebuild(self) -> dict[str, str]:
        """Make the index anew from the episodes, and return unreadable ones with their reason."""

    def update(self, change: Callable[[], IndexEntry]) -> None:
        """Run `change` while no other process changes the index, and keep the entry it returns."""


def _load(backend: Backend, ids: Iterable[str]) -> tuple[list[IndexEntry], dict[str, str]]:
    """Return the entries of episodes from their episode.json, and why some cannot be read."""
    entries, unreadable = [], {}
    for id in ids:
        try:
            data = backend.read(f"{layout.EPISODES}/{id}/{layout.EPISODE_FILE}")
            entries.append(index_entry(parse_episode(data, id)))
        except FileNotFoundError:
            unreadable[id] = f"episode {id} has no {layout.EPISODE_FILE}"
        except StoreError as error:
            unreadable[id] = str(error)
    return entries, unreadable


def _apply(line: bytes, entries: dict[str, IndexEntry]) -> None:
    # A torn line is what a killed writer left; reconcile puts its episode back.
    try:
        event = from_json(line, "index line")
        if "put" in event:
            entries[event["put"]["id"]] = IndexEntry(**event["put"])
        else:
            entries.pop(event["drop"], None)
    except (StoreError, TypeError, KeyError):
        return


class LogIndex:
    """`index.jsonl`: one JSON line an event, `{"put": entry}` or `{"drop": id}`; appended under a lock."""

    def __init__(self, path: Path, backend: Backend, *, writable: bool) -> None:
        self.entries: dict[str, IndexEntry] = {}
        self._path, self._backend, self._writable = path, backend, writable
        self.version = 0
        self._inode, self._offset = -1, 0
        self._reconciled_ns = -1
        self._lock = threading.RLock()

    def refresh(self) -> None:
        """Bring `entries` up to date with what others wrote."""
        with self._lock:
            self._read_new()

    def _read_new(self) -> None:
        try:
            fd = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            stat = os.fstat(fd)
            if stat.st_ino != self._inode or stat.st_size < self._offset:
                self.entries, self._inode, self._offset = {}, stat.st_ino, 0
                self.version += 1
            if stat.st_size > self._offset:
                data = os.pread(fd, stat.st_size - self._offset, self._offset)
                whole = data.rfind(b"\n") + 1
                self._offset += whole
                self.version += 1
                entries = dict(self.entries)  # replaced whole, so that other threads may be iterating
                for line in data[:whole].splitlines():
                    _apply(line, entries)
                self.entries = entries
        finally:
            os.close(fd)

    def put(self, entry: IndexEntry) -> None:
        """Add an episode or change its entry."""
        self._append([{"put": entry_to_dict(entry)}])

    def drop(self, id: str) -> None:
        """Forget an episode."""
        self._append([{"drop": id}])

    def _append(self, events: list[dict[str, Any]]) -> None:
        if self._writable and events:
            with self._locked_log() as fd:
                self._write(fd, events)
        self.refresh()

    def _write(self, fd: int, events: list[dict[str, Any]]) -> None:
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        lines = b"".join(to_json(event) + b"\n" for event in events)
        write_all(fd, b"\n" + lines if torn else lines, self._path)

    @contextmanager
    def _locked_log(self) -> Iterator[int]:
        """Open the log for appending, locked, and sure to be the one that `rebuild` has not just replaced."""
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                with locked(fd):
                    if self._path.exists() and os.stat(self._path).st_ino == os.fstat(fd).st_ino:
                        yield fd
                        return
            finally:
                os.close(fd)

    def reconcile(self) -> dict[str, str]:
        """Compare with the episodes that are there, mend, and return unreadable ones with their reason."""
        self.refresh()
        folder = self._path.parent / layout.EPISODES
        changed_ns = folder.stat().st_mtime_ns if folder.exists() else -1
        if changed_ns == self._reconciled_ns != -1:
            return {}
        self._reconciled_ns = changed_ns
        there = self._backend.episode_ids()
        gone = sorted(set(self.entries) - set(there))
        found, unreadable = _load(self._backend, [id for id in there if id not in self.entries])
        self._append([{"drop": id} for id in gone] + [{"put": entry_to_dict(entry)} for entry in found])
        if not self._writable:
            self.entries = {id: e for id, e in self.entries.items() if id not in gone} | {e.id: e for e in found}
            self.version += 1
        return unreadable

    def rebuild(self) -> dict[str, str]:
        """Write the log anew from the episodes, and return unreadable ones with their reason."""
        with self._locked_log():
            entries, unreadable = _load(self._backend, self._backend.episode_ids())
            lines = b"".join(to_json({"put": entry_to_dict(entry)}) + b"\n" for entry in entries)
            replace_file(self._path, lines)
        self.refresh()
        return unreadable

    def reread(self, ids: Iterable[str]) -> None:
        """Log anew what is there of some episodes, after files were moved behind the log.

        Raises:
            StoreError: The disk is full.
        """
        wanted = sorted(set(ids))
        there = set(self._backend.episode_ids())
        found, _ = _load(self._backend, [id for id in wanted if id in there])
        put = {entry.id: {"put": entry_to_dict(entry)} for entry in found}
        self._append([put.get(id, {"drop": id}) for id in wanted])

    def update(self, change: Callable[[], IndexEntry]) -> None:
        """Run `change` while no other process changes the index, and log the entry it returns."""
        with self._locked_log() as fd:
            self._write(fd, [{"put": entry_to_dict(change())}])
        self.refresh()


class ListingIndex:
    """Behind a URL nothing can be appended to, so the episodes there are the index."""

    def __init__(self, backend: Backend) -> None:
        self.entries: dict[str, IndexEntry] = {}
        self.version = 0
        self._backend = backend

    def refresh(self) -> None:
        """Bring `entries` up to date with what others wrote."""
        there = self._backend.episode_ids()
        new = [id for id in there if id not in self.entries]
        data = self._backend.read_many([f"{layout.EPISODES}/{id}/{layout.EPISODE_FILE}" for id in new])
        found = {id: index_entry(parse_episode(d, id)) for id, d in zip(new, data, strict=True)}
        self.entries = {id: found[id] if id in found else self.entries[id] for id in there}
        self.version += 1

    def put(self, entry: IndexEntry) -> None:
        """Add an episode or change its entry."""
        self.entries = {**self.entries, entry.id: entry}

    def drop(self, id: str) -> None:
        """Forget an episode."""
        self.entries = {known: entry for known, entry in self.entries.items() if known != id}

    def reconcile(self) -> dict[str, str]:
        """Compare with the episodes that are there, mend, and return unreadable ones with their reason."""
        self.refresh()
        return {}

    def rebuild(self) -> dict[str, str]:
        """Read every episode.json again, so that relabels by others show."""
        self.entries = {}
        return self.reconcile()

    def update(self, change: Callable[[], IndexEntry]) -> None:
        """Run `change` and keep the entry it returns."""
        self.put(change())
