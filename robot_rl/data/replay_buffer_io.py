"""Replay buffers of diffusion_policy (Zarr v2: `data/<key>` [rows, ...], `meta/episode_ends`), in and out, exactly.

Every array of the source is kept, also those that no observation needs, so that exporting gives it back byte for
byte. Float pictures whose values are whole numbers are kept as lossless 8-bit PNG, with their dtype remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from robot_rl.data.grid_export import grid_episode, write_lost
from robot_rl.data.replay_layout import ReplayLayout
from robot_rl.data.replay_source import ReplaySource
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import DataFormatError, SpecError, StoreError

Progress = Callable[[int, int], None]

_CHUNK_ROWS = 161
"""Rows of a chunk in an export, as in the published PushT buffer."""


def import_replay_buffer(
    source: str | Path,
    store_url: str | Path,
    layout: ReplayLayout,
    *,
    limit: int | None = None,
    allow_missing_chunks: bool = False,
    progress: Progress | None = None,
) -> EpisodeStore:
    """Import a replay buffer as a store of on-grid episodes; run again after an interruption, it goes on.

    Args:
        source: Folder of the Zarr v2 group, or a `.zip` of it.
        store_url: Where the store is or shall be.
        layout: What the arrays mean.
        limit: Import only the first episodes.
        allow_missing_chunks: Take a chunk file that is not there as zeros, as Zarr does, and not as a lost file.
        progress: Called with (episodes done, episodes in all).

    Raises:
        DataFormatError: A key lacks, lengths disagree, a chunk is damaged or missing, a value cannot be kept.
        StoreError: The store is of another schema, or the disk is full.
    """
    buffer = ReplaySource(source, layout, allow_missing_chunks=allow_missing_chunks)
    if EpisodeStore.exists(store_url):
        store = EpisodeStore.open(store_url)
        if store.schema.spec != buffer.spec or dict(store.schema.extra) != buffer.extra:
            raise StoreError(f"the store at {store.url} does not hold {source}; import into a new place")
    else:
        codecs = {name: "png" for name, spec in buffer.spec.obs.items() if spec.is_image}
        store = EpisodeStore.create(store_url, buffer.spec, extra=buffer.extra, codecs=codecs)
    there = set(store.ids())
    total = len(buffer.ends) if limit is None else min(limit, len(buffer.ends))
    for i in range(total):
        id = f"{layout.robot}-{i:06d}"
        if id not in there:
            try:
                store.append(buffer.episode(i), id=id)
            except SpecError as error:
                raise DataFormatError(f"{source}, episode {i}: {error}") from error
        if progress is not None:
            progress(i + 1, total)
    return store


def export_replay_buffer(
    store: EpisodeStore, path: str | Path, *, progress: Progress | None = None
) -> Mapping[str, str]:
    """Write a store as a replay buffer; one that was imported from a replay buffer comes out as it went in.

    Episodes go in the order of their ids. Streams of a store that was not imported become arrays of the same name.
    Returns what is lost, field -> why; that goes to `lost.json` in the folder too.

    Args:
        store: What to write; episodes that are not on the grid are seen from the control clock.
        path: Folder to write; must not exist.
        progress: Called with (episodes done, episodes in all).

    Raises:
        StoreError: `path` exists, or the store is empty.
        DataFormatError: An episode's streams do not overlap in time, or episodes hold different arrays.
    """
    ids = store.ids()
    if Path(path).exists() or not ids:
        raise StoreError(
            f"cannot export {len(ids)} episodes of {store.url} to {path}: needs a new folder and at least one episode"
        )
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    total = sum(entry.steps for entry in store.entries())
    columns: dict[str, _Column] = {}
    ends: list[int] = []
    dtype, lost = "<i8", _lost(store)
    for i, id in enumerate(ids):
        rows, dtype = _export_rows(store, id, lost)
        if columns and set(rows) != set(columns):
            raise DataFormatError(f"episode {id} has arrays {sorted(rows)}, the ones before it {sorted(columns)}")
        for key, (values, chunks) in rows.items():
            if key not in columns:
                columns[key] = _Column(_create(group, f"data/{key}", (total, *values.shape[1:]), values.dtype, chunks))
            columns[key].add(values)
        ends.append(len(next(iter(rows.values()))[0]) + (ends[-1] if ends else 0))
        if progress is not None:
            progress(i + 1, len(ids))
    for column in columns.values():
        column.flush()
    _create(group, "meta/episode_ends", (len(ends),), np.dtype(dtype), [len(ends)])[:] = np.array(ends, dtype)
    write_lost(Path(path) / "lost.json", lost)
    return lost


def _lost(store: EpisodeStore) -> dict[str, str]:
    """Return what a replay buffer has no place for, whatever the episodes are."""
    lost = {"task, outcome and the rest of meta": "a replay buffer holds arrays only", "units and bounds": "likewise"}
    for name, stream in store.schema.streams.items():
        if stream.codec != "raw":
            lost[f"{name}, {stream.codec} bytes"] = "pictures are written decoded"
    return lost


class _Column:
    """An array written chunk by chunk, so that none is compressed twice."""

    def __init__(self, array: Any) -> None:
        self._array, self._done = array, 0
        self._pending: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        self._pending.append(rows)
        if sum(map(len, self._pending)) >= self._array.chunks[0]:
            self.flush(keep=True)

    def flush(self, *, keep: bool = False) -> None:
        """Write what is pending; `keep` holds back the rows of a chunk that is not full yet."""
        rows = np.concatenate(self._pending) if self._pending else np.empty(0)
        whole = len(rows) - len(rows) % int(self._array.chunks[0]) if keep else len(rows)
        if whole:
            self._array[self._done : self._done + whole] = rows[:whole]
        self._done += whole
        self._pending = [rows[whole:]] if whole < len(rows) else []


def _create(group: Any, name: str, shape: tuple[int, ...], dtype: np.dtype, chunks: Sequence[int]) -> Any:
    blosc = {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 2, "blocksize": 0}
    # Without write_empty_chunks a chunk of zeros has no file, which an import could not tell from a lost one.
    return group.create_array(
        name, shape=shape, dtype=dtype, chunks=tuple(chunks), compressors=blosc, fill_value=0,
        config={"write_empty_chunks": True},
    )  # fmt: skip


def _export_rows(
    store: EpisodeStore, id: str, lost: dict[str, str]
) -> tuple[dict[str, tuple[np.ndarray, list[int]]], str]:
    """Return the rows and chunk shape of each array of an episode, and the dtype of episode_ends."""
    recording, episode = grid_episode(store, id, lost)
    n = len(episode)
    data: dict[str, np.ndarray] = {
        name: np.asarray(rows[:]) for name, rows in {**episode.obs, **episode.extras}.items()
    }
    known = ("action", "action_executed", "reward", "by_human")
    data.update({name: np.asarray(getattr(episode, name)) for name in known if name in recording.streams})
    if episode.final_obs is not None:
        lost["observation after the last action"] = "a replay buffer has as many observations as actions"
    about = recording.meta.extra.get("replay_buffer")
    if about is None:
        return {name: (rows, [_CHUNK_ROWS, *rows.shape[1:]]) for name, rows in data.items()}, "<i8"
    out = {}
    for key, array in about["arrays"].items():
        rows = np.empty((n, *array["shape"]), array["dtype"])
        for name, first, last in array["streams"]:
            if rows.ndim == 1:
                rows[:] = data[name]
            else:
                rows[..., first:last] = data[name]
        out[key] = (rows, array["chunks"])
    return out, about["ends_dtype"]
