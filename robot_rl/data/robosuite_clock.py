"""How the states and the actions of raw robosuite demonstrations go together, told by the simulator's clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robot_rl.data.hdf5_demos import DemoFile

_LATE = 1.5
"""A state later than this many periods after the one before it is told of."""


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """How rows go together.

    Args:
        first: The first action with a state before it: 1 where states were saved after each action, else 0.
        control_hz: Rate of the actions in hertz: as stated, else the mean rate of the clock, late states apart.
    """

    first: int
    control_hz: float


def pair(demos: DemoFile, times: Mapping[int, np.ndarray], stated_hz: float | None) -> Pairing:
    """Return how states and actions of a file go together; what is odd about the clock becomes a defect.

    Args:
        demos: The file.
        times: Number of a demonstration -> the clock at each of its states in seconds, [N].
        stated_hz: The control rate, where somebody says so.

    Raises:
        DataFormatError: The clock does not run and nobody says the rate.
    """
    steps = [np.diff(own) for own in times.values() if len(own) > 1]
    clock = np.concatenate(steps) if steps else np.empty(0)
    period = float(np.median(clock)) if len(clock) else 0.0
    if not period > 0 and (stated_hz is None or not stated_hz > 0):
        raise demos.refuse(
            "data/*/states", "the clock in column 0 does not run, so there is no control rate",
            "give the rate of the actions in hertz with import.fps=<hz>",
        )  # fmt: skip
    if not period > 0:
        return Pairing(first=0, control_hz=float(stated_hz or 0.0))
    _tell(demos, times, clock, period)
    measured = 1.0 / float(clock[(clock > 0) & (clock <= _LATE * period)].mean())
    if stated_hz is not None and abs(measured / stated_hz - 1) > 0.1:
        demos.add(
            "warning", "data/*/states", f"the clock gives {measured:.4g} Hz, the settings {stated_hz:.4g} Hz",
            "the settings were believed",
        )  # fmt: skip
    starts = [float(own[0]) for own in times.values() if len(own)]
    after = float(np.median(starts)) > 0.5 * period
    return Pairing(first=int(after), control_hz=round(measured, 3) if stated_hz is None else float(stated_hz))


def _tell(demos: DemoFile, times: Mapping[int, np.ndarray], clock: np.ndarray, period: float) -> None:
    steps = {index: np.diff(own) for index, own in times.items()}
    if late := [index for index, step in steps.items() if (step > _LATE * period).any()]:
        count = int((clock > _LATE * period).sum())
        demos.add(
            "warning", "data/*/states", f"{count} of {len(clock)} states come over {_LATE} periods after the last",
            "they were taken as evenly spaced, the true times are in stream `sim_time`", late,
        )  # fmt: skip
    if back := [index for index, step in steps.items() if (step <= 0).any()]:
        demos.add(
            "warning", "data/*/states", "the clock stands still or steps back inside a demonstration",
            "look whether several attempts were joined there", back,
        )  # fmt: skip
