"""What a limit is, how it is read, and the two that are more than a number: the workspace box and braking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from robot_rl.errors import ConfigError

UNLIMITED = "unlimited"
"""The word that must be written where no limit is wanted."""

LimitValue = float | Sequence[float | str] | np.ndarray | str | None


def vector(name: str, value: LimitValue, width: int, unlimited: float, *, positive: bool = False) -> np.ndarray:
    """Read a limit as `width` numbers.

    Args:
        name: What to call it in messages.
        value: One number or the word `UNLIMITED`, or one of these per element.
        width: How many numbers are needed.
        unlimited: What `UNLIMITED` stands for.
        positive: Refuse negative numbers; zero is allowed and forbids motion.

    Raises:
        ConfigError: Missing, NaN, negative, another word, or the wrong number of elements.
    """
    array = np.array([_number(name, x, unlimited) for x in _elements(value)], dtype=np.float64)
    if len(array) not in (1, width):
        raise ConfigError(f"safety limit `{name}` must be one number or {width}, got {len(array)}")
    array = np.array(np.broadcast_to(array, (width,)))
    if np.isnan(array).any() or (positive and (array < 0).any()):
        wanted = "zero or more" if positive else "numbers"
        raise ConfigError(f"safety limit `{name}` must be {wanted}, got {array.tolist()}")
    return array


def _elements(value: LimitValue) -> Sequence[float | str | None]:
    """Return the elements of a limit, one where it is a single word or number."""
    if value is None or isinstance(value, str | int | float):
        return [value]
    return list(np.asarray(value).reshape(-1)) if isinstance(value, np.ndarray) else list(value)


def _number(name: str, value: float | str | None, unlimited: float) -> float:
    if value is None:
        raise ConfigError(
            f"safety limit `{name}` is missing (None); give a number, one per element, or the word {UNLIMITED!r}"
        )
    if isinstance(value, str):
        if value != UNLIMITED:
            raise ConfigError(f"safety limit `{name}` must be numbers or {UNLIMITED!r}, got {value!r}")
        return unlimited
    return float(value)


@dataclass(frozen=True)
class Workspace:
    """A box that one point of the arm must not leave.

    Args:
        forward: Forward kinematics: action [A] to the point [3] in metres.
        low: Lower corner [3] in metres.
        high: Upper corner [3] in metres.
    """

    forward: Callable[[np.ndarray], np.ndarray]
    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def __post_init__(self) -> None:
        low, high = (vector(f"workspace.{side}", getattr(self, side), 3, np.nan) for side in ("low", "high"))
        if (low > high).any():
            raise ConfigError(f"workspace box is empty: low {low.tolist()} lies above high {high.tolist()}")

    def contains(self, action: np.ndarray) -> bool:
        """Whether the point lies in the box; a kinematics that answers NaN says no."""
        point = np.asarray(self.forward(action))
        return bool(((point >= self.low) & (point <= self.high)).all())

    def pull_in(self, last: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Return `action` itself if it is inside, else the farthest of four fractions of the way, else `last`."""
        if self.contains(action):
            return action
        for fraction in (0.75, 0.5, 0.25):
            nearer = last + fraction * (action - last)
            if self.contains(nearer):
                return np.asarray(nearer)
        return last.copy()


def brake_speed(distance: np.ndarray, acceleration: np.ndarray, dt: float) -> np.ndarray:
    """Return the largest speed from which discrete braking still stops within `distance`.

    With u = a dt the largest speed lost in a step, a speed n u + r (0 <= r < u) covers
    dt ((n + 1) r + u n (n + 1) / 2) before it is zero. Solved for the speed, exactly, so that braking at full
    deceleration from this speed satisfies the same bound at the next step.

    Args:
        distance: Room left [A], not negative.
        acceleration: Largest deceleration [A]; infinite means that it may stop at once.
        dt: Control period in seconds.
    """
    room = np.maximum(distance, 0.0) / dt
    speed = np.array(room)
    speed[acceleration == 0] = np.inf  # never moves, so never has to brake
    finite = np.isfinite(acceleration) & (acceleration > 0) & np.isfinite(room)
    u, d = acceleration[finite] * dt, room[finite]
    n = np.floor((-1.0 + np.sqrt(1.0 + 8.0 * d / u)) / 2.0)
    speed[finite] = n * u + np.clip((d - u * n * (n + 1) / 2.0) / (n + 1), 0.0, u)
    return speed
