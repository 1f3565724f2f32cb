"""Arrays of an HDF5 file read when asked for, and what h5py raises turned into messages about the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.errors import DataFormatError, MissingExtraError

_BLOCK_BYTES = 2**24
"""How much of an array is held at a time while it is looked through."""


def open_hdf5(path: str | Path) -> Any:
    """Return an `h5py.File` opened for reading.

    Raises:
        MissingExtraError: h5py is not installed.
        DataFormatError: It is no HDF5 file, or one that was cut short.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", "hdf5") from error
    path = Path(path)
    if not path.is_file():
        raise DataFormatError(f"{path} is not there or not a file; give the .hdf5 file")
    try:
        return h5py.File(path, "r", libver="latest")
    except OSError as error:
        if "truncated" in str(error):
            hint = f"it was cut short ({path.stat().st_size} bytes are left), copy it again"
        elif h5py.is_hdf5(path):
            hint = "it is HDF5, but damaged or still being written; copy it again"
        else:
            hint = "it does not start as an HDF5 file does"
        raise DataFormatError(f"{path} cannot be opened as HDF5: {hint} ({error})") from error


def leaves(group: Any, prefix: str = "") -> dict[str, Any]:
    """Return every dataset below a group by its path, in the order of names; links that lead nowhere are left out."""
    import h5py

    found: dict[str, Any] = {}
    for name in sorted(group):
        child = group.get(name)
        if isinstance(child, h5py.Group):
            found.update(leaves(child, f"{prefix}{name}/"))
        elif isinstance(child, h5py.Dataset):
            found[f"{prefix}{name}"] = child
    return found


def native(dtype: np.dtype) -> np.dtype:
    """Return a dtype in this machine's byte order."""
    return dtype.newbyteorder("=")


class Hdf5Rows:
    """Rows of one array, or of several one after another, fetched when indexed.

    Args:
        parts: HDF5 datasets or numpy arrays [M, ...] with the same row shape.
        skip: How many of the first rows to leave out.
        shape: Row shape to give them; by default their own.
    """

    def __init__(self, *parts: Any, skip: int = 0, shape: tuple[int, ...] | None = None) -> None:
        self._parts: Sequence[Any] = parts
        self._skip = skip
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self.dtype = native(parts[0].dtype)
        self.shape = (int(self._starts[-1]) - skip, *(parts[0].shape[1:] if shape is None else shape))

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: Any) -> np.ndarray:
        wanted = np.arange(len(self))[index]
        if wanted.ndim == 0:
            return np.asarray(self._range(int(wanted), int(wanted) + 1)[0])
        if len(wanted) and np.array_equal(wanted, np.arange(wanted[0], wanted[0] + len(wanted))):
            return self._range(int(wanted[0]), int(wanted[-1]) + 1)
        rows = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        for i, row in enumerate(wanted):
            rows[i] = self._range(int(row), int(row) + 1)[0]
        return rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def _range(self, start: int, stop: int) -> np.ndarray:
        start, stop = start + self._skip, stop + self._skip
        found = [
            read_rows(part, max(start - first, 0), min(stop - first, len(part)))
            for part, first in zip(self._parts, self._starts, strict=False)
            if start < first + len(part) and stop > first
        ]
        return np.concatenate(found).astype(self.dtype, copy=False).reshape(stop - start, *self.shape[1:])


def read_rows(dataset: Any, start: int, stop: int) -> np.ndarray:
    """Return rows [start, stop) of a dataset or an array.

    Raises:
        DataFormatError: The bytes cannot be read; names file and dataset.
    """
    try:
        return np.asarray(dataset[start:stop])
    except (OSError, ValueError) as error:
        raise DataFormatError(
            f"{dataset.file.filename}: {dataset.name} rows {start} to {stop} cannot be read ({error}); "
            "the file is damaged there, copy it again"
        ) from error


def blocks(dataset: Any) -> Any:
    """Yield (first row, rows) through a dataset, a few megabytes at a time.

    Raises:
        DataFormatError: As `read_rows`.
    """
    row = max(int(np.prod(dataset.shape[1:], dtype=np.int64)) * dataset.dtype.itemsize, 1)
    step = max(_BLOCK_BYTES // row, 1)
    for start in range(0, len(dataset), step):
        yield start, read_rows(dataset, start, min(start + step, len(dataset)))


def first_not_finite(dataset: Any) -> tuple[int, float] | None:
    """Return row and value of the first NaN or infinity in a dataset, `None` where there is none."""
    if dataset.dtype.kind != "f":
        return None
    for start, rows in blocks(dataset):
        bad = np.argwhere(~np.isfinite(rows))
        if len(bad):
            return start + int(bad[0][0]), float(rows[tuple(bad[0])])
    return None


def plain(value: Any) -> Any:
    """Return an HDF5 attribute as plain JSON: text decoded, numpy numbers and arrays as Python's."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, str | int | float | bool | list) or value is None:
        return value
    return str(value)
