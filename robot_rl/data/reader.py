"""Read one episode: sizes are checked before anything is mapped, checksums when asked."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_rl.data import layout
from robot_rl.data.backend import Backend
from robot_rl.data.episode_file import parse_episode
from robot_rl.data.files import from_json
from robot_rl.data.rows import Blob, FileRows, FrameRows
from robot_rl.data.schema import StoreSchema, meta_from_dict, migrate
from robot_rl.errors import StoreError
from robot_rl.values import Recording, Rows, Stream

_STEP = 1 << 24


def read_schema(backend: Backend) -> StoreSchema:
    """Return what all episodes of a store have in common.

    Raises:
        StoreError: There is no store, or its format is newer than this program.
    """
    try:
        document = from_json(backend.read(layout.STORE_FILE), f"{backend.url}/{layout.STORE_FILE}")
    except FileNotFoundError as error:
        raise StoreError(f"there is no episode store at {backend.url} ({layout.STORE_FILE} is missing)") from error
    return StoreSchema.from_dict(migrate(document, f"store {backend.url}"))


def read_document(backend: Backend, id: str) -> dict[str, Any]:
    """Return an episode's episode.json.

    Raises:
        StoreError: There is no such episode, or the file is damaged.
    """
    try:
        data = backend.read(f"{layout.EPISODES}/{id}/{layout.EPISODE_FILE}")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(f"there is no episode {id!r} in {backend.url}") from error
    return parse_episode(data, id)


def read_recording(backend: Backend, id: str) -> Recording:
    """Return an episode's streams, fetched when indexed, and its meta.

    Raises:
        StoreError: No such episode, or a chunk is missing or cut short; names array, bytes expected and got.
    """
    document = read_document(backend, id)
    streams = {name: _stream(backend, id, name, about) for name, about in document["streams"].items()}
    return Recording(streams, meta_from_dict(document["meta"]))


def _stream(backend: Backend, id: str, name: str, about: Mapping[str, Any]) -> Stream:
    arrays = about["arrays"]
    blobs = {array: _blob(backend, id, f"{name}/{array}", entry) for array, entry in arrays.items()}
    stamps = _load(blobs["stamp_ns"], arrays["stamp_ns"])
    if about["codec"] == "raw":
        shape, dtype = tuple(arrays["data"]["shape"]), np.dtype(arrays["data"]["dtype"])
        rows: Rows = FileRows(blobs["data"], shape, dtype)
    else:
        offset = _load(blobs["offset"], arrays["offset"])
        rows = FrameRows(blobs["frames"], offset, about["codec"], tuple(about["row_shape"]))
    return Stream(stamps, rows)


def _load(blob: Blob, entry: Mapping[str, Any]) -> np.ndarray:
    return np.array(blob.read(0, entry["nbytes"]).view(np.dtype(entry["dtype"])))


def _path(id: str, array: str, entry: Mapping[str, Any]) -> str:
    return f"{layout.EPISODES}/{id}/{array}/{layout.chunk_name(len(entry['shape']))}"


def _blob(backend: Backend, id: str, array: str, entry: Mapping[str, Any]) -> Blob:
    path, expected = _path(id, array, entry), int(entry["nbytes"])
    got = backend.size(path)
    if got != expected and not (got is None and expected == 0):
        came = "no file" if got is None else f"{got} bytes"
        raise StoreError(
            f"episode {id}, array `{array}`: its chunk must be {expected} bytes, got {came} at {backend.url}/{path}; "
            "the copy or the disk lost data: restore the file or delete the episode"
        )
    return backend.blob(path, expected)


def verify(backend: Backend, id: str) -> None:
    """Raise unless every array of an episode has its checksum; Zarr metadata lost in a power cut is written anew.

    Raises:
        StoreError: Names the episode, the array and both checksums.
    """
    backend.forget(id)
    streams = read_document(backend, id)["streams"]
    for name, about in streams.items():
        for array, entry in about["arrays"].items():
            blob = _blob(backend, id, f"{name}/{array}", entry)
            got = checksum(blob, entry["nbytes"])
            if got != entry["crc32"]:
                raise StoreError(
                    f"episode {id}, array `{name}/{array}`: checksum must be {entry['crc32']:08x}, got {got:08x}; "
                    "its bytes were changed after it was saved: restore the file or delete the episode"
                )
    for path, data in layout.zarr_documents(streams).items():
        full = f"{layout.EPISODES}/{id}/{path}"
        if backend.size(full) != len(data) or backend.read(full) != data:
            backend.replace(full, data)


def checksum(blob: Blob, nbytes: int) -> int:
    """Return the CRC-32 of a chunk."""
    crc32 = 0
    for start in range(0, nbytes, _STEP):
        crc32 = zlib.crc32(blob.read(start, min(start + _STEP, nbytes)).data, crc32)
    return crc32
