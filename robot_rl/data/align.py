"""The control clock's view of a recording, as index arrays: which sample each tick sees, which command it gives.

An observation is the newest sample at or before the tick, by capture time (stamp minus the stream's latency).
`action[n]` is the first command stamped in [t_n, t_n+1), else the one in force. Nothing is copied or interpolated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from robot_rl.data.rows import RowView
from robot_rl.errors import SpecError
from robot_rl.specs import RobotSpec
from robot_rl.values import Episode, Obs, Recording, Rows, Stream


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How to look at a recording from the control clock.

    Args:
        latency_ns: Per stream, how much later than capture its stamps are.
        max_age_ns: How old an observation may be at its tick, per stream or for all; older ones make the tick
            invalid. `None` means any age.
        control_hz: Rate of the control clock in hertz; `None` is the robot's own.
    """

    latency_ns: Mapping[str, int] = field(default_factory=dict)
    max_age_ns: Mapping[str, int] | int | None = None
    control_hz: float | None = None


@dataclass(frozen=True, kw_only=True)
class AlignedIndex:
    """Rows of each stream by tick; N ticks.

    `on_grid` says that the rows are the identity; `obs[name]` int64[N]; `final` one row per observation, or `None`
    when the recording ends before the tick after the last action; `action` int64[N]; `held[name]` int64[N] for
    streams that go with the action; `valid` bool[N].
    """

    on_grid: bool
    stamp_ns: np.ndarray
    obs: Mapping[str, np.ndarray]
    final: Mapping[str, int] | None
    action: np.ndarray
    held: Mapping[str, np.ndarray]
    valid: np.ndarray


def align(recording: Recording, spec: RobotSpec, alignment: Alignment) -> AlignedIndex:
    """Return which rows each tick of the control clock sees.

    Ticks run from the first time all observations exist to the last command. A recording born on the grid maps by
    identity, unless another rate is asked for.

    Raises:
        SpecError: A stream lacks, a setting names an unknown stream, or the streams do not overlap in time.
    """
    streams = recording.streams
    lacking = [name for name in (*spec.obs, "action") if name not in streams]
    if lacking:
        raise SpecError(f"cannot align: the recording lacks streams {lacking}; it has {sorted(streams)}")
    bounds = alignment.max_age_ns if isinstance(alignment.max_age_ns, Mapping) else {}
    unknown = sorted({*alignment.latency_ns, *bounds} - {*streams})
    if unknown:
        raise SpecError(f"alignment names streams {unknown} that the recording lacks; it has {sorted(streams)}")
    if recording.meta.on_grid and alignment.control_hz in (None, spec.control_hz):
        return _identity(streams, spec)
    return _on_clock(streams, spec, alignment)


def _identity(streams: Mapping[str, Stream], spec: RobotSpec) -> AlignedIndex:
    n = len(streams["action"])
    rows = np.arange(n)
    final = {name: n for name in spec.obs} if all(len(streams[name]) > n for name in spec.obs) else None
    return AlignedIndex(
        on_grid=True,
        stamp_ns=streams["action"].stamp_ns,
        obs=dict.fromkeys(spec.obs, rows),
        final=final,
        action=rows,
        held={name: rows for name in streams if name not in spec.obs},
        valid=np.ones(n, bool),
    )


def _on_clock(streams: Mapping[str, Stream], spec: RobotSpec, alignment: Alignment) -> AlignedIndex:
    captured = {name: s.stamp_ns - alignment.latency_ns.get(name, 0) for name, s in streams.items()}
    empty = [name for name in (*spec.obs, "action") if len(captured[name]) == 0]
    if empty:
        raise SpecError(f"cannot align: streams {empty} have no sample")
    start = max([int(captured[name][0]) for name in spec.obs] or [int(captured["action"][0])])
    end = int(captured["action"][-1])
    if end < start:
        raise SpecError(
            f"cannot align: the last command ({end} ns) comes before all observations exist ({start} ns); "
            "the streams do not overlap, check their clocks and latencies"
        )
    step = spec.step_ns if alignment.control_hz is None else round(1e9 / alignment.control_hz)
    ticks = start + step * np.arange((end - start) // step + 1)
    obs = {name: np.searchsorted(captured[name], ticks, side="right") - 1 for name in spec.obs}
    valid = captured["action"][0] < ticks + step
    for name in spec.obs:
        bound = _bound(alignment, name)
        if bound is not None:
            valid &= ticks - captured[name][obs[name]] <= bound
    return AlignedIndex(
        on_grid=False,
        stamp_ns=ticks,
        obs=obs,
        final=_final(captured, spec, int(ticks[-1]) + step, alignment),
        action=_first_or_held(captured["action"], ticks, step),
        held={n: _first_or_held(captured[n], ticks, step) for n in streams if n not in spec.obs and len(captured[n])},
        valid=valid,
    )


def _bound(alignment: Alignment, name: str) -> int | None:
    if isinstance(alignment.max_age_ns, Mapping):
        return alignment.max_age_ns.get(name)
    return alignment.max_age_ns


def _first_or_held(stamps: np.ndarray, ticks: np.ndarray, step: int) -> np.ndarray:
    """Return the first sample in [tick, tick + step), else the newest before it, else the first of all."""
    first = np.searchsorted(stamps, ticks, side="left")
    inside = np.append(stamps, np.iinfo(np.int64).max)[first] < ticks + step
    return np.maximum(np.where(inside, first, first - 1), 0)


def _final(
    captured: Mapping[str, np.ndarray], spec: RobotSpec, tick: int, alignment: Alignment
) -> dict[str, int] | None:
    """Return the newest rows at the tick after the last action, if each stream still ran then."""
    rows = {}
    for name in spec.obs:
        stamps = captured[name]
        rows[name] = int(np.searchsorted(stamps, tick, side="right")) - 1
        period = int(np.median(np.diff(stamps))) if len(stamps) > 1 else 0
        bound = _bound(alignment, name)
        too_old = bound is not None and tick - stamps[rows[name]] > bound
        if too_old or tick - stamps[-1] > period:
            return None
    return rows


def to_episode(recording: Recording, spec: RobotSpec, alignment: Alignment, *, id: str = "") -> Episode:
    """Return the recording seen from the control clock. Observations stay where they are until indexed.

    What was not recorded takes its neutral value: `action_executed` the action, `reward` 0, `by_human` false. Off the
    grid, `reward[n]` is the sum of the rewards stamped in [t_n, t_n+1).

    Raises:
        SpecError: As `align`.
    """
    index, streams = align(recording, spec, alignment), recording.streams
    action = streams["action"].data[index.action]
    known = {*spec.obs, "action", "action_executed", "reward", "by_human"}
    executed = _held(streams, index, "action_executed")
    by_human = _held(streams, index, "by_human")
    final: Obs | None = None
    if index.final is not None:
        final = {name: np.array(streams[name].data[row]) for name, row in index.final.items()}
    return Episode(
        id=id,
        stamp_ns=index.stamp_ns,
        obs={name: RowView(streams[name].data, rows) for name, rows in index.obs.items()},
        final_obs=final,
        action=action,
        action_executed=action if executed is None else executed,
        reward=_reward(recording, index, alignment),
        by_human=np.zeros(len(action), bool) if by_human is None else by_human,
        valid=index.valid,
        terminated=recording.meta.terminated,
        truncated=recording.meta.truncated,
        meta=recording.meta,
        extras={n: _view(streams[n].data, rows) for n, rows in index.held.items() if n not in known},
    )


def _view(rows: Rows, index: np.ndarray) -> Rows:
    return RowView(rows, index)


def _held(streams: Mapping[str, Stream], index: AlignedIndex, name: str) -> np.ndarray | None:
    return streams[name].data[index.held[name]] if name in index.held else None


def _reward(recording: Recording, index: AlignedIndex, alignment: Alignment) -> np.ndarray:
    n = len(index.stamp_ns)
    if "reward" not in index.held:
        return np.zeros(n, np.float32)
    stream = recording.streams["reward"]
    reward = np.asarray(stream.data[:])
    if index.on_grid:
        return reward
    stamps = stream.stamp_ns - alignment.latency_ns.get("reward", 0)
    total = np.concatenate(([0.0], np.cumsum(reward, dtype=np.float64)))
    until = np.append(np.searchsorted(stamps, index.stamp_ns[1:], side="left"), len(stamps))
    since = np.searchsorted(stamps, index.stamp_ns, side="left")
    return np.asarray(total[until] - total[since], np.float32)
