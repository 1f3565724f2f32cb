"""What every export into rows does first: an episode as rows of the control clock, and a list of what that loses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from robot_rl.data.align import Alignment, to_episode
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import DataFormatError, SpecError
from robot_rl.values import Episode, Recording


def grid_episode(store: EpisodeStore, id: str, lost: dict[str, str]) -> tuple[Recording, Episode]:
    """Return an episode as recorded and as rows of the control clock; what is lost on the way is added to `lost`.

    Raises:
        DataFormatError: Its streams do not overlap in time.
    """
    recording = store.read(id)
    try:
        episode = to_episode(recording, store.spec, Alignment(), id=id)
    except SpecError as error:
        raise DataFormatError(f"episode {id}: {error}") from error
    hz = store.spec.control_hz
    lost["stamp_ns"] = f"the time of capture; row i is due at i / {hz:g} s"
    if not recording.meta.on_grid:
        lost["samples between ticks"] = f"streams of other rates are seen from the {hz:g} Hz control clock"
    if not episode.valid.all():
        lost["valid"] = "rows where an observation or a command was missing are written like the others"
    return recording, replace(episode, meta=replace(episode.meta, on_grid=True))


def write_lost(path: Path, lost: Mapping[str, str]) -> None:
    """Write what an export loses: field -> why."""
    path.write_text(json.dumps(dict(lost), indent=1) + "\n", encoding="utf-8")
