"""Where things lie in a store, and the Zarr v3 metadata that lets any Zarr reader open an episode.

    store.json                      format_version and schema
    index.jsonl                     log of what was added, changed and deleted; can be rebuilt
    episodes/<id>/                  one Zarr v3 group, visible once it is here and has its episode.json
        episode.json                written last: meta, and shape, dtype, size and checksum of each array
        <stream>/stamp_ns           int64[M]
        <stream>/data               [M, ...] in C order, or for coded pictures:
        <stream>/frames, offset     uint8[bytes] JPEG or PNG one after another, int64[M+1]
    staging/<id>/                   the same, still being written
    quarantine/<id>/, trash/<id>/   what could not be salvaged, what was deleted
    trash/.mend/<n>/                what transaction n of `robot-rl mend` took out, for its undo
    mend/<n>.json                   the journal of those transactions
    store.lock, mend.lock           held while files change places, and by the one who mends

Every array is a single uncompressed chunk, so its chunk file is the raw C-order rows: a writer appends to it row by
row, and a reader maps it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.data.files import write_new

STORE_FILE = "store.json"
INDEX_FILE = "index.jsonl"
EPISODE_FILE = "episode.json"
STAGING_FILE = "staging.json"
EPISODES, STAGING, QUARANTINE, TRASH = "episodes", "staging", "quarantine", "trash"
JOURNAL, STORE_LOCK, MEND_LOCK = "mend", "store.lock", "mend.lock"


def chunk_name(ndim: int) -> str:
    """Return the file name of an array's only chunk."""
    return ".".join(["c", *["0"] * ndim])


def chunk_path(stream: str, array: str, shape: tuple[int, ...]) -> str:
    """Return the path of an array's chunk file relative to its episode."""
    return f"{stream}/{array}/{chunk_name(len(shape))}"


def arrays_of(codec: str, row_shape: tuple[int, ...], dtype: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return row shape and dtype of each array of a stream; the stamps come last, as they are written last."""
    data = {"data": (row_shape, dtype)} if codec == "raw" else {"frames": ((), "uint8"), "offset": ((), "int64")}
    return {**data, "stamp_ns": ((), "int64")}


def array_entry(shape: tuple[int, ...], dtype: str, crc32: int) -> dict[str, Any]:
    """Return what episode.json says about one array."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return {"shape": list(shape), "dtype": dtype, "nbytes": nbytes, "crc32": crc32}


def zarr_array(shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    """Return the Zarr v3 metadata of an array that is one raw chunk."""
    kind = np.dtype(dtype)
    codec: dict[str, Any] = {"name": "bytes"}
    if kind.itemsize > 1:
        codec["configuration"] = {"endian": "little"}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(1, n) for n in shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": False if kind.kind == "b" else 0.0 if kind.kind == "f" else 0,
        "codecs": [codec],
        "attributes": {},
    }


def zarr_group(attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the Zarr v3 metadata of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}


def zarr_documents(streams: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    """Return every `zarr.json` of an episode by its path, from the `streams` of its episode.json."""
    documents = {"zarr.json": zarr_group()}
    for name, stream in streams.items():
        about = {key: stream[key] for key in ("codec", "row_shape", "dtype", "unit")}
        documents[f"{name}/zarr.json"] = zarr_group(about)
        for array, entry in stream["arrays"].items():
            documents[f"{name}/{array}/zarr.json"] = zarr_array(tuple(entry["shape"]), entry["dtype"])
    return {path: json.dumps(document).encode() for path, document in documents.items()}


def write_zarr(folder: Path, streams: Mapping[str, Mapping[str, Any]]) -> None:
    """Write every `zarr.json` of an episode.

    Raises:
        StoreError: The disk is full.
    """
    for path, data in zarr_documents(streams).items():
        write_new(folder / path, data)
