"""Parts of a recording between two times.

A part holds the commands stamped in [start, stop) and what goes with them. Of observations, and off the control grid of
everything that holds until the next sample (not the reward, which is an event), it also holds the sample in force at
`start`, so that the first tick sees what it saw in the whole. Observations go on for one control step after `stop`, so
that the last command has its next observation (`final_obs` of the part). Stamps stay what they are. Neighbouring parts
thus share a few samples; `join` drops them again.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from robot_rl.data.mend.episodes import part
from robot_rl.errors import SpecError
from robot_rl.specs import RobotSpec
from robot_rl.values import Recording, RecordingMeta


def span(recording: Recording, spec: RobotSpec) -> tuple[int, int]:
    """Return when an episode begins and ends in ns: first sample of any stream, one step after the last command."""
    begins = [int(stream.stamp_ns[0]) for stream in recording.streams.values() if len(stream)]
    return min(begins), int(recording.streams["action"].stamp_ns[-1]) + spec.step_ns


def moment(recording: Recording, spec: RobotSpec, amount: float, unit: str) -> int:
    """Return the stamp that lies `amount` seconds (`s`) or commands (`steps`) after the beginning.

    Raises:
        SpecError: It lies outside of the episode, or the unit is unknown.
    """
    begin, end = span(recording, spec)
    stamps = recording.streams["action"].stamp_ns
    if unit == "s":
        stamp = begin + round(amount * 1e9)
    elif unit == "steps":
        if amount != int(amount):
            raise SpecError(f"a number of steps must be whole, got {amount}")
        index = int(amount)
        stamp = int(stamps[index]) if 0 <= index < len(stamps) else begin - 1 if index < 0 else end
    else:
        raise SpecError(f"`unit` must be `s` or `steps`, got {unit!r}")
    if not begin <= stamp < end:
        length = f"{(end - begin) / 1e9:.3f} s" if unit == "s" else f"{len(stamps)} steps"
        raise SpecError(f"{amount} {unit} lies outside of the episode, which has {length}")
    return stamp


def cut(recording: Recording, spec: RobotSpec, start_ns: int | None, stop_ns: int | None) -> Recording:
    """Return the part of a recording in [start, stop), its labels unchanged; `None` means its own beginning or end.

    Raises:
        SpecError: No command or no sample of a required observation lies in it.
    """
    rows = _rows_on_grid if recording.meta.on_grid else _rows
    streams = {name: part(s, *rows(recording, name, spec, start_ns, stop_ns)) for name, s in recording.streams.items()}
    inside = streams["action"].stamp_ns
    if start_ns is not None and (len(inside) == 0 or inside[-1] < start_ns):
        raise SpecError(f"no command lies in the part from {start_ns} ns to {stop_ns} ns; a part needs one or more")
    lacking = [name for name in (*spec.obs, "action") if len(streams[name]) == 0]
    if lacking:
        raise SpecError(f"streams {lacking} have no sample in the part from {start_ns} ns to {stop_ns} ns")
    return Recording({name: stream for name, stream in streams.items() if len(stream)}, recording.meta)


def _rows_on_grid(
    recording: Recording, name: str, spec: RobotSpec, start_ns: int | None, stop_ns: int | None
) -> tuple[int, int]:
    stamps = recording.streams["action"].stamp_ns
    start = 0 if start_ns is None else int(np.searchsorted(stamps, start_ns))
    own = len(recording.streams[name])
    if stop_ns is None:
        return start, own
    stop = int(np.searchsorted(stamps, stop_ns))
    return start, min(stop + (name in spec.obs), own)


def _rows(
    recording: Recording, name: str, spec: RobotSpec, start_ns: int | None, stop_ns: int | None
) -> tuple[int, int]:
    stamps = recording.streams[name].stamp_ns
    start, stop = 0, len(stamps)
    if start_ns is not None and name == "reward":
        start = int(np.searchsorted(stamps, start_ns))
    elif start_ns is not None:
        start = max(int(np.searchsorted(stamps, start_ns, side="right")) - 1, 0)
    if stop_ns is not None and name in spec.obs:
        stop = int(np.searchsorted(stamps, stop_ns + spec.step_ns, side="right"))
    elif stop_ns is not None:
        stop = int(np.searchsorted(stamps, stop_ns))
    return start, max(start, stop)


def part_meta(meta: RecordingMeta, *, own_end: bool, outcome: str | None) -> RecordingMeta:
    """Return the labels of a part.

    A part that ends where the whole ends keeps its labels. One that ends at a cut was truncated there, and how it ended
    is unknown unless `outcome` says it; `keep` keeps the label of the whole. The recorder's verdict was about the whole
    and is left out.
    """
    extra = {key: value for key, value in meta.extra.items() if key != "quality"}
    if outcome is None:
        outcome = meta.outcome if own_end else "unknown"
    elif outcome == "keep":
        outcome = meta.outcome
    ended = {} if own_end else {"terminated": False, "truncated": True}
    return replace(meta, outcome=outcome, extra=extra, **ended)  # type: ignore[arg-type]
