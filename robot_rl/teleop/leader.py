"""Driving by moving another arm: its joint angles, mapped to ours."""

from __future__ import annotations

import threading

import numpy as np

from robot_rl.errors import ConfigError, SpecError
from robot_rl.teleop.source import TeleopSource, TeleopState


class LeaderSource:
    """A leader arm whose joint states are handed in by `push` and come out as `scale * angle + offset`.

    Leaders have no clutch of their own, so another device may lend its own (a foot pedal read as a gamepad, a
    keyboard), with its events. Without one the leader is engaged whenever it is alive. `JointMapper` makes the clutch
    engage from here: the follower moves by what the leader moves from the moment of engaging on.

    Args:
        n_joints: J.
        scale: Follower radians per leader radian, one number or one per joint; negative where axes oppose.
        offset_rad: Follower angle at the leader's zero, likewise.
        gripper_range: Leader's gripper reading when closed and when open; `None` for a leader without one.
        gripper_width_m: The follower's opening when open.
        timeout_s: Silence of the leader after which it is not engaged.
        clutch: Device whose clutch and events are used.

    Raises:
        ConfigError: A setting is not finite, has the wrong length, or a range is empty.
    """

    def __init__(
        self,
        n_joints: int,
        *,
        scale: float | np.ndarray = 1.0,
        offset_rad: float | np.ndarray = 0.0,
        gripper_range: tuple[float, float] | None = None,
        gripper_width_m: float = 0.08,
        timeout_s: float = 0.1,
        clutch: TeleopSource | None = None,
    ) -> None:
        self._n = n_joints
        self._scale = _per_joint("scale", scale, n_joints)
        self._offset = _per_joint("offset_rad", offset_rad, n_joints)
        if gripper_range is not None and (gripper_range[0] == gripper_range[1] or not np.isfinite(gripper_range).all()):
            raise ConfigError(f"`gripper_range` must be two different readings, got {gripper_range}")
        if not timeout_s > 0 or not gripper_width_m >= 0:
            raise ConfigError(f"need timeout_s > 0 and gripper_width_m >= 0, got {timeout_s}, {gripper_width_m}")
        self._gripper_range, self._width = gripper_range, gripper_width_m
        self._timeout_ns = round(timeout_s * 1e9)
        self._clutch = clutch
        self._lock = threading.Lock()
        self._newest: tuple[int, np.ndarray, float | None] | None = None

    def push(self, stamp_ns: int, joint_position: np.ndarray, gripper: float | None = None) -> None:
        """Take a joint state of the leader, from any thread.

        Args:
            stamp_ns: When it was received, on the clock of `poll`.
            joint_position: Angles [rad], [J].
            gripper: Its gripper's reading.

        Raises:
            SpecError: Wrong shape, or not finite.
        """
        q = np.array(joint_position, dtype=np.float64)
        if q.shape != (self._n,) or not np.isfinite(q).all():
            raise SpecError(f"the leader's joint state must be {self._n} finite angles [rad], got {q.tolist()}")
        if gripper is not None and not np.isfinite(gripper):
            raise SpecError(f"the leader's gripper reading must be finite, got {gripper}")
        with self._lock:
            self._newest = (stamp_ns, q, gripper)

    def open(self) -> None:
        """Open the clutch's device."""
        if self._clutch is not None:
            self._clutch.open()

    def poll(self, now_ns: int) -> TeleopState:
        """Return where the leader is, in the follower's angles."""
        lent = TeleopState(stamp_ns=now_ns, engaged=True) if self._clutch is None else self._clutch.poll(now_ns)
        with self._lock:
            newest = self._newest
        if newest is None or not 0 <= now_ns - newest[0] <= self._timeout_ns:
            return TeleopState(stamp_ns=now_ns, events=lent.events)
        stamp_ns, q, gripper = newest
        return TeleopState(
            stamp_ns=stamp_ns,
            engaged=lent.engaged,
            joints=self._scale * q + self._offset,
            gripper_width_m=self._opening(gripper),
            events=lent.events,
        )

    def close(self) -> None:
        """Close the clutch's device and forget the leader's state."""
        with self._lock:
            self._newest = None
        if self._clutch is not None:
            self._clutch.close()

    def _opening(self, gripper: float | None) -> float | None:
        if gripper is None or self._gripper_range is None:
            return None
        closed, opened = self._gripper_range
        return self._width * float(np.clip((gripper - closed) / (opened - closed), 0.0, 1.0))


def _per_joint(name: str, value: float | np.ndarray, n: int) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64)
    if array.shape not in ((), (1,), (n,)) or not np.isfinite(array).all():
        raise ConfigError(f"`{name}` must be one finite number or {n}, got {array.tolist()}")
    return np.array(np.broadcast_to(array, (n,)))
