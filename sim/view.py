"""Pictures of a cell whose state is known from elsewhere: no physics, so that rendering never delays it."""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np

from robot_rl.errors import ConfigError, SpecError
from sim.rendering import Renderer
from sim.robots import ARM7, ROBOT_PREFIX, RobotModel
from sim.scene import build_scene
from sim.tasks import Lift, Task


class SceneView:
    """One camera of the scene. All methods belong to one thread: an OpenGL context does.

    Args:
        camera: `front`, `view`, or one of the robot's own, such as `wrist`.
        robot: The arm.
        task: What lies on the table.
        height: Picture height [px].
        width: Picture width [px].

    Raises:
        ConfigError: There is no such camera.
        SimulationError: No OpenGL back end works (raised by the first picture).
    """

    def __init__(
        self, camera: str, robot: RobotModel = ARM7, task: Task | None = None, *, height: int, width: int
    ) -> None:
        self._robot = robot
        self._model = build_scene(robot, Lift() if task is None else task)
        self._data = mujoco.MjData(self._model)
        names = [str(self._model.camera(i).name) for i in range(self._model.ncam)]
        there = {name.removeprefix(ROBOT_PREFIX): name for name in names}
        if camera not in there:
            raise ConfigError(f"there is no camera `{camera}`; robot and scene have {sorted(there)}")
        self._camera, self._height, self._width = there[camera], height, width
        self._qpos = [int(self._model.joint(ROBOT_PREFIX + name).qposadr[0]) for name in robot.joints]
        self._fingers = self._finger_qpos()
        self._renderer: Renderer | None = None

    @property
    def intrinsics(self) -> tuple[float, ...]:
        """Pinhole matrix, 9 numbers row by row [px]: square pixels, principal point in the middle."""
        fovy = np.deg2rad(float(self._model.camera(self._camera).fovy[0]))
        focal = self._height / 2 / float(np.tan(fovy / 2))
        return (focal, 0.0, self._width / 2, 0.0, focal, self._height / 2, 0.0, 0.0, 1.0)

    def picture(self, position: np.ndarray, objects: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return what the camera sees, uint8 [height, width, 3].

        Args:
            position: Angles [rad], then gripper width [m] if there is a gripper.
            objects: Pose [9] (position [m] and rot6d) by observation name, such as `cube_pose`.

        Raises:
            SpecError: The wrong number of joints.
        """
        n = len(self._qpos)
        if len(position) != n + (self._robot.gripper is not None):
            raise SpecError(f"`position` must have {n} joints and the gripper if there is one, got {len(position)}")
        self._data.qpos[self._qpos] = position[:n]
        gripper = self._robot.gripper
        if gripper is not None:
            closed, opened = gripper.joint_range
            self._data.qpos[self._fingers] = closed + position[n] / gripper.max_width_m * (opened - closed)
        for name, pose in objects.items():
            self._place(name.removesuffix("_pose"), np.asarray(pose, dtype=np.float64))
        mujoco.mj_forward(self._model, self._data)
        if self._renderer is None:
            self._renderer = Renderer(self._model, self._height, self._width)
        return self._renderer.render(self._data, self._camera)

    def close(self) -> None:
        """Free the OpenGL context. Calling it twice is allowed."""
        if self._renderer is not None:
            self._renderer.close()

    def _place(self, body: str, pose: np.ndarray) -> None:
        x, y = pose[3:6], pose[6:9]
        matrix, quat = np.stack([x, y, np.cross(x, y)], axis=1), np.zeros(4)
        mujoco.mju_mat2Quat(quat, matrix.reshape(-1))
        self._data.joint(body).qpos[:] = [*pose[:3], *quat]

    def _finger_qpos(self) -> list[int]:
        """Return where the gripper's joint and those coupled to it by an equality lie in qpos."""
        gripper = self._robot.gripper
        if gripper is None:
            return []
        joint = int(self._model.joint(ROBOT_PREFIX + gripper.joint).id)
        joints = {joint}
        for kind, a, b in zip(self._model.eq_type, self._model.eq_obj1id, self._model.eq_obj2id, strict=True):
            if kind == mujoco.mjtEq.mjEQ_JOINT and joint in (a, b):
                joints |= {int(a), int(b)}
        return [int(self._model.jnt_qposadr[j]) for j in sorted(joints)]
