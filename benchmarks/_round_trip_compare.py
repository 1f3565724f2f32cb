"""Two stores compared episode by episode, array by array: what is not the same after a round trip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_rl.data.store import EpisodeStore
from robot_rl.values import Episode

META = ("task", "outcome", "source", "terminated", "truncated", "seed", "policy_version", "calibration_id")


def compare(before: EpisodeStore, after: EpisodeStore) -> dict[str, str]:
    """Return field -> how it differs, over all episodes in the order of their ids; empty where nothing does."""
    a, b = before.ids(), after.ids()
    if len(a) != len(b):
        return {"episodes": f"{len(a)} became {len(b)}"}
    found: dict[str, str] = {} if a == b else {"id": f"{a[0]} became {b[0]}"}
    for old, new in zip(a, b, strict=True):
        for field, how in compare_episodes(before.episode(old), after.episode(new)).items():
            found.setdefault(field, how)
    return found


def arrays_of(episode: Episode) -> dict[str, np.ndarray]:
    """Return every array of an episode by field."""
    found = {f"obs/{name}": np.asarray(rows[:]) for name, rows in episode.obs.items()}
    if episode.final_obs is not None:
        found.update({f"final_obs/{name}": np.asarray(value) for name, value in episode.final_obs.items()})
    for name in ("action", "action_executed", "reward", "by_human"):
        found[name] = np.asarray(getattr(episode, name))
    found.update({f"extra/{name}": np.asarray(rows[:]) for name, rows in episode.extras.items()})
    found["stamp_ns"] = episode.stamp_ns
    found["stamp_ns from the first"] = episode.stamp_ns - episode.stamp_ns[0]
    return found


def compare_episodes(a: Episode, b: Episode) -> dict[str, str]:
    """Return field -> how it differs between two episodes."""
    found = difference(arrays_of(a), arrays_of(b))
    for name in META:
        if getattr(a.meta, name) != getattr(b.meta, name):
            found[f"meta/{name}"] = f"{getattr(a.meta, name)!r} became {getattr(b.meta, name)!r}"
    if _others(a) != _others(b):
        found["meta/extra"] = f"{sorted(_others(a))} became {sorted(_others(b))}"
    return found


def _others(episode: Episode) -> dict[str, Any]:
    """Return what is noted of an episode besides where it came from."""
    return {k: v for k, v in episode.meta.extra.items() if k not in ("imported", "replay_buffer", "bag")}


def difference(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return array -> how it differs: gone, new, another shape or dtype, or other values."""
    found = {name: "gone" for name in a if name not in b}
    found.update({name: "new" for name in b if name not in a})
    for name in (name for name in a if name in b):
        old, new = a[name], b[name]
        if old.shape != new.shape:
            found[name] = f"shape {old.shape} became {new.shape}"
        elif old.dtype != new.dtype:
            found[name] = f"{old.dtype} became {new.dtype}"
        elif old.tobytes() != new.tobytes():
            apart = np.abs(old.astype(float) - new.astype(float))
            found[name] = f"values differ by up to {np.nanmax(apart):.3g}"
    return found
