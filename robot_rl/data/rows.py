"""Rows that are fetched when asked for: files mapped on demand, pictures decoded on demand, and views by index.

All of them take an int, a slice or an int array, may be used from several threads, and can be pickled to a worker.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from robot_rl.data import frame_codec
from robot_rl.values import Rows

# Each map keeps a file descriptor, of which a process has 1,024 by default; a small file is read instead.
_MAX_MAPS = 256
_READ_BELOW = 2**16
_maps: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
_maps_lock = threading.Lock()


def mapped(path: Path, nbytes: int) -> np.ndarray:
    """Return a file's bytes, read-only uint8[nbytes]: read if small, else mapped; the newest are kept."""
    if nbytes == 0:
        return np.empty(0, np.uint8)
    key = (str(path), nbytes)
    with _maps_lock:
        found = _maps.get(key)
        if found is None:
            found = _read(path, nbytes) if nbytes < _READ_BELOW else _map(path, nbytes)
            _maps[key] = found
            while len(_maps) > _MAX_MAPS:
                _maps.popitem(last=False)
        else:
            _maps.move_to_end(key)
    return found


def _read(path: Path, nbytes: int) -> np.ndarray:
    array = np.frombuffer(path.read_bytes()[:nbytes], np.uint8)
    if len(array) < nbytes:
        raise ValueError(f"{path} has {len(array)} bytes, expected {nbytes}")
    return array


def _map(path: Path, nbytes: int) -> np.ndarray:
    return np.memmap(path, np.uint8, "r", shape=(nbytes,)).view(np.ndarray)


def forget_maps(folder: Path) -> None:
    """Close the maps of files below `folder` (views handed out keep theirs)."""
    prefix = f"{folder}/"
    with _maps_lock:
        for key in [k for k in _maps if k[0].startswith(prefix)]:
            del _maps[key]


class Blob(Protocol):
    """A file's bytes, wherever they lie."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return bytes [start, stop) as uint8."""


class FileBlob:
    """A local file's bytes."""

    def __init__(self, path: Path, nbytes: int) -> None:
        self._path, self._nbytes = path, nbytes

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return bytes [start, stop) without copying."""
        return mapped(self._path, self._nbytes)[start:stop]


class FileRows:
    """An array in a raw file, zero copy for slices."""

    def __init__(self, blob: Blob, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._blob = blob
        self.shape = shape
        self.dtype = dtype
        self._nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self.__array__()[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self._blob.read(0, self._nbytes).view(self.dtype).reshape(self.shape)
        return np.array(array, dtype, copy=copy)


@runtime_checkable
class EncodedRows(Protocol):
    """Pictures that can be had as coded bytes, so that a writer copies them and decodes none."""

    codec: str

    def encoded(self, index: int) -> bytes:
        """Return one picture's bytes in `codec`."""


class FrameRows:
    """Pictures [M, height, width, channel] decoded one by one from concatenated JPEG or PNG bytes."""

    def __init__(self, blob: Blob, offset: np.ndarray, codec: str, shape: tuple[int, ...]) -> None:
        self._blob, self._offset = blob, offset
        self.codec = codec
        self.shape = (len(offset) - 1, *shape)
        self.dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def encoded(self, index: int) -> bytes:
        """Return one picture's bytes as stored."""
        return bytes(self._bytes(range(len(self))[index]))

    def part(self, start: int, stop: int) -> FrameRows:
        """Return pictures [start, stop) as stored, none decoded."""
        start, stop, _ = slice(start, stop).indices(len(self))
        return FrameRows(self._blob, self._offset[start : max(start, stop) + 1], self.codec, self.shape[1:])

    @property
    def stored_nbytes(self) -> int:
        """Bytes of the coded pictures."""
        return int(self._offset[-1] - self._offset[0])

    def _bytes(self, index: int) -> np.ndarray:
        return self._blob.read(int(self._offset[index]), int(self._offset[index + 1]))

    def _decode(self, index: int) -> np.ndarray:
        return frame_codec.decode(self._bytes(index), self.codec, self.shape[1:])

    def __getitem__(self, index: Any) -> np.ndarray:
        wanted = np.arange(len(self))[index]
        if wanted.ndim == 0:
            return self._decode(int(wanted))
        # Windows repeat edge frames, so each picture is decoded once.
        unique, inverse = np.unique(wanted, return_inverse=True)
        frames = np.empty((len(unique), *self.shape[1:]), np.uint8)
        for i, row in enumerate(unique):
            frames[i] = self._decode(int(row))
        return frames if len(unique) == len(wanted) and np.array_equal(unique, wanted) else frames[inverse]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


class RowView:
    """Rows of another `Rows` in a given order: how an episode sees a stream from the control clock."""

    def __init__(self, rows: Rows, index: np.ndarray) -> None:
        self.rows, self.index = rows, index
        self.shape = (len(index), *rows.shape[1:])
        self.dtype = rows.dtype

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.rows[self.index[index]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)
