"""Columns of parquet files as arrays: nested lists become axes, and only the row groups asked for are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.data.lerobot_meta import UNREADABLE, parquet
from robot_rl.data.lerobot_paths import is_pointer
from robot_rl.errors import DataFormatError

_BUFFER = 2**20
"""Bytes of a column that are read at once, so that pictures of a large row group come in pieces."""


class ParquetFile:
    """A parquet file that gives rows of some columns.

    Args:
        path: The file.

    Raises:
        DataFormatError: It is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DataFormatError(f"{path.name} is missing")
        if is_pointer(path):
            raise DataFormatError("data files are Git LFS pointers; run `git lfs pull` in the data set's folder")
        try:
            # No memory map: a file cut short while it is read would end the process.
            self._file = parquet().ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
        except UNREADABLE as error:
            raise DataFormatError(f"{path.name} is no whole parquet file ({error}); copy it again") from error
        self.columns: tuple[str, ...] = tuple(self._file.schema_arrow.names)
        self.rows = int(self._file.metadata.num_rows)
        groups = [self._file.metadata.row_group(i).num_rows for i in range(self._file.metadata.num_row_groups)]
        self._edges = np.cumsum([0, *groups])
        # Episodes that share a row group come one after the other, so the last one read is kept.
        self._last: tuple[tuple[tuple[str, ...], tuple[int, ...]], Any] | None = None

    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> Any:
        """Return rows [start, stop) of some columns as a pyarrow table.

        Raises:
            DataFormatError: The bytes are damaged.
        """
        stop = self.rows if stop is None else stop
        groups, first = self._groups(start, stop)
        key = (tuple(columns), tuple(groups))
        if self._last is None or self._last[0] != key:
            try:
                table = self._file.read_row_groups(groups, columns=list(columns), use_threads=False)
            except UNREADABLE as error:
                raise DataFormatError(
                    f"{self.path.name}: rows {start} to {stop} cannot be read ({error}); copy it again"
                ) from error
            self._last = (key, table)
        return self._last[1].slice(start - first, stop - start)

    def batches(self, column: str, start: int, stop: int, size: int) -> Iterator[Any]:
        """Yield rows [start, stop) of one column, `size` or fewer at a time.

        Raises:
            DataFormatError: The bytes are damaged.
        """
        groups, first = self._groups(start, stop)
        try:
            for batch in self._file.iter_batches(size, row_groups=groups, columns=[column], use_threads=False):
                part = batch.column(0).slice(max(0, start - first), max(0, stop - max(first, start)))
                first += len(batch)
                if len(part):
                    yield part
                if first >= stop:
                    return
        except UNREADABLE as error:
            raise DataFormatError(f"{self.path.name}: `{column}` cannot be read ({error}); copy it again") from error

    def _groups(self, start: int, stop: int) -> tuple[list[int], int]:
        """Return the row groups that hold rows [start, stop), and the first row of them."""
        groups = [i for i in range(len(self._edges) - 1) if self._edges[i] < stop and self._edges[i + 1] > start]
        return groups, int(self._edges[groups[0]]) if groups else 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def to_array(column: Any) -> np.ndarray:
    """Return a pyarrow column of numbers, or of equally long nested lists of numbers, as an array [N, ...].

    Raises:
        DataFormatError: Not numbers, lists of several lengths, or a null among integers.
    """
    import pyarrow as pa

    values = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    shape: list[int] = [len(values)]
    while pa.types.is_nested(values.type):
        values, length = _unnest(values)
        shape.append(length)
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_boolean(values.type)):
        raise DataFormatError(f"must hold numbers, got {values.type}")
    if values.null_count and not pa.types.is_floating(values.type):
        raise DataFormatError(f"has {values.null_count} nulls among {values.type}")
    array = values.to_numpy(zero_copy_only=False)
    return np.array(array).reshape(shape)


def _unnest(values: Any) -> tuple[Any, int]:
    """Return the items of equally long lists, and how long they are."""
    import pyarrow as pa

    if values.null_count:
        raise DataFormatError(f"has {values.null_count} rows without a value")
    if pa.types.is_fixed_size_list(values.type):
        return values.flatten(), int(values.type.list_size)
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        raise DataFormatError(f"must hold numbers, got {values.type}")
    lengths = np.unique(np.diff(values.offsets.to_numpy(zero_copy_only=False)))
    if len(lengths) > 1:
        raise DataFormatError(f"rows must be equally long, got {lengths.min()} to {lengths.max()} numbers")
    return values.flatten(), int(lengths[0]) if len(lengths) else 0


def shape_of(values: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
    """Return rows in the shape that info.json says where only axes of length 1 differ, else as they are."""
    alike = _squeezed(values.shape[1:]) == _squeezed(wanted) and 0 not in wanted
    return values.reshape(len(values), *wanted) if alike else values


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)
