"""Driving with a gamepad, through pygame (SDL): a deadman button, two sticks, triggers for up and down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from robot_rl.errors import ConfigError, MissingExtraError, TeleopError
from robot_rl.teleop.source import Event, Speeds, TeleopState, with_deadband

AxisMap = Mapping[int, tuple[int, float]]

_EVENTS = {
    7: Event.START, 2: Event.SUCCESS, 3: Event.FAILURE, 6: Event.DISCARD, 8: Event.RESET, 5: Event.TOGGLE,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GamepadLayout:
    """Which control does what. The defaults fit pads that SDL shows in the Xbox order.

    Args:
        axes: Stick axis -> axis of the twist (x, y, z, turns about x, y, z) and sign.
        deadman: Button that must be held to drive (left bumper).
        open_button: Opens the gripper while held (B).
        close_button: Closes it while held (A).
        up: Trigger axis that lifts, resting at -1; `None` for none.
        down: Trigger axis that lowers.
        events: Button -> event.
    """

    axes: AxisMap = field(default_factory=lambda: {0: (1, -1.0), 1: (0, -1.0), 3: (5, -1.0), 4: (4, 1.0)})
    deadman: int = 4
    open_button: int = 1
    close_button: int = 0
    up: int | None = 5
    down: int | None = 2
    events: Mapping[int, Event] = field(default_factory=lambda: dict(_EVENTS))


_SLACK = 0.1
"""How far from its rest a stick or trigger may stand and still count as resting."""


class GamepadSource:
    """A gamepad. Unplugged, it says "not engaged"; plugged in again, it goes on, once the deadman was let go.

    Args:
        speeds: Speeds at full deflection.
        layout: Which control does what.
        index: Which gamepad, in the order of SDL.
        deadband: Share of a stick's way in the middle that does nothing.

    Raises:
        ConfigError: `deadband` is not from 0 to below 1.
    """

    def __init__(
        self,
        speeds: Speeds | None = None,
        *,
        layout: GamepadLayout | None = None,
        index: int = 0,
        deadband: float = 0.1,
    ) -> None:
        if not 0 <= deadband < 1:
            raise ConfigError(f"`deadband` must be from 0 to below 1, got {deadband}")
        self._speeds = Speeds() if speeds is None else speeds
        self._layout = GamepadLayout() if layout is None else layout
        self._index, self._deadband = index, deadband
        self._pygame: ModuleType | None = None
        self._pad: Any = None
        self._armed = False
        self._rested: set[int] = set()

    def open(self) -> None:
        """Find the gamepad.

        Raises:
            MissingExtraError: pygame is not installed.
            TeleopError: There is no such gamepad.
        """
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # the pad needs SDL's events, nobody needs a window
        os.environ.setdefault("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "1")
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            import pygame
        except ImportError as error:
            raise MissingExtraError("pygame", "teleop") from error
        pygame.display.init()
        pygame.joystick.init()
        self._pygame = pygame
        pygame.event.pump()
        count = pygame.joystick.get_count()
        if self._index >= count:
            self.close()
            raise TeleopError(f"there is no gamepad {self._index}; SDL sees {count}; plug it in, then start again")
        self._take()

    def poll(self, now_ns: int) -> TeleopState:
        """Return the motion of the sticks, if the deadman is held."""
        if self._pygame is None:
            return TeleopState(stamp_ns=now_ns)
        events = self._events(self._pygame)
        if self._pad is None:
            return TeleopState(stamp_ns=now_ns, events=events)
        layout = self._layout
        deadman = self._button(layout.deadman)
        self._armed = self._armed or not deadman
        axes = np.zeros(6)
        for stick, (axis, sign) in layout.axes.items():
            axes[axis] += sign * with_deadband(self._axis(stick, rest=0.0), self._deadband)
        axes[2] += self._trigger(layout.up) - self._trigger(layout.down)
        grip = float(self._button(layout.open_button)) - float(self._button(layout.close_button))
        return TeleopState(
            stamp_ns=now_ns,
            engaged=deadman and self._armed,
            twist=self._speeds.twist(axes),
            gripper_rate_m_s=self._speeds.gripper_m_s * grip,
            events=events,
        )

    def close(self) -> None:
        """Give the gamepad back."""
        if self._pygame is not None:
            self._pad = None
            self._pygame.joystick.quit()
            self._pygame.display.quit()
            self._pygame = None

    def _events(self, pygame: ModuleType) -> tuple[Event, ...]:
        """Take what happened since the last poll: buttons with a meaning, and the pad's coming and going."""
        said = []
        for event in pygame.event.get():
            if event.type == pygame.JOYDEVICEREMOVED and self._is_ours(event):
                self._pad = None
            elif event.type == pygame.JOYDEVICEADDED and self._pad is None:
                self._take()
            elif event.type == pygame.JOYBUTTONDOWN and self._is_ours(event) and event.button in self._layout.events:
                said.append(self._layout.events[event.button])
        return tuple(said)

    def _take(self) -> None:
        pygame = self._pygame
        if pygame is not None and self._index < pygame.joystick.get_count():
            self._pad = pygame.joystick.Joystick(self._index)
            self._pad.init()
            self._armed = False  # a deadman held (or stuck) from the start does not count
            self._rested.clear()

    def _is_ours(self, event: Any) -> bool:
        return self._pad is not None and event.instance_id == self._pad.get_instance_id()

    def _button(self, number: int) -> bool:
        return number < self._pad.get_numbuttons() and bool(self._pad.get_button(number))

    def _trigger(self, axis: int | None) -> float:
        """Return a trigger's way from 0 to 1."""
        return 0.0 if axis is None else with_deadband((self._axis(axis, rest=-1.0) + 1.0) / 2.0, self._deadband)

    def _axis(self, number: int, *, rest: float) -> float:
        """Return where an axis stands, from -1 to 1; its rest until it was seen there once.

        A layout that does not fit the pad takes a trigger, resting at -1, for a stick: it must not move the arm. And
        SDL shows a trigger that was never moved in its middle.
        """
        if number >= self._pad.get_numaxes():
            return rest
        value = float(self._pad.get_axis(number))
        if abs(value - rest) <= max(self._deadband, _SLACK):
            self._rested.add(number)
        return value if number in self._rested else rest
