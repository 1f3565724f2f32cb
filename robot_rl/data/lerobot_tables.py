"""The Parquet tables of a LeRobot v3.0 data set: frames (one row group per episode), episodes, tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.data.lerobot_columns import DEFAULTS, Column
from robot_rl.data.lerobot_stats import Stats
from robot_rl.errors import MissingExtraError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtraError("pyarrow", "lerobot") from error

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
TASKS_PATH = "meta/tasks.parquet"
FILE_MB = 100
"""A table's file that has this size gets no further episode."""
CHUNK_FILES = 1000
_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class FrameTables:
    """The tables of frames; an episode is one row group, a file is closed when it has `file_mb`.

    Args:
        root: Folder of the data set.
        columns: The features that are not video.
        file_mb: Size in MB at which the next episode starts a new file.
    """

    def __init__(self, root: Path, columns: Sequence[Column], *, file_mb: float = FILE_MB) -> None:
        self._root, self._columns, self._limit = root, columns, file_mb * 2**20
        self._number = -1
        self._sink: Any = None
        self._writer: Any = None
        self._schema = _schema(columns)

    def add(self, values: Mapping[str, Any]) -> dict[str, int]:
        """Append an episode's values by feature (arrays [N, ...]; PNG bytes of pictures) and return where they are."""
        arrays = [_array(values[name], self._schema.field(name).type) for name in self._schema.names]
        self._open_file()
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        return {"data/chunk_index": self._number // CHUNK_FILES, "data/file_index": self._number % CHUNK_FILES}

    def close(self) -> None:
        """Finish the file that is open."""
        if self._writer is not None:
            self._writer.close()
            self._sink.close()
            self._writer = None

    def _open_file(self) -> None:
        if self._writer is not None and self._sink.tell() >= self._limit:
            self.close()
        if self._writer is None:
            self._number += 1
            place = {"chunk_index": self._number // CHUNK_FILES, "file_index": self._number % CHUNK_FILES}
            path = self._root / DATA_PATH.format(**place)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sink = path.open("wb")
            self._writer = pq.ParquetWriter(self._sink, self._schema, compression="snappy", use_dictionary=True)


def _schema(columns: Sequence[Column]) -> Any:
    fields, kinds = [], {}
    for column in columns:
        fields.append(pa.field(column.feature, _type(column)))
        kinds[column.feature] = _kind(column)
    for name, dtype in DEFAULTS.items():
        fields.append(pa.field(name, pa.from_numpy_dtype(np.dtype(dtype))))
        kinds[name] = {"dtype": dtype, "_type": "Value"}
    # What the `datasets` library reads its features from.
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": kinds}})})


def _type(column: Column) -> Any:
    if column.is_picture:
        return _PICTURE
    value = pa.from_numpy_dtype(np.dtype(column.dtype))
    if column.shape == (1,):
        return value
    if len(column.shape) == 1:
        return pa.list_(value, column.shape[0])
    for _ in column.shape:
        value = pa.list_(value)
    return value


def _kind(column: Column) -> dict[str, Any]:
    if column.is_picture:
        return {"_type": "Image"}
    value = {"dtype": column.dtype, "_type": "Value"}
    if column.shape == (1,):
        return value
    if len(column.shape) == 1:
        return {"feature": value, "length": column.shape[0], "_type": "Sequence"}
    return {"shape": list(column.shape), "dtype": column.dtype, "_type": f"Array{len(column.shape)}D"}


def _array(values: Any, type: Any) -> Any:
    """Return an episode's values as Arrow has them."""
    if type == _PICTURE:
        return pa.array([{"bytes": data, "path": f"frame-{i:06d}.png"} for i, data in enumerate(values)], type)
    rows = np.asarray(values)
    flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
    if pa.types.is_fixed_size_list(type):
        return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
    if not pa.types.is_list(type):
        return flat
    for axis in range(rows.ndim - 1, 0, -1):
        size = rows.shape[axis]
        flat = pa.ListArray.from_arrays(pa.array(np.arange(0, len(flat) + 1, size, dtype=np.int32)), flat)
    return flat.cast(type)


def write_episodes(root: Path, episodes: Sequence[Mapping[str, Any]], stats: Sequence[Mapping[str, Stats]]) -> None:
    """Write `meta/episodes`: a row per episode, its statistics under `stats/<feature>/<name>`."""
    rows = []
    for entry, own in zip(episodes, stats, strict=True):
        flat = {f"stats/{feature}/{name}": v.tolist() for feature, s in own.items() for name, v in s.items()}
        rows.append({**entry, **flat, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
    path = root / EPISODES_PATH.format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_tasks(root: Path, tasks: Sequence[str]) -> None:
    """Write `meta/tasks.parquet`: number by task, the task being the index that pandas finds there."""
    about = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64",
             "metadata": None},
            {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }  # fmt: skip
    table = pa.table({"task_index": np.arange(len(tasks)), "task": pa.array(tasks, pa.string())})
    path = root / TASKS_PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(about)}), path)
