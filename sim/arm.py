"""A robot inside a running MuJoCo model: reads its state, sets its targets, sees what its fingers touch."""

from __future__ import annotations

import mujoco
import numpy as np

from robot_rl.errors import ConfigError
from sim.robots import ROBOT_PREFIX, Gripper, RobotModel


def pose9(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Return x, y, z [m] and the rotation matrix's first two columns (rot6d, Zhou et al. 2019), float32 [9]."""
    matrix = rotation.reshape(3, 3)
    return np.concatenate([position, matrix[:, 0], matrix[:, 1]]).astype(np.float32)


class SimArm:
    """The arm of `robot` in `model` and `data`.

    Raises:
        ConfigError: A joint has no limits.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, robot: RobotModel) -> None:
        self.model, self.data, self.robot = model, data, robot
        joints = [model.joint(ROBOT_PREFIX + name).id for name in robot.joints]
        if not model.jnt_limited[joints].all():
            raise ConfigError(f"robot `{robot.name}`: every joint of {robot.joints} needs a `range` in its MJCF")
        self._qpos = model.jnt_qposadr[joints]
        self._dof = model.jnt_dofadr[joints]
        self._ctrl = np.array([model.actuator(ROBOT_PREFIX + name).id for name in robot.actuators])
        self._tcp = model.site(ROBOT_PREFIX + robot.tcp).id
        limits = model.jnt_range[joints]
        gripper = robot.gripper
        self._gripper_low, self._gripper_high = np.zeros(0), np.zeros(0)
        self._fingers: list[int] = []
        if gripper is not None:
            self._gripper_qpos = int(model.jnt_qposadr[model.joint(ROBOT_PREFIX + gripper.joint).id])
            self._ctrl = np.append(self._ctrl, model.actuator(ROBOT_PREFIX + gripper.actuator).id)
            self._fingers = [model.body(ROBOT_PREFIX + name).id for name in gripper.finger_bodies]
            self._gripper_low, self._gripper_high = np.zeros(1), np.array([gripper.max_width_m])
        self.low: np.ndarray = np.concatenate([limits[:, 0], self._gripper_low])
        self.high: np.ndarray = np.concatenate([limits[:, 1], self._gripper_high])
        speed = [gripper.max_speed_m_s] if gripper is not None else []
        self.max_speed: np.ndarray = np.array([*robot.velocity_limit, *speed])
        self._targets = self.low.copy()

    @property
    def n_joints(self) -> int:
        """J, how many joints the arm has, without the gripper."""
        return len(self._qpos)

    @property
    def joint_position(self) -> np.ndarray:
        """Angles [rad], float64 [J]."""
        return np.asarray(self.data.qpos[self._qpos])

    @property
    def joint_velocity(self) -> np.ndarray:
        """Speeds [rad/s], float64 [J]."""
        return np.asarray(self.data.qvel[self._dof])

    @property
    def gripper_width_m(self) -> float:
        """Opening of the gripper, zero for a robot without one."""
        gripper = self.robot.gripper
        if gripper is None:
            return 0.0
        closed, opened = gripper.joint_range
        return float((self.data.qpos[self._gripper_qpos] - closed) / (opened - closed) * gripper.max_width_m)

    @property
    def targets(self) -> np.ndarray:
        """What the controllers were last told: J angles [rad], then the gripper's width [m] if there is one."""
        return self._targets.copy()

    @property
    def tool(self) -> tuple[np.ndarray, np.ndarray]:
        """Position [m] and rotation matrix of the tool frame in the base frame, float64 [3] and [3, 3]."""
        return self.data.site_xpos[self._tcp].copy(), self.data.site_xmat[self._tcp].reshape(3, 3).copy()

    @property
    def tcp_pose(self) -> np.ndarray:
        """Position and rot6d of the tool frame in the base frame, float32 [9]."""
        return pose9(self.data.site_xpos[self._tcp], self.data.site_xmat[self._tcp])

    def place(self, joint_position: np.ndarray) -> np.ndarray:
        """Put the arm at `joint_position` [J] with the gripper open, at rest; return its targets [A]."""
        targets: np.ndarray = np.clip(np.concatenate([joint_position, self._gripper_high]), self.low, self.high)
        self.data.qpos[self._qpos] = targets[: self.n_joints]
        if self.robot.gripper is not None:
            self._set_width(self.robot.gripper, self.robot.gripper.max_width_m)
        self.command(targets)
        return targets

    def close_on(self, width_m: float) -> None:
        """Put the fingers at an opening, at rest, and tell them to close: they press on what is between them.

        Raises:
            ConfigError: The robot has no gripper that opens so wide.
        """
        gripper = self.robot.gripper
        if gripper is None or gripper.max_width_m <= width_m:
            raise ConfigError(
                f"robot `{self.robot.name}` needs a gripper that opens more than {width_m:g} m, "
                f"got {'none' if gripper is None else f'{gripper.max_width_m:g} m'}"
            )
        self._set_width(gripper, width_m)
        self.command(np.append(self._targets[:-1], 0.0))

    def command(self, targets: np.ndarray) -> None:
        """Set the controllers' targets: J angles [rad], then the gripper's width [m] if there is one."""
        gripper = self.robot.gripper
        self._targets = np.array(targets)
        if gripper is None:
            self.data.ctrl[self._ctrl] = targets
            return
        closed, opened = gripper.ctrl_range
        self.data.ctrl[self._ctrl[:-1]] = targets[:-1]
        self.data.ctrl[self._ctrl[-1]] = closed + targets[-1] / gripper.max_width_m * (opened - closed)

    def holds(self, body: str) -> bool:
        """Return whether both fingers touch the named body."""
        other = self.model.body(body).id
        bodies = self.model.geom_bodyid[self.data.contact.geom]  # [contacts, 2]
        touching = {int(b) for pair in bodies if other in pair for b in pair}
        return bool(self._fingers) and touching.issuperset(self._fingers)

    def _set_width(self, gripper: Gripper, width_m: float) -> None:
        """Move the shown joint to an opening, and with it every joint that an equality couples to it."""
        closed, opened = gripper.joint_range
        wanted = closed + width_m / gripper.max_width_m * (opened - closed)
        distance = wanted - self.data.qpos[self._gripper_qpos]
        self.data.qpos[self._gripper_qpos] += distance
        joint = self.model.joint(ROBOT_PREFIX + gripper.joint).id
        for kind, a, b in zip(self.model.eq_type, self.model.eq_obj1id, self.model.eq_obj2id, strict=True):
            if kind == mujoco.mjtEq.mjEQ_JOINT and joint in (a, b):
                other = int(b if joint == a else a)
                self.data.qpos[self.model.jnt_qposadr[other]] += distance
