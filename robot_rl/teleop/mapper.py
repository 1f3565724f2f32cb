"""From what a device says to joint targets and gripper width. Nothing jumps: targets start from the measured pose.

`CartesianMapper` integrates a twist and asks inverse kinematics; `JointMapper` follows joint angles. Both stop giving
commands the moment the device lets go or falls silent, and start again from where the arm then is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from robot_rl.errors import ConfigError, SpecError
from robot_rl.teleop.source import TeleopState


class IkSolution(Protocol):
    """Angles [J] that were found, and how far their tool is from the target."""

    @property
    def joint_position(self) -> np.ndarray:
        """Angles [rad]."""

    @property
    def position_error_m(self) -> float:
        """Distance from the target."""

    @property
    def rotation_error_rad(self) -> float:
        """Angle to the target."""


@runtime_checkable
class ArmKinematics(Protocol):
    """What is needed of the arm; `robot_rl.hardware.kinematics.Kinematics` is one."""

    low: np.ndarray
    high: np.ndarray

    def forward(self, joint_position: np.ndarray) -> np.ndarray:
        """Return `T_base_tool` [4, 4]."""

    def inverse(self, T_base_target: np.ndarray, *, start: np.ndarray, max_iterations: int = 20) -> IkSolution:
        """Return angles near `start` that bring the tool to a pose."""


@dataclass(frozen=True, kw_only=True)
class MapperLimits:
    """What the mapper itself holds to; the safety filter behind it has limits of its own.

    Args:
        speed: Share of the device's speed, 0 to 1.
        joint_speed_rad_s: Fastest joint.
        lag_rad: How far a joint target may run ahead of the measured joint, as when the arm leans on something.
        gripper_width_m: Largest opening of the gripper; 0 for an arm without one.
        gripper_speed_m_s: Fastest change of the opening.
        state_timeout_s: Age beyond which a device's state is stale; also the longest step that is integrated.

    Raises:
        ConfigError: Not finite, negative, or a `speed` above 1.
    """

    speed: float = 1.0
    joint_speed_rad_s: float = 1.5
    lag_rad: float = 0.3
    gripper_width_m: float = 0.08
    gripper_speed_m_s: float = 0.2
    state_timeout_s: float = 0.1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < float("inf"):
                raise ConfigError(f"`{name}` must be zero or more, got {value}")
        if self.speed > 1 or self.state_timeout_s == 0:
            raise ConfigError(f"need speed <= 1 and state_timeout_s > 0, got {self.speed} and {self.state_timeout_s}")


class _Clutch:
    """What both mappers share: when to drive, where to start, and the gripper."""

    def __init__(self, n_joints: int, limits: MapperLimits) -> None:
        self.n, self.limits = n_joints, limits
        self.has_gripper = limits.gripper_width_m > 0
        self.joints: np.ndarray | None = None
        self._width = 0.0
        self._step_ns = 0

    def step(
        self, state: TeleopState, measured: np.ndarray, now_ns: int, *, move: Callable[[float, bool], np.ndarray]
    ) -> np.ndarray | None:
        """Return the command [A], or `None` when the device does not drive.

        `move(dt_s, engaged_now)` gives the new joint targets; `joints` are the last ones.
        """
        q = np.asarray(measured, dtype=np.float64)
        width = self.n + int(self.has_gripper)
        if q.shape != (width,) or not np.isfinite(q).all():
            raise SpecError(f"`measured` must be {width} finite numbers (joints, gripper width), got {q.tolist()}")
        alive = 0 <= now_ns - state.stamp_ns <= self.limits.state_timeout_s * 1e9
        if not (state.engaged and alive):
            self.joints = None
            return None
        engaged_now = self.joints is None
        dt = 0.0 if engaged_now else min(max((now_ns - self._step_ns) / 1e9, 0.0), self.limits.state_timeout_s)
        self._step_ns = now_ns
        last = q[: self.n] if self.joints is None else self.joints
        if engaged_now:
            self._width = float(q[-1]) if self.has_gripper else 0.0
            self.joints = last
        wanted = move(dt, engaged_now)
        self.joints = self._within(last, wanted, q[: self.n], dt)
        if not self.has_gripper:
            return self.joints.copy()
        self._width = self._grip(state, dt)
        return np.append(self.joints, self._width)

    def _within(self, last: np.ndarray, wanted: np.ndarray, measured: np.ndarray, dt: float) -> np.ndarray:
        """Slow the step down as a whole, so that its direction stays, then keep it near the arm."""
        step = wanted - last
        room = self.limits.joint_speed_rad_s * dt
        fastest = float(np.max(np.abs(step), initial=0.0))
        slowed = last + step * (room / fastest) if fastest > room else wanted
        leash = self.limits.lag_rad
        return np.asarray(np.clip(slowed, measured - leash, measured + leash))

    def _grip(self, state: TeleopState, dt: float) -> float:
        if state.gripper_width_m is not None:
            change = state.gripper_width_m - self._width
        else:
            rate = 0.0 if state.gripper_rate_m_s is None else state.gripper_rate_m_s
            change = self.limits.speed * rate * dt
        room = self.limits.gripper_speed_m_s * dt
        return float(np.clip(self._width + np.clip(change, -room, room), 0.0, self.limits.gripper_width_m))


class CartesianMapper:
    """Turns twists of the tool into joint targets, by differential inverse kinematics.

    The target pose runs ahead of the joint targets only as far as IK follows: at the edge of the workspace, at a joint
    limit, or at the speed limit it stays where the joints are, so that turning back takes effect at once.

    Args:
        kinematics: Of the arm.
        limits: Speeds and leashes.
        iterations: Quadratic programs per step.

    Raises:
        ConfigError: `iterations` is below 1.
    """

    _FOLLOWS_M = 0.002
    _FOLLOWS_RAD = 0.02

    def __init__(self, kinematics: ArmKinematics, limits: MapperLimits | None = None, *, iterations: int = 4) -> None:
        if iterations < 1:
            raise ConfigError(f"`iterations` must be at least 1, got {iterations}")
        self._kinematics, self._iterations = kinematics, iterations
        self._limits = MapperLimits() if limits is None else limits
        self._clutch = _Clutch(len(kinematics.low), self._limits)
        self._T_base_target = np.eye(4)

    def step(self, state: TeleopState, measured: np.ndarray, now_ns: int) -> np.ndarray | None:
        """Return joint targets [rad] and the gripper's width [m], or `None` when the device does not drive.

        Args:
            state: The device's newest state.
            measured: Measured joint angles, then the gripper's width: the last commanded one where something may be
                held, since a gripper opens when it is commanded to the width of what it holds.
            now_ns: The present time, on the clock of the state.

        Raises:
            SpecError: `measured` has the wrong shape or is not finite, or the device gives joints instead of a twist.
        """
        if state.joints is not None:
            raise SpecError("the Cartesian mapper takes twists, the device gives joints; use JointMapper")
        twist = np.zeros(6) if state.twist is None else np.asarray(state.twist, dtype=np.float64)
        twist = self._limits.speed * twist
        command = self._clutch.step(
            state, measured, now_ns, move=lambda dt, engaged_now: self._move(twist, dt, engaged_now)
        )
        if command is not None and self._clutch.joints is not None:
            self._rein_in(self._clutch.joints)
        return command

    def _move(self, twist: np.ndarray, dt: float, engaged_now: bool) -> np.ndarray:
        joints = self._clutch.joints
        if joints is None:
            raise SpecError("not engaged; call step()")
        if engaged_now:
            self._T_base_target = self._kinematics.forward(joints)
        if not twist.any() or dt == 0.0:
            return joints
        T = self._T_base_target.copy()
        T[:3, 3] += twist[:3] * dt
        T[:3, :3] = _rotation(twist[3:] * dt) @ T[:3, :3]
        self._T_base_target = T
        return self._kinematics.inverse(T, start=joints, max_iterations=self._iterations).joint_position

    def _rein_in(self, joints: np.ndarray) -> None:
        """Bring the target pose back to the joints' own where they did not follow."""
        T = self._kinematics.forward(joints)
        behind_m = float(np.linalg.norm(T[:3, 3] - self._T_base_target[:3, 3]))
        cosine = (float(np.trace(T[:3, :3].T @ self._T_base_target[:3, :3])) - 1.0) / 2.0
        if behind_m > self._FOLLOWS_M or cosine < np.cos(self._FOLLOWS_RAD):
            self._T_base_target = T


class JointMapper:
    """Follows joint angles, such as a leader arm's or a script's.

    Args:
        low: Lowest angles [rad], [J].
        high: Highest angles.
        limits: Speeds and leashes; `speed` scales how far a relative follower moves.
        relative: Move by what the device moves from the moment of engaging on (a leader arm that stands elsewhere);
            otherwise go to the device's own angles, no faster than the joint speed limit (a script).

    Raises:
        ConfigError: The limits contradict.
    """

    def __init__(
        self, low: np.ndarray, high: np.ndarray, limits: MapperLimits | None = None, *, relative: bool = True
    ) -> None:
        self._low, self._high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        if self._low.shape != self._high.shape or (self._low > self._high).any():
            raise ConfigError(f"joint limits contradict: low {self._low.tolist()}, high {self._high.tolist()}")
        self._limits = MapperLimits() if limits is None else limits
        self._clutch = _Clutch(len(self._low), self._limits)
        self._relative = relative
        self._device_start = np.zeros(len(self._low))
        self._arm_start = np.zeros(len(self._low))

    def step(self, state: TeleopState, measured: np.ndarray, now_ns: int) -> np.ndarray | None:
        """Return joint targets [rad] and the gripper's width [m], or `None`; arguments as in `CartesianMapper.step`.

        Raises:
            SpecError: `measured` or the device's joints have the wrong shape, or the device gives no joints.
        """
        if state.engaged and (state.joints is None or state.joints.shape != self._low.shape):
            got = "none" if state.joints is None else str(len(state.joints))
            raise SpecError(f"the joint mapper needs {len(self._low)} joint angles from its device, got {got}")
        wanted = self._low if state.joints is None else np.asarray(state.joints, dtype=np.float64)
        return self._clutch.step(state, measured, now_ns, move=lambda dt, engaged_now: self._move(wanted, engaged_now))

    def _move(self, wanted: np.ndarray, engaged_now: bool) -> np.ndarray:
        joints = self._clutch.joints
        if joints is None:
            raise SpecError("not engaged; call step()")
        if not self._relative:
            return np.asarray(np.clip(wanted, self._low, self._high))
        if engaged_now:
            self._device_start, self._arm_start = wanted, joints
        moved = self._arm_start + self._limits.speed * (wanted - self._device_start)
        return np.asarray(np.clip(moved, self._low, self._high))


def _rotation(vector: np.ndarray) -> np.ndarray:
    """Return the rotation matrix of a rotation vector (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    K = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + np.sin(angle) * K + (1.0 - np.cos(angle)) * (K @ K))
