"""Where a store's bytes lie: a local folder, where one rename publishes, or any fsspec URL, where episode.json does."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import fsspec
import numpy as np

from robot_rl.data import layout
from robot_rl.data.files import fsync_dir, replace_file
from robot_rl.data.rows import Blob, FileBlob, forget_maps
from robot_rl.errors import StoreError


class Backend(Protocol):
    """The few things a store asks of the place its bytes lie in. Paths are relative to the store."""

    url: str
    staging: Path
    quarantine: Path

    def read(self, path: str) -> bytes:
        """Return a file's content; FileNotFoundError when there is none."""

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """Return the content of many files at once."""

    def replace(self, path: str, data: bytes) -> None:
        """Replace a small file; readers see the old or the new content."""

    def size(self, path: str) -> int | None:
        """Return a file's size in bytes, `None` when there is none."""

    def blob(self, path: str, nbytes: int) -> Blob:
        """Return access to a chunk file's bytes."""

    def episode_ids(self) -> list[str]:
        """Return the ids of the episodes that are there now."""

    def publish(self, folder: Path, id: str) -> None:
        """Move a finished staging folder into the store."""

    def forget(self, id: str) -> None:
        """Drop what is cached of an episode's bytes."""

    def remove(self, id: str) -> None:
        """Take an episode out of sight."""


class LocalBackend:
    """A folder on a local or network file system."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = str(self.root)
        self.staging = self.root / layout.STAGING
        self.quarantine = self.root / layout.QUARANTINE

    @property
    def writable(self) -> bool:
        """Whether this process may repair and write the store."""
        return os.access(self.root, os.W_OK)

    def read(self, path: str) -> bytes:
        """Return a file's content; FileNotFoundError when there is none."""
        return (self.root / path).read_bytes()

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """Return the content of many files at once."""
        return [self.read(path) for path in paths]

    def replace(self, path: str, data: bytes) -> None:
        """Replace a small file; readers see the old or the new content."""
        replace_file(self.root / path, data)

    def size(self, path: str) -> int | None:
        """Return a file's size in bytes, `None` when there is none."""
        try:
            return os.stat(self.root / path).st_size
        except FileNotFoundError:
            return None

    def blob(self, path: str, nbytes: int) -> Blob:
        """Return access to a chunk file's bytes."""
        return FileBlob(self.root / path, nbytes)

    def episode_ids(self) -> list[str]:
        """Return the ids of the episodes that are there now."""
        try:
            with os.scandir(self.root / layout.EPISODES) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")
        except FileNotFoundError:
            return []

    def publish(self, folder: Path, id: str) -> None:
        """Move a finished staging folder into the store."""
        target = self.root / layout.EPISODES / id
        target.parent.mkdir(exist_ok=True)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            raise StoreError(
                f"episode {id} already exists in {self.root}; nothing was overwritten, use another id"
            ) from error
        (target / layout.STAGING_FILE).unlink(missing_ok=True)
        fsync_dir(target.parent)

    def forget(self, id: str) -> None:
        """Drop what is cached of an episode's bytes."""
        forget_maps(self.root / layout.EPISODES / id)

    def remove(self, id: str) -> None:
        """Take an episode out of sight."""
        source, target = self.root / layout.EPISODES / id, self.root / layout.TRASH / id
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        source.rename(target)
        fsync_dir(source.parent)
        forget_maps(source)


class _RemoteBlob:
    """Bytes behind a URL, fetched by range."""

    def __init__(self, fs: Any, path: str, nbytes: int) -> None:
        self._fs, self._path, self._nbytes = fs, path, nbytes
        self._whole: np.ndarray | None = None

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return bytes [start, stop); an array that was asked for whole is kept, pictures come one by one."""
        if start == stop:
            return np.empty(0, np.uint8)
        if self._whole is not None:
            return self._whole[start:stop]
        data = np.frombuffer(self._fs.cat_file(self._path, start=start, end=stop), np.uint8)
        self._whole = data if len(data) == self._nbytes else None
        return data


class RemoteBackend:
    """Any fsspec file system. Episodes are staged on the local disk and uploaded when whole, episode.json last."""

    def __init__(self, url: str, *, fs: Any = None) -> None:
        self.url = url.rstrip("/")
        self._fs: Any
        self._root: str
        self._fs, self._root = fsspec.core.url_to_fs(self.url) if fs is None else (fs, self.url)
        # A memory:// store dies with its process, so nobody else may take over what it staged.
        owner = f"{self.url}#{os.getpid()}" if self.url.startswith("memory:") else self.url
        name = hashlib.sha256(owner.encode()).hexdigest()[:16]
        self.staging = Path(tempfile.gettempdir()) / f"robot_rl_staging_{os.getuid()}" / name
        self.quarantine = self.staging.with_name(f"{name}-{layout.QUARANTINE}")

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"

    def read(self, path: str) -> bytes:
        """Return a file's content; FileNotFoundError when there is none."""
        return bytes(self._fs.cat_file(self._path(path)))

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """Return the content of many files at once."""
        if not paths:
            return []
        full = [self._path(path) for path in paths]
        found = self._fs.cat(full)
        return [bytes(data) for data in ([found] if isinstance(found, bytes) else found.values())]

    def replace(self, path: str, data: bytes) -> None:
        """Replace a small file; readers see the old or the new content."""
        self._fs.makedirs(self._path(path).rsplit("/", 1)[0], exist_ok=True)
        self._fs.pipe_file(self._path(path), data)

    def size(self, path: str) -> int | None:
        """Return a file's size in bytes, `None` when there is none."""
        try:
            return int(self._fs.size(self._path(path)))
        except FileNotFoundError:
            return None

    def blob(self, path: str, nbytes: int) -> Blob:
        """Return access to a chunk file's bytes."""
        return _RemoteBlob(self._fs, self._path(path), nbytes)

    def episode_ids(self) -> list[str]:
        """Return the ids of the episodes that are there now."""
        self._fs.invalidate_cache()
        found = self._fs.glob(self._path(f"{layout.EPISODES}/*/{layout.EPISODE_FILE}"))
        return sorted(path.split("/")[-2] for path in found)

    def publish(self, folder: Path, id: str) -> None:
        """Move a finished staging folder into the store."""
        base = f"{layout.EPISODES}/{id}"
        if self.size(f"{base}/{layout.EPISODE_FILE}") is not None:
            raise StoreError(f"episode {id} already exists in {self.url}; nothing was overwritten, use another id")
        last = folder / layout.EPISODE_FILE
        files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p != last and p.name != layout.STAGING_FILE]
        try:
            for path in [*files, last]:
                target = self._path(f"{base}/{path.relative_to(folder).as_posix()}")
                self._fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
                self._fs.put_file(str(path), target)
        except OSError as error:
            raise StoreError(
                f"episode {id} could not be uploaded to {self.url}: {error}; it is whole in {folder} and is "
                "uploaded when the store is next opened on this machine"
            ) from error
        shutil.rmtree(folder)

    def forget(self, id: str) -> None:
        """Nothing is cached here."""

    def remove(self, id: str) -> None:
        """Take an episode out of sight."""
        base = self._path(f"{layout.EPISODES}/{id}")
        self._fs.rm_file(f"{base}/{layout.EPISODE_FILE}")
        self._fs.rm(base, recursive=True)


def make_backend(url: str | Path) -> LocalBackend | RemoteBackend:
    """Return the backend of a path or URL; `file://` is the local folder it names."""
    text = str(url)
    if "://" not in text:
        return LocalBackend(Path(text).expanduser())
    protocol, _, path = text.partition("://")
    return LocalBackend(Path(path)) if protocol in ("file", "local") else RemoteBackend(text)
