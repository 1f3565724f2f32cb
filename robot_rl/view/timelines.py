"""The three clocks that everything shown is placed on: seconds since the episode began, capture stamp, control step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_rl.data.align import Alignment, to_episode
from robot_rl.errors import SpecError
from robot_rl.specs import RobotSpec
from robot_rl.values import Episode, Recording
from robot_rl.view.sdk import rerun

TIME, STAMP, STEP = "time", "stamp", "step"


@dataclass(frozen=True)
class Clock:
    """Turns stamps into places on the timelines.

    Args:
        start_ns: Stamp of the recording's first sample, zero of `time`.
        end_ns: Stamp of its last sample.
        tick_ns: int64 [N], the control clock's ticks; a sample's `step` is the newest tick at or before it, -1 when it
            came before the first.
    """

    start_ns: int
    end_ns: int
    tick_ns: np.ndarray

    def columns(self, stamp_ns: Sequence[int] | np.ndarray) -> list[Any]:
        """Return Rerun's time columns for samples with these stamps."""
        rr = rerun()
        stamps = np.asarray(stamp_ns, np.int64)
        return [
            rr.TimeColumn(TIME, duration=(stamps - self.start_ns).astype("timedelta64[ns]")),
            rr.TimeColumn(STAMP, timestamp=stamps.astype("datetime64[ns]")),
            rr.TimeColumn(STEP, sequence=np.searchsorted(self.tick_ns, stamps, side="right") - 1),
        ]

    def place(self, log: Any, stamp_ns: int) -> None:
        """Set the times of what a recording stream logs next."""
        log.set_time(TIME, duration=np.timedelta64(stamp_ns - self.start_ns, "ns"))
        log.set_time(STAMP, timestamp=np.datetime64(stamp_ns, "ns"))
        log.set_time(STEP, sequence=int(np.searchsorted(self.tick_ns, stamp_ns, side="right")) - 1)


def clock_of(recording: Recording, episode: Episode | None) -> Clock:
    """Return the clock of a recording; its ticks are the commands' stamps where it cannot be aligned.

    Raises:
        SpecError: The recording has no sample at all.
    """
    filled = [stream.stamp_ns for stream in recording.streams.values() if len(stream)]
    if not filled:
        raise SpecError(f"the recording has no sample; its streams are {sorted(recording.streams)}")
    ticks = recording.streams["action"].stamp_ns if episode is None else episode.stamp_ns
    return Clock(min(int(s[0]) for s in filled), max(int(s[-1]) for s in filled), ticks)


def try_align(recording: Recording, spec: RobotSpec, id: str) -> tuple[Episode | None, str]:
    """Return the episode seen from the control clock, or `None` and why it cannot be; it is shown all the same."""
    try:
        return to_episode(recording, spec, Alignment(), id=id), ""
    except SpecError as error:
        return None, str(error)
