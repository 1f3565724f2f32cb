"""The protocol of teleoperation devices, and what each of them says when polled."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

import numpy as np

from robot_rl.errors import ConfigError, SpecError


class Event(Enum):
    """Something an operator says once: about the episode, or `TOGGLE`: take the arm and keep it, or give it back."""

    START = "start"
    SUCCESS = "success"
    FAILURE = "failure"
    DISCARD = "discard"
    RESET = "reset"
    TOGGLE = "toggle"


@dataclass(frozen=True, kw_only=True)
class TeleopState:
    """What a device says at one moment.

    Args:
        stamp_ns: When this was true, on the clock that `poll` is given.
        engaged: The operator wants to drive now (clutch closed, deadman held).
        twist: Wanted motion of the tool in the base frame: linear [m/s], then angular [rad/s], [6].
        joints: Wanted joint angles [rad], instead of a twist.
        gripper_width_m: Wanted opening of the gripper.
        gripper_rate_m_s: Wanted change of the opening, instead of a width.
        events: What was said since the last poll, oldest first.

    Raises:
        SpecError: NaN, infinity, a wrong shape, a negative width, or two ways at once to say the same thing.
    """

    stamp_ns: int
    engaged: bool = False
    twist: np.ndarray | None = None
    joints: np.ndarray | None = None
    gripper_width_m: float | None = None
    gripper_rate_m_s: float | None = None
    events: tuple[Event, ...] = ()

    def __post_init__(self) -> None:
        if self.twist is not None and self.joints is not None:
            raise SpecError("a teleop state moves either by `twist` or to `joints`, got both")
        if self.gripper_width_m is not None and self.gripper_rate_m_s is not None:
            raise SpecError("a teleop state gives either `gripper_width_m` or `gripper_rate_m_s`, got both")
        if self.twist is not None and np.shape(self.twist) != (6,):
            raise SpecError(f"`twist` must have 6 elements [m/s, rad/s], got shape {np.shape(self.twist)}")
        if self.joints is not None and np.ndim(self.joints) != 1:
            raise SpecError(f"`joints` must be a vector [rad], got shape {np.shape(self.joints)}")
        for name in ("twist", "joints", "gripper_width_m", "gripper_rate_m_s"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value).all():
                raise SpecError(f"`{name}` must be finite, got {np.asarray(value).tolist()}; mend the device's driver")
        if self.gripper_width_m is not None and self.gripper_width_m < 0:
            raise SpecError(f"`gripper_width_m` must not be negative, got {self.gripper_width_m}")


@runtime_checkable
class TeleopSource(Protocol):
    """A device: keyboard, gamepad, SpaceMouse, leader arm, or a script in place of a person.

    `poll` never waits and never raises because the device went away: it then says "not engaged", and the device may
    come back. The contract test kit is `tests/contracts/teleop_source.py`.
    """

    def open(self) -> None:
        """Begin to listen; raises `TeleopError` or `MissingExtraError` saying what is missing."""

    def poll(self, now_ns: int) -> TeleopState:
        """Return what the device says now, and the events since the last poll, each of them once."""

    def close(self) -> None:
        """Give the device back as it was. Calling it twice, or before `open`, is allowed."""


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Speed of the tool and the gripper at full deflection of a device.

    Args:
        linear_m_s: Of the tool's position.
        angular_rad_s: Of its orientation.
        gripper_m_s: Of the gripper's opening.

    Raises:
        ConfigError: A speed is negative or not finite; zero switches that motion off.
    """

    linear_m_s: float = 0.15
    angular_rad_s: float = 0.8
    gripper_m_s: float = 0.1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < float("inf"):
                raise ConfigError(f"`{name}` must be zero or more, got {value}")

    def twist(self, axes: np.ndarray) -> np.ndarray:
        """Return the twist [6] for deflections [6] from -1 to 1: x, y, z, then turns about x, y, z.

        A diagonal push is not faster than a straight one.
        """
        linear, angular = _within_unit(axes[:3]), _within_unit(axes[3:])
        return np.concatenate([self.linear_m_s * linear, self.angular_rad_s * angular])


def with_deadband(deflection: float, deadband: float) -> float:
    """Return a deflection from -1 to 1 without its dead middle, continuous at the edge and still 1 at the end."""
    size = (abs(deflection) - deadband) / (1.0 - deadband)
    return float(np.sign(deflection) * min(max(size, 0.0), 1.0))


def _within_unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector, dtype=np.float64) / max(float(np.linalg.norm(vector)), 1.0)
