"""Driving with a 3Dconnexion SpaceMouse, through pyspacemouse (extra `teleop`)."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from robot_rl.errors import ConfigError, MissingExtraError, TeleopError
from robot_rl.teleop.source import Event, Speeds, TeleopState, with_deadband

log = logging.getLogger(__name__)

_RETRY_NS = 1_000_000_000


class CapState(Protocol):
    """What pyspacemouse reads, in ROS axes: x forward, y left, z up, and turns about them, from -1 to 1.

    `t` [s] changes with every report of the device.
    """

    t: float
    x: float
    y: float
    z: float
    roll: float
    pitch: float
    yaw: float

    @property
    def buttons(self) -> Sequence[int]:
        """One number per button, 1 while pressed."""


class Cap(Protocol):
    """The part of pyspacemouse's device that is used."""

    def read(self) -> CapState:
        """Return the newest state without waiting."""

    def close(self) -> None:
        """Give the device back."""


def open_spacemouse() -> Cap:
    """Open the first SpaceMouse, in ROS axes.

    Raises:
        MissingExtraError: pyspacemouse, or the hidapi library beneath it, is not installed.
        TeleopError: No SpaceMouse is plugged in, or this user may not read it.
    """
    try:
        pyspacemouse: Any = importlib.import_module("pyspacemouse")
    except (ImportError, OSError) as error:
        raise MissingExtraError("pyspacemouse (with the system's libhidapi)", "teleop") from error
    try:
        device: Cap = pyspacemouse.open(axis_convention=pyspacemouse.AxisConvention.ROS)
    except (RuntimeError, ValueError, OSError) as error:
        raise TeleopError(
            f"no SpaceMouse could be opened: {error}; plug it in, and let this user read its hidraw device (udev rule)"
        ) from error
    return device


class SpaceMouseSource:
    """A SpaceMouse: pushing the cap engages, letting it go releases; the two buttons close and open the gripper.

    Args:
        speeds: Speeds at full deflection.
        deadband: Share of each axis around rest that does nothing.
        hold_s: How long after the last push or button it still counts as engaged, so that a passage through rest does
            not let the arm go.
        silence_s: A cap that is pushed sends reports all the time; silence for longer means that it is gone.
        close_button: Closes the gripper while pressed.
        open_button: Opens it while pressed.
        events: Button -> event, for models with more than two buttons.
        open_device: Opens the device.

    Raises:
        ConfigError: `deadband` is not from 0 to below 1, or a time is negative.
    """

    def __init__(
        self,
        speeds: Speeds | None = None,
        *,
        deadband: float = 0.08,
        hold_s: float = 0.2,
        silence_s: float = 0.5,
        close_button: int = 0,
        open_button: int = 1,
        events: Mapping[int, Event] = MappingProxyType({}),
        open_device: Callable[[], Cap] = open_spacemouse,
    ) -> None:
        if not 0 <= deadband < 1 or not hold_s >= 0 or not silence_s > 0:
            raise ConfigError(
                f"need 0 <= deadband < 1, hold_s >= 0 and silence_s > 0, got {deadband}, {hold_s}, {silence_s}"
            )
        self._speeds = Speeds() if speeds is None else speeds
        self._deadband, self._hold_ns, self._silence_ns = deadband, round(hold_s * 1e9), round(silence_s * 1e9)
        self._close_button, self._open_button, self._button_events = close_button, open_button, dict(events)
        self._open_device = open_device
        self._device: Cap | None = None
        self._is_open = False
        self._used_ns: int | None = None
        self._report: tuple[float, int] = (0.0, 0)  # the newest report's own time, and when it was first seen
        self._retry_ns = 0
        self._pressed: frozenset[int] = frozenset()

    def open(self) -> None:
        """Find the SpaceMouse."""
        self._device = self._open_device()
        self._is_open = True

    def poll(self, now_ns: int) -> TeleopState:
        """Return the push on the cap."""
        state = self._read(now_ns)
        if state is None:
            self._used_ns = None
            return TeleopState(stamp_ns=now_ns)
        if state.t != self._report[0]:
            self._report = (state.t, now_ns)
        raw = (state.x, state.y, state.z, state.roll, state.pitch, state.yaw)
        axes = np.array([with_deadband(value, self._deadband) for value in raw])
        pressed = frozenset(i for i, down in enumerate(state.buttons) if down)
        events = tuple(self._button_events[i] for i in sorted(pressed - self._pressed) if i in self._button_events)
        self._pressed = pressed
        grip = float(self._open_button in pressed) - float(self._close_button in pressed)
        heard = now_ns - self._report[1] <= self._silence_ns
        if (axes.any() and heard) or grip != 0.0:
            self._used_ns = now_ns
        return TeleopState(
            stamp_ns=now_ns,
            engaged=self._used_ns is not None and now_ns - self._used_ns <= self._hold_ns,
            twist=self._speeds.twist(axes),
            gripper_rate_m_s=self._speeds.gripper_m_s * grip,
            events=events,
        )

    def close(self) -> None:
        """Give the SpaceMouse back."""
        device, self._device, self._is_open = self._device, None, False
        if device is not None:
            device.close()

    def _read(self, now_ns: int) -> CapState | None:
        """Return the newest state, or `None` while the device is gone; look for it again each second."""
        if self._device is None and now_ns >= self._retry_ns and self._is_open:
            self._retry_ns = now_ns + _RETRY_NS
            try:
                self._device = self._open_device()
            except TeleopError:
                log.info("still no SpaceMouse")
        if self._device is None:
            return None
        try:
            return self._device.read()
        except Exception as error:  # hidapi's own exception class is not public; any failure means it is gone
            log.warning("the SpaceMouse is gone: %s", error)
            self._device, self._retry_ns = None, now_ns + _RETRY_NS
            return None
