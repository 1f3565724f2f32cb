"""Driving with the keys of a terminal, over ssh too. Standard library only (termios, so not on Windows)."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from robot_rl.errors import ConfigError, TeleopError
from robot_rl.teleop.source import Event, Speeds, TeleopState

MOTION: Mapping[str, tuple[int, float]] = MappingProxyType({
    "w": (0, 1.0), "s": (0, -1.0), "a": (1, 1.0), "d": (1, -1.0), "r": (2, 1.0), "f": (2, -1.0),
    "u": (3, 1.0), "o": (3, -1.0), "i": (4, 1.0), "k": (4, -1.0), "j": (5, 1.0), "l": (5, -1.0),
})  # fmt: skip
"""Key -> axis of the twist (x, y, z, turns about x, y, z in the base frame) and direction."""

GRIPPER: Mapping[str, float] = MappingProxyType({"z": -1.0, "x": 1.0})

EVENTS: Mapping[str, Event] = MappingProxyType({
    "1": Event.START, "2": Event.SUCCESS, "3": Event.FAILURE, "4": Event.DISCARD, "5": Event.RESET, "t": Event.TOGGLE,
})  # fmt: skip

CLUTCH = " "
HELP = (
    "space: take or release the arm   w s a d r f: move x y z   u o i k j l: turn about x y z   z x: close, open\n"
    "1: start   2: success   3: failure   4: discard   5: reset done   t: keep the arm, or give it back   + -: speed"
)
_FASTER, _SLOWER = 1.25, 0.8


class KeyboardSource:
    """Keys that move the tool while they are held.

    A terminal tells of presses, not of releases, so a key counts as held for `hold_s` after each of its repeats; and
    an operator who touches nothing for `idle_s` has let go of the arm.

    Args:
        speeds: Speeds of the motion keys; `+` and `-` change them between a tenth and the whole.
        hold_s: How long a press moves.
        idle_s: Silence after which the clutch opens.
        fd: Terminal to read; standard input when `None`.

    Raises:
        ConfigError: A time is not positive.
    """

    def __init__(
        self, speeds: Speeds | None = None, *, hold_s: float = 0.15, idle_s: float = 5.0, fd: int | None = None
    ) -> None:
        if not (hold_s > 0 and idle_s > 0):
            raise ConfigError(f"`hold_s` and `idle_s` must be positive, got {hold_s} and {idle_s}")
        self._speeds = Speeds() if speeds is None else speeds
        self._hold_ns, self._idle_ns = round(hold_s * 1e9), round(idle_s * 1e9)
        self._fd = fd
        self._saved: list[Any] | None = None
        self._engaged = False
        self._gone = False
        self._share = 1.0
        self._pressed_ns: dict[str, int] = {}
        self._last_ns = 0

    @property
    def gone(self) -> bool:
        """Whether the terminal's other end was closed, after which no key comes any more."""
        return self._gone

    def open(self) -> None:
        """Take single keys from the terminal, without echo.

        Raises:
            TeleopError: Standard input is no terminal.
        """
        fd = sys.stdin.fileno() if self._fd is None else self._fd
        if not os.isatty(fd):
            raise TeleopError(
                "the keyboard source needs a terminal, and its input is none; start it in a shell of its own"
            )
        self._saved = termios.tcgetattr(fd)
        tty.setcbreak(fd)
        self._fd, self._gone, self._engaged = fd, False, False

    def poll(self, now_ns: int) -> TeleopState:
        """Return the motion of the keys held now."""
        events = []
        for key in self._read():
            self._last_ns = now_ns
            self._press(key, now_ns)
            if key in EVENTS:
                events.append(EVENTS[key])
        if self._gone or now_ns - self._last_ns > self._idle_ns:
            self._engaged = False
        held = [key for key, pressed in self._pressed_ns.items() if now_ns - pressed < self._hold_ns]
        axes, grip = np.zeros(6), 0.0
        for key in held:
            if key in MOTION:
                axis, direction = MOTION[key]
                axes[axis] += direction
            else:
                grip += GRIPPER[key]
        return TeleopState(
            stamp_ns=now_ns,
            engaged=self._engaged,
            twist=self._share * self._speeds.twist(axes),
            gripper_rate_m_s=self._speeds.gripper_m_s * grip,
            events=tuple(events),
        )

    def close(self) -> None:
        """Give the terminal back as it was."""
        if self._saved is not None and self._fd is not None and not self._gone:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
        self._saved = None

    def _press(self, key: str, now_ns: int) -> None:
        if key == CLUTCH:
            self._engaged = not self._engaged
        elif key in "+=":
            self._share = min(self._share * _FASTER, 1.0)
        elif key == "-":
            self._share = max(self._share * _SLOWER, 0.1)
        elif key in MOTION or key in GRIPPER:
            self._pressed_ns[key] = now_ns

    def _read(self) -> str:
        """Return the keys pressed since the last call."""
        if self._saved is None or self._fd is None or self._gone:
            return ""
        keys = b""
        while select.select([self._fd], [], [], 0)[0]:
            try:
                more = os.read(self._fd, 256)
            except OSError:  # the terminal's other end was closed
                more = b""
            if not more:
                self._gone = True
                break
            keys += more
        return keys.decode("utf-8", "ignore").lower()
