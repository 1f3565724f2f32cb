"""A store as robomimic's HDF5, which robomimic's `SequenceDataset` reads, and which imports again as it was.

data                    attributes total, env_args, robot_rl
data/demo_i             attributes num_samples, model_file (of an import), robot_rl
    actions [N, A], obs/<name> [N, ...], next_obs/<name> [N, ...], rewards [N], dones [N], <other streams> [N, ...]
mask/<filter key>       names of demonstrations
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.data.grid_export import grid_episode, write_lost
from robot_rl.data.robomimic_own import OWN
from robot_rl.data.schema import meta_to_dict
from robot_rl.data.splits import split_episodes
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, MissingExtraError, StoreError
from robot_rl.values import Episode, Recording, Rows

Progress = Callable[[int, int], None]

_GYM = 2
"""robomimic's `EnvType.GYM_TYPE`, for stores that did not come from robosuite."""
_TAKEN = {"obs", "next_obs", "actions", "rewards"}
_BLOCK_ROWS = 64


def export_robomimic(
    store: EpisodeStore,
    path: str | Path,
    *,
    val_fraction: float = 0.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Mapping[str, str]:
    """Write a store as a robomimic file and return what it loses, field -> why; that goes to `<name>.lost.json` too.

    Pictures are written decoded, uint8 [N, height, width, channel].

    Args:
        store: What to write; episodes that are not on the grid are seen from the control clock.
        path: File to write; must not exist.
        val_fraction: Share of episodes in filter key `valid`, the others in `train`; 0 keeps those of an import.
        seed: Of that split.
        progress: Called with (episodes done, episodes in all).

    Raises:
        MissingExtraError: h5py is not installed.
        ConfigError: `val_fraction` is not in [0, 1).
        StoreError: `path` exists, or the store is empty.
        DataFormatError: An episode's streams do not overlap in time.
    """
    path, ids = Path(path), store.ids()
    if not 0.0 <= val_fraction < 1.0:
        raise ConfigError(f"`val_fraction` must lie within [0, 1), got {val_fraction}")
    if path.exists() or not ids:
        raise StoreError(
            f"cannot export {len(ids)} episodes of {store.url} to {path}: needs a new file and at least one episode"
        )
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", "hdf5") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    lost = _lost(store)
    try:
        with h5py.File(unfinished, "w", libver="latest") as file:
            _write(file, store, lost, val_fraction=val_fraction, seed=seed, progress=progress)
        write_lost(path.with_suffix(".lost.json"), lost)
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return lost


def _lost(store: EpisodeStore) -> dict[str, str]:
    lost = {}
    for name, stream in store.schema.streams.items():
        if stream.codec != "raw":
            lost[f"{name}, {stream.codec} bytes"] = (
                "pictures are written decoded; an import keeps them as PNG, pixels equal"
            )
    return lost


def _write(
    file: Any, store: EpisodeStore, lost: dict[str, str], *, val_fraction: float, seed: int, progress: Progress | None
) -> None:
    ids, total = store.ids(), 0
    masks: dict[str, list[str]] = {}
    imported: Mapping[str, Any] = {}
    data = file.create_group("data")
    for i, id in enumerate(ids):
        recording, episode = grid_episode(store, id, lost)
        group = data.create_group(f"demo_{i}")
        _write_demo(group, store, recording, episode, lost)
        source = episode.meta.extra.get("imported")
        source = source if isinstance(source, Mapping) else {}
        imported = imported or source
        for key in source.get("mask", []) if not val_fraction else []:
            masks.setdefault(str(key), []).append(f"demo_{i}")
        total += len(episode)
        if progress is not None:
            progress(i + 1, len(ids))
    if val_fraction:
        split = split_episodes(ids, val_fraction=val_fraction, seed=seed)
        masks = {"train": [f"demo_{i}" for i in split.train], "valid": [f"demo_{i}" for i in split.val]}
    for key, names in masks.items():
        file.create_dataset(f"mask/{key}", data=np.array(names, dtype="S"))
    data.attrs["total"] = total
    data.attrs["env_args"] = json.dumps(_env_args(store, imported))
    data.attrs[OWN] = json.dumps({"format": 1, "schema": store.schema.to_dict()})


def _env_args(store: EpisodeStore, imported: Mapping[str, Any]) -> Mapping[str, Any]:
    known = imported.get("env_args")
    if isinstance(known, Mapping) and known:
        return known
    kwargs = {"control_freq": store.spec.control_hz}
    return {"env_name": store.spec.name, "type": _GYM, "env_kwargs": kwargs}


def _write_demo(group: Any, store: EpisodeStore, recording: Recording, episode: Episode, lost: dict[str, str]) -> None:
    n = len(episode)
    _create(group, "actions", episode.action)
    _create(group, "rewards", episode.reward)
    final = episode.final_obs
    if final is None:
        lost["next_obs, last row"] = "where no observation followed the last action, it repeats the last one"
    for name, rows in episode.obs.items():
        _create(group, f"obs/{name}", rows)
        last = np.asarray(rows[n - 1]) if final is None else np.asarray(final[name])
        _create(group, f"next_obs/{name}", rows, skip=1, last=last)
    others: dict[str, Rows] = dict(episode.extras)
    others.update({k: getattr(episode, k) for k in ("action_executed", "by_human") if k in recording.streams})
    for name, rows in others.items():
        if name in _TAKEN:
            lost[name] = "robomimic has another meaning for that name, so it was left out"
        else:
            _create(group, name, rows)
    if "dones" not in others:
        _create(group, "dones", (np.arange(n) == n - 1).astype(np.int64))
    group.attrs["num_samples"] = n
    source = episode.meta.extra.get("imported")
    attrs = source.get("attrs") if isinstance(source, Mapping) else None
    if isinstance(attrs, Mapping) and isinstance(attrs.get("model_file"), str):
        group.attrs["model_file"] = attrs["model_file"]
    note = {
        "id": episode.id, "meta": meta_to_dict(episode.meta), "streams": sorted(recording.streams),
        "final_obs": final is not None,
    }  # fmt: skip
    # Attributes of more than 64 KiB need dense storage, which libver="latest" gives.
    group.attrs[OWN] = json.dumps(note)


def _create(group: Any, name: str, rows: Rows, *, skip: int = 0, last: np.ndarray | None = None) -> None:
    """Write rows a block at a time, without the first `skip` and with `last` behind them."""
    array = group.create_dataset(name, shape=rows.shape, dtype=rows.dtype)
    for start in range(skip, len(rows), _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(rows))
        array[start - skip : stop - skip] = np.asarray(rows[start:stop])
    if last is not None:
        array[len(rows) - skip] = last
