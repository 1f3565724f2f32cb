"""A simulated arm with a task, as an `Env`."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from robot_rl.errors import ConfigError, SimulationError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Obs, Tick
from sim.arm import SimArm
from sim.depth import CloudSettings, SimCloud
from sim.rendering import Renderer, average_down
from sim.robots import ARM7, ROBOT_PREFIX, RobotModel
from sim.scene import PHYSICS_DT_S, VIEW_CAMERA, build_scene
from sim.tasks import Lift, Task

_VIEW_SIZE = (360, 480)
_VIEW_OVERSAMPLING = 2
_DIVERGED = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)


class ArmEnv:
    """An arm on a table, commanded by joint positions and gripper width; an `Env`.

    Observations: `joint_position` [rad], `joint_velocity` [rad/s], `gripper_width` [m], `tcp_pose` (position [m] and
    rot6d), the task's own, one uint8 picture per camera, one float32 depth image [m] per depth camera, named
    `<camera>_depth` (0 where nothing is seen), and `point_cloud` [m]: what is asked for of these. The action is J joint
    targets [rad] and, with a gripper, its width [m]; it is clamped to the joint limits and to the speed limits (from
    target to target), and what remains is `action_executed`. Between two ticks the controllers' targets move in a
    straight line. Reward is 1 at success, which ends the episode, else 0.

    Args:
        robot: The arm.
        task: What to do.
        control_hz: Control rate; its period must be a multiple of the 2 ms physics step.
        max_steps: Control steps after which an episode is truncated.
        cameras: Names of cameras whose pictures are observations (`front`, `view`, and the robot's own: `wrist`).
        image_size: Height and width of those pictures [px].
        depth_cameras: Names of cameras whose depth images are observations, of the same size.
        point_cloud: How to observe `point_cloud` in the base frame; `None` for none.
        start_noise_rad: The start pose is home plus uniform noise of this half-width per joint.

    Raises:
        ConfigError: A setting does not fit, or the robot's file lacks what is named.
        SimulationError: MuJoCo refuses the scene.
    """

    def __init__(
        self,
        robot: RobotModel = ARM7,
        task: Task | None = None,
        *,
        control_hz: float = 20.0,
        max_steps: int = 200,
        cameras: Sequence[str] = (),
        image_size: tuple[int, int] = (96, 96),
        depth_cameras: Sequence[str] = (),
        point_cloud: CloudSettings | None = None,
        start_noise_rad: float = 0.02,
    ) -> None:
        self._n_substeps = round(1.0 / (control_hz * PHYSICS_DT_S)) if control_hz > 0 else 0
        if self._n_substeps < 1 or abs(self._n_substeps * PHYSICS_DT_S * control_hz - 1.0) > 1e-9:
            raise ConfigError(
                f"`control_hz` must be 1 / (n * {PHYSICS_DT_S} s) for a whole n, such as 10, 20 or 50; got {control_hz}"
            )
        if max_steps < 1 or start_noise_rad < 0:
            raise ConfigError(f"need max_steps >= 1 and start_noise_rad >= 0, got {max_steps}, {start_noise_rad}")
        self._robot = robot
        self._task: Task = Lift() if task is None else task
        self._model = build_scene(robot, self._task)
        self._data = mujoco.MjData(self._model)
        self._arm = SimArm(self._model, self._data, robot)
        self._cameras, self._image_size = tuple(cameras), (int(image_size[0]), int(image_size[1]))
        self._depths = {f"{camera}_depth": camera for camera in depth_cameras}
        self._camera_names = self._find_cameras(
            [*cameras, *depth_cameras, *(point_cloud.cameras if point_cloud else ())]
        )
        self._cloud = None if point_cloud is None else SimCloud(self._model, point_cloud, self._camera_names)
        self._spec = self._make_spec(control_hz)
        self._max_steps, self._start_noise, self._point_cloud = max_steps, start_noise_rad, point_cloud
        self._max_change = self._arm.max_speed / control_hz
        self._target = self._arm.low.copy()
        self._n_steps, self._running = 0, False
        self._camera_renderer: Renderer | None = None
        self._view_renderer: Renderer | None = None

    @property
    def spec(self) -> RobotSpec:
        """What passes in and out."""
        return self._spec

    @property
    def robot(self) -> RobotModel:
        """The arm's description."""
        return self._robot

    @property
    def model(self) -> mujoco.MjModel:
        """The compiled scene that is stepped; what is changed in it counts from the next reset on."""
        return self._model

    def at_rate(self, control_hz: float) -> ArmEnv:
        """Return the same cell with another control rate and episodes that last as long; the task is shared with it.

        Raises:
            ConfigError: The rate does not fit the physics step.
        """
        return ArmEnv(
            self._robot, self._task, control_hz=control_hz, cameras=self._cameras, image_size=self._image_size,
            max_steps=round(self._max_steps * control_hz / self._spec.control_hz),
            depth_cameras=list(self._depths.values()), point_cloud=self._point_cloud,
            start_noise_rad=self._start_noise,
        )  # fmt: skip

    def reset(self, seed: int) -> Tick:
        """Start an episode; everything random about it comes from `seed`."""
        rng = np.random.default_rng(seed)
        mujoco.mj_resetData(self._model, self._data)
        noise = self._start_noise * rng.uniform(-1.0, 1.0, size=self._arm.n_joints)
        self._arm.place(np.asarray(self._robot.home) + noise)
        self._task.reset(self._arm, rng)
        self._target = self._arm.targets
        mujoco.mj_forward(self._model, self._data)
        self._n_steps, self._running = 0, True
        return Tick(stamp_ns=0, obs=self._observe())

    def step(self, action: np.ndarray) -> Tick:
        """Drive towards `action` for one control period.

        Raises:
            SimulationError: No episode is running, or the physics diverged.
            SpecError: The action has the wrong shape or dtype, or is not finite.
        """
        if not self._running:
            raise SimulationError("no episode is running: the last one ended or none began; call reset(seed) first")
        commanded = self._spec.action.validate(action)
        start = self._target
        reachable = np.clip(commanded, start - self._max_change, start + self._max_change)
        self._target = np.clip(reachable, self._arm.low, self._arm.high)
        for share in np.arange(1, self._n_substeps + 1) / self._n_substeps:
            self._arm.command(start + share * (self._target - start))
            mujoco.mj_step(self._model, self._data)
        self._check_physics()
        mujoco.mj_forward(self._model, self._data)  # poses of the new state, not of the last substep's beginning
        self._n_steps += 1
        success = self._task.succeeded(self._arm)
        truncated = not success and self._n_steps >= self._max_steps
        self._running = not (success or truncated)
        return Tick(
            stamp_ns=self._n_steps * self._spec.step_ns,
            obs=self._observe(),
            action=commanded.copy(),
            action_executed=self._target.astype(np.float32),
            reward=float(success),
            success=success,
            terminated=success,
            truncated=truncated,
        )

    def render(self) -> np.ndarray:
        """Return a picture for people, uint8 [360, 480, 3], with shadows and smooth edges."""
        if self._view_renderer is None:
            height, width = (side * _VIEW_OVERSAMPLING for side in _VIEW_SIZE)
            self._view_renderer = Renderer(self._model, height, width, shadows=True)
        return average_down(self._view_renderer.render(self._data, VIEW_CAMERA), _VIEW_OVERSAMPLING)

    def close(self) -> None:
        """Free the renderers and end the episode. Calling it twice is allowed."""
        self._running = False
        for renderer in (self._camera_renderer, self._view_renderer):
            if renderer is not None:
                renderer.close()
        self._camera_renderer = self._view_renderer = None
        if self._cloud is not None:
            self._cloud.close()

    def _find_cameras(self, wanted: Sequence[str]) -> dict[str, str]:
        """Return the model's name of every camera, or raise if one that is wanted is not there."""
        there = {name.removeprefix(ROBOT_PREFIX): name for name in map(self._camera_name, range(self._model.ncam))}
        for camera in wanted:
            if camera not in there:
                raise ConfigError(f"there is no camera `{camera}`; robot and scene have {list(there)}")
        return there

    def _make_spec(self, control_hz: float) -> RobotSpec:
        arm, n = self._arm, self._arm.n_joints
        specs = [
            ArraySpec(name="joint_position", shape=(n,), unit="rad"),
            ArraySpec(name="joint_velocity", shape=(n,), unit="rad/s"),
            ArraySpec(name="tcp_pose", shape=(9,), unit="m, rot6d"),
            *self._task.obs.values(),
        ]
        if self._robot.gripper is not None:
            specs.insert(2, ArraySpec(name="gripper_width", shape=(1,), unit="m"))
        specs += [ArraySpec(name=name, shape=(*self._image_size, 3), dtype="uint8") for name in self._cameras]
        specs += [ArraySpec(name=name, shape=self._image_size, unit="m") for name in self._depths]
        if self._cloud is not None:
            specs.append(self._cloud.spec)
        action = ActionSpec(
            name="action",
            shape=(len(arm.low),),
            unit="rad" if self._robot.gripper is None else "rad, m",
            low=tuple(arm.low),
            high=tuple(arm.high),
            kind="joint_position",
            gripper="none" if self._robot.gripper is None else "width_m",
        )
        obs = {spec.name: spec for spec in specs}
        return RobotSpec(name=self._robot.name, obs=obs, action=action, control_hz=control_hz)

    def _observe(self) -> Obs:
        arm = self._arm
        obs: Obs = {
            "joint_position": arm.joint_position.astype(np.float32),
            "joint_velocity": arm.joint_velocity.astype(np.float32),
            "tcp_pose": arm.tcp_pose,
            **self._task.observe(arm),
        }
        if self._robot.gripper is not None:
            obs["gripper_width"] = np.array([arm.gripper_width_m], dtype=np.float32)
        if self._cloud is not None:
            obs[self._cloud.spec.name] = self._cloud.observe(self._data, self._n_steps)
        return {name: obs[name] if name in obs else self._picture(name) for name in self._spec.obs}

    def _picture(self, name: str) -> np.ndarray:
        """Return a camera's picture, or its depth image."""
        if self._camera_renderer is None:
            self._camera_renderer = Renderer(self._model, *self._image_size)
        if name in self._depths:
            return self._camera_renderer.depth(self._data, self._camera_names[self._depths[name]])
        return self._camera_renderer.render(self._data, self._camera_names[name])

    def _camera_name(self, index: int) -> str:
        return str(self._model.camera(index).name)

    def _check_physics(self) -> None:
        """Raise if MuJoCo met a value that is not a number (it would start over from the reset state by itself)."""
        bad = [kind.name for kind in _DIVERGED if self._data.warning[kind].number > 0]
        if bad or not np.isfinite(self._data.qpos).all():
            self._running = False
            raise SimulationError(
                f"the physics of `{self._robot.name}` with task `{self._task.name}` diverged at step {self._n_steps} "
                f"({', '.join(bad)}); check masses, gains and contacts of the model, then reset"
            )
