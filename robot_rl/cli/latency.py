"""The configuration's `latency`: a cell's measured latencies, as `robot-rl calibrate latency` wrote them."""

from __future__ import annotations

from collections.abc import Mapping

from calibration.files import MAX_AGE_DAYS, load_calibration
from robot_rl.data.align import Alignment, to_episode
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.latency_calibration import ACTION, LatencyCalibration
from robot_rl.values import Episode

WITH_ACTION = ("action_executed", "by_human")
"""Streams that say something about a command and are stamped with it."""


def read_latency(path: str | None, *, max_age_days: float | None = MAX_AGE_DAYS) -> LatencyCalibration:
    """Return what a latency file says; nothing is late where there is no file.

    Raises:
        ConfigError: Not a latency calibration.
        CalibrationError: Older than `max_age_days`.
    """
    if path is None:
        return LatencyCalibration()
    return LatencyCalibration.from_file(load_calibration(path, kind="latency", max_age_days=max_age_days))


def stream_latencies(path: str | None, store: EpisodeStore) -> dict[str, int]:
    """Return by how much each stream of a store is late [ns], with commands placed when the arm does them.

    The file may be of any age: it belongs to the recordings, and these may be old. A policy trained with it runs with
    the same file (`loop`, the policy node's `latency_file`), which sends its actions ahead. Empty where there is no
    file.

    Raises:
        ConfigError: Not a latency calibration, or it names a stream that the store does not have.
    """
    if path is None:
        return {}
    latency, streams = read_latency(path, max_age_days=None), store.schema.streams
    if unknown := sorted(set(latency.observation) - set(streams)):
        raise ConfigError(
            f"`latency` {path} names streams {unknown} that the store lacks; it has {sorted(streams)}. Calibrate with "
            "the store's names, or rename them in the file"
        )
    late = latency.alignment_ns(action=True)
    return {**late, **{name: late[ACTION] for name in WITH_ACTION}}


def aligned_episode(store: EpisodeStore, id: str, *, latency_ns: Mapping[str, int]) -> Episode:
    """Return an episode as it was captured and done; `latency_ns` may name streams that this one lacks.

    Raises:
        ConfigError: Latencies are given for an episode that was recorded on the control grid, where nothing is late.
    """
    if not latency_ns:
        return store.episode(id)
    recording = store.read(id)
    if recording.meta.on_grid:
        raise ConfigError(
            f"episode {id!r} was recorded on the control grid (a simulation), where nothing is late; `latency` is for "
            "recordings of a cell: give latency=null"
        )
    late = {name: late_ns for name, late_ns in latency_ns.items() if name in recording.streams}
    return to_episode(recording, store.spec, Alignment(latency_ns=late), id=id)
