"""Forward and inverse kinematics of one arm: MuJoCo for the forward map, mink's differential IK for the inverse.

Works on any MJCF (or URDF that MuJoCo reads); base is the frame of the model's world. Nothing is simulated here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mink
import mujoco
import numpy as np

from robot_rl.errors import ConfigError, SpecError


@dataclass(frozen=True)
class IkResult:
    """Joint angles [J] that `Kinematics.inverse` found, and how far their tool frame is from the target."""

    joint_position: np.ndarray
    position_error_m: float
    rotation_error_rad: float


class Kinematics:
    """Where the tool is for given joint angles, and the angles for where it should be.

    Args:
        model: Compiled model; only `joints` are moved, every other joint stays at its reference.
        joints: Names of the arm's hinge joints, base to tool; each needs limits in the model.
        site: Name of the tool frame.
        posture_cost: Pull towards the start of `inverse`, which decides what a redundant arm does with its spare
            freedom; small beside the pose's cost of one.

    Raises:
        ConfigError: A name is not in the model or a joint has no limits.
    """

    def __init__(self, model: mujoco.MjModel, *, joints: Sequence[str], site: str, posture_cost: float = 1e-3) -> None:
        self.model = model
        ids = [_lookup(model, mujoco.mjtObj.mjOBJ_JOINT, name, "joint") for name in joints]
        self._site = _lookup(model, mujoco.mjtObj.mjOBJ_SITE, site, "site")
        unlimited = [name for name, i in zip(joints, ids, strict=True) if not model.jnt_limited[i]]
        if unlimited:
            raise ConfigError(f"joints {unlimited} have no `range` in the model; an arm's joints need limits")
        self._qpos = model.jnt_qposadr[ids]
        self._dof = model.jnt_dofadr[ids]
        self.low: np.ndarray = model.jnt_range[ids, 0].copy()
        self.high: np.ndarray = model.jnt_range[ids, 1].copy()
        self._configuration = mink.Configuration(model)
        self._rest: np.ndarray = self._configuration.q.copy()
        self._pose_task = mink.FrameTask(site, "site", position_cost=1.0, orientation_cost=0.5)
        self._posture_task = mink.PostureTask(model, cost=posture_cost)
        self._limits = [mink.ConfigurationLimit(model)]

    @classmethod
    def from_mjcf(cls, path: str | Path, *, joints: Sequence[str], site: str) -> Kinematics:
        """Load the model from a file.

        Raises:
            ConfigError: There is no such file, or a name is not in it.
        """
        if not Path(path).is_file():
            raise ConfigError(f"no robot model at {path}; give the path of an MJCF or URDF file")
        return cls(mujoco.MjModel.from_xml_path(str(path)), joints=joints, site=site)

    @property
    def n_joints(self) -> int:
        """J, how many joints the arm has."""
        return len(self._qpos)

    def forward(self, joint_position: np.ndarray) -> np.ndarray:
        """Return `T_base_tool` [4, 4], float64, for angles [J] in rad."""
        data = self._place(joint_position)
        T_base_tool = np.eye(4)
        T_base_tool[:3, :3] = data.site_xmat[self._site].reshape(3, 3)
        T_base_tool[:3, 3] = data.site_xpos[self._site]
        return T_base_tool

    def jacobian(self, joint_position: np.ndarray) -> np.ndarray:
        """Return d(position [m], rotation vector [rad]) / d(angles) in base coordinates, [6, J]."""
        data = self._place(joint_position)
        jacobian = np.zeros((6, self.model.nv))
        mujoco.mj_jacSite(self.model, data, jacobian[:3], jacobian[3:], self._site)
        return jacobian[:, self._dof]

    def inverse(
        self, T_base_target: np.ndarray, *, start: np.ndarray, max_iterations: int = 20, tolerance: float = 1e-4
    ) -> IkResult:
        """Return the angles near `start` that bring the tool to a pose, within the joint limits.

        Each iteration is one quadratic program of mink's differential IK. A target out of reach gives the nearest
        pose found; look at the errors.

        Args:
            T_base_target: Pose of the tool [4, 4].
            start: Angles to begin from [rad], [J]; values beyond a limit are brought back to it.
            max_iterations: Most quadratic programs to solve.
            tolerance: Stop when position error [m] and rotation error [rad] are both below it.
        """
        q = self._rest.copy()
        q[self._qpos] = np.clip(self._checked(start), self.low, self.high)
        self._configuration.update(q)
        rotation = mink.SO3.from_matrix(np.ascontiguousarray(T_base_target[:3, :3]))
        target = mink.SE3.from_rotation_and_translation(rotation, np.ascontiguousarray(T_base_target[:3, 3]))
        self._pose_task.set_target(target)
        self._posture_task.set_target(q)
        tasks = [self._pose_task, self._posture_task]
        for iteration in range(max_iterations + 1):
            error = np.asarray(self._pose_task.compute_error(self._configuration))
            position, angle = float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:]))
            if iteration == max_iterations or max(position, angle) < tolerance:
                break
            velocity = mink.solve_ik(self._configuration, tasks, 1.0, "daqp", limits=self._limits)
            self._configuration.integrate_inplace(velocity, 1.0)
        found = np.clip(self._configuration.q[self._qpos], self.low, self.high)
        return IkResult(joint_position=found, position_error_m=position, rotation_error_rad=angle)

    def _place(self, joint_position: np.ndarray) -> mujoco.MjData:
        q = self._rest.copy()
        q[self._qpos] = self._checked(joint_position)
        self._configuration.update(q)
        return self._configuration.data

    def _checked(self, joint_position: np.ndarray) -> np.ndarray:
        q = np.asarray(joint_position, dtype=np.float64)
        if q.shape != (self.n_joints,) or not np.isfinite(q).all():
            raise SpecError(f"`joint_position` must be {self.n_joints} finite angles [rad], got {q.tolist()}")
        return q


def _lookup(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str, what: str) -> int:
    """Return the id of a named thing, or raise listing the names there are."""
    index = int(mujoco.mj_name2id(model, kind, name))
    if index < 0:
        count = {"joint": model.njnt, "site": model.nsite}[what]
        names = [mujoco.mj_id2name(model, kind, i) for i in range(count)]
        raise ConfigError(f"the model has no {what} `{name}`; it has {names}")
    return index
