"""A simulated arm that goes on moving while nobody steps it with actions: what a real arm's driver looks like.

`ArmEnv` waits for its caller; here time passes, targets arrive when they arrive, and the arm holds when they stop.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np

from robot_rl.errors import ConfigError, SimulationError
from sim.arm import SimArm
from sim.robots import ARM7, RobotModel
from sim.scene import PHYSICS_DT_S, build_scene
from sim.tasks import Lift, Task

_DIVERGED = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)
_MOVED = 1e-9
_AT_HOME_RAD = 0.01


@dataclass(frozen=True)
class ArmState:
    """What the arm's sensors say.

    Args:
        position: Angles [rad], then gripper width [m]; float64 [A].
        velocity: Their rates; float64 [A].
        tcp_pose: Position [m] and rot6d of the tool in the base frame, float32 [9].
        objects: The task's observations, such as `cube_pose`.
        time_s: Simulated time since the reset.
    """

    position: np.ndarray
    velocity: np.ndarray
    tcp_pose: np.ndarray
    objects: Mapping[str, np.ndarray]
    time_s: float


class RealtimeArm:
    """The physics of one arm with one task. Every method may be called from any thread.

    The controllers' targets move to what was commanded no faster than the joints' speed limits. When no command came
    for `command_timeout_s` of simulated time they stay where they are; the next command is followed again.

    Args:
        robot: The arm.
        task: What lies on the table.
        command_timeout_s: Silence after which the arm holds.
        start_noise_rad: The start pose is home plus uniform noise of this half-width per joint.
        home_speed: Speed of `go_home` [rad/s].

    Raises:
        ConfigError: A setting is out of range.
        SimulationError: MuJoCo refuses the scene.
    """

    def __init__(
        self,
        robot: RobotModel = ARM7,
        task: Task | None = None,
        *,
        command_timeout_s: float = 0.1,
        start_noise_rad: float = 0.02,
        home_speed: float = 0.5,
    ) -> None:
        if not (command_timeout_s > 0 and start_noise_rad >= 0 and home_speed > 0):
            raise ConfigError(
                "need command_timeout_s > 0, start_noise_rad >= 0 and home_speed > 0, got "
                f"{command_timeout_s}, {start_noise_rad}, {home_speed}"
            )
        self.robot = robot
        self.task: Task = Lift() if task is None else task
        self.names: tuple[str, ...] = robot.joints + (("gripper",) if robot.gripper is not None else ())
        self._model = build_scene(robot, self.task)
        self._data = mujoco.MjData(self._model)
        self._arm = SimArm(self._model, self._data, robot)
        self._timeout_s, self._noise, self._home_speed = command_timeout_s, start_noise_rad, home_speed
        self._max_step = self._arm.max_speed * PHYSICS_DT_S
        self._home = np.concatenate([robot.home, self._arm.high[len(robot.home) :]])
        self._lock = threading.Lock()
        self.reset(0)

    @property
    def dt_s(self) -> float:
        """The physics step in seconds."""
        return PHYSICS_DT_S

    @property
    def fault(self) -> str:
        """Why the arm does not take commands, or an empty string."""
        return self._fault

    @property
    def holding(self) -> bool:
        """Whether commands have stopped coming."""
        with self._lock:
            return bool(self._data.time - self._command_s > self._timeout_s)

    @property
    def success(self) -> bool:
        """Whether the task is done at this moment."""
        with self._lock:
            return self.task.succeeded(self._arm)

    def reset(self, seed: int) -> None:
        """Put arm and objects where the episode of this seed starts, at rest; clears a fault."""
        with self._lock:
            rng = np.random.default_rng(seed)
            mujoco.mj_resetData(self._model, self._data)
            noise = self._noise * rng.uniform(-1.0, 1.0, size=self._arm.n_joints)
            self._arm.place(np.asarray(self.robot.home) + noise)
            self.task.reset(self._arm, rng)
            self._target = self._arm.targets
            mujoco.mj_forward(self._model, self._data)
            self._wanted = self._target.copy()
            self._command_s = -np.inf
            self._homing, self.enabled, self._fault = False, True, ""
            self._width = self._arm.gripper_width_m
            self._width_rate = 0.0

    def set_target(self, target: np.ndarray) -> None:
        """Take a command [A]; ignored while homing, disabled or at fault. One that no arm can follow is a fault."""
        with self._lock:
            if self._homing or not self.enabled or self._fault:
                return
            value = np.asarray(target, dtype=np.float64)
            if value.shape != self._target.shape or not np.isfinite(value).all():
                self._fault = f"command must be {len(self._target)} finite numbers, got {value.tolist()}"
                self._wanted = self._target.copy()
                return
            self._wanted = np.clip(value, self._arm.low, self._arm.high)
            self._command_s = self._data.time

    def go_home(self) -> None:
        """Move home slowly; commands are ignored until it is there.

        Raises:
            SimulationError: The arm is disabled or at fault.
        """
        with self._lock:
            if not self.enabled or self._fault:
                raise SimulationError(f"cannot go home: {self._fault if self._fault else 'the arm is disabled'}")
            self._homing, self._wanted = True, self._home.copy()

    def enable(self, on: bool) -> None:
        """Let the arm take commands, or make it hold where it is."""
        with self._lock:
            self.enabled = on
            if not on:
                self._homing, self._wanted = False, self._target.copy()

    def clear_fault(self) -> None:
        """Take commands again after a fault; diverged physics needs `reset`."""
        with self._lock:
            if not self._diverged():
                self._fault = ""

    def step(self, n: int = 1) -> None:
        """Let n physics steps pass."""
        with self._lock:
            for _ in range(n):
                self._step()

    def observe(self) -> ArmState:
        """Return what the sensors say now."""
        with self._lock:
            mujoco.mj_kinematics(self._model, self._data)  # poses of this state, not of the last step's beginning
            gripper = [] if self.robot.gripper is None else [self._width]
            rate = [] if self.robot.gripper is None else [self._width_rate]
            return ArmState(
                position=np.concatenate([self._arm.joint_position, gripper]),
                velocity=np.concatenate([self._arm.joint_velocity, rate]),
                tcp_pose=self._arm.tcp_pose,
                objects=self.task.observe(self._arm),
                time_s=float(self._data.time),
            )

    def _step(self) -> None:
        if self._fault and self._diverged():
            return
        if not self._homing and self._data.time - self._command_s > self._timeout_s:
            self._wanted = self._target.copy()
        limit = self._max_step
        if self._homing:
            limit = np.minimum(limit, self._home_speed * PHYSICS_DT_S)
        move = np.clip(self._wanted - self._target, -limit, limit)
        if np.abs(move).max() > _MOVED:
            self._target = self._target + move
        self._arm.command(self._target)
        mujoco.mj_step(self._model, self._data)
        width = self._arm.gripper_width_m
        self._width_rate, self._width = (width - self._width) / PHYSICS_DT_S, width
        if self._homing and np.abs(self._arm.joint_position - self._home[: self._arm.n_joints]).max() < _AT_HOME_RAD:
            self._homing = False
        if self._diverged():
            self._fault = f"the physics of `{self.robot.name}` diverged; reset it"

    def _diverged(self) -> bool:
        """Return whether MuJoCo met a value that is not a number since the reset (it then starts over by itself)."""
        return any(self._data.warning[kind].number for kind in _DIVERGED)
