"""The workcell around a robot: table, room, lights, a front camera, and the options of the physics."""

from __future__ import annotations

import mujoco
import numpy as np

from robot_rl.errors import SimulationError
from sim.robots import ROBOT_PREFIX, RobotModel
from sim.tasks import Task

PHYSICS_DT_S = 0.002
FRONT_CAMERA = "front"  # for policies: the work area
VIEW_CAMERA = "view"  # for people: the whole arm


def build_scene(robot: RobotModel, task: Task) -> mujoco.MjModel:
    """Return the compiled model of the robot on its table with the task's objects.

    The table's top is z = 0 and the robot's base stands at the origin.

    Raises:
        SimulationError: MuJoCo refuses the scene.
        ConfigError: The robot's file lacks what its description names.
    """
    arm = robot.spec()
    for light in list(arm.lights):
        arm.delete(light)  # the robot's file may bring its own, which would wash out the room's
    spec = mujoco.MjSpec()
    spec.modelname = f"{robot.name}-{task.name}"
    _set_options(spec)
    _add_room(spec)
    task.add_to(spec)
    # Attached rather than extended, so that the defaults of the robot's file do not reach table and objects.
    spec.attach(arm, frame=spec.worldbody.add_frame(), prefix=ROBOT_PREFIX)
    try:
        return spec.compile()
    except (ValueError, mujoco.FatalError) as error:
        raise SimulationError(f"MuJoCo refuses robot `{robot.name}` with task `{task.name}`: {error}") from error


def _set_options(spec: mujoco.MjSpec) -> None:
    spec.option.timestep = PHYSICS_DT_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0  # keeps a held object from creeping out of the fingers
    quality = spec.visual.quality
    quality.offsamples = 0  # software rendering pays for each sample; pictures for people are averaged down instead
    quality.shadowsize = 1024
    spec.visual.headlight.ambient = (0.36, 0.36, 0.36)
    spec.visual.headlight.diffuse = (0.22, 0.22, 0.22)
    spec.visual.headlight.specular = (0.1, 0.1, 0.1)
    spec.visual.map.znear = 0.01
    spec.stat.extent = 1.0
    spec.stat.center = (0.4, 0.0, 0.2)
    # The largest picture anybody asks for; it sizes one off-screen buffer.
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 1280


def _add_room(spec: mujoco.MjSpec) -> None:
    """Add table, floor, two walls, a light and the cameras."""
    box, plane = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_PLANE
    visual = {"contype": 0, "conaffinity": 0}
    _material(spec, "table", (0.82, 0.70, 0.55, 1.0))
    _material(spec, "table_edge", (0.62, 0.50, 0.37, 1.0))
    _material(spec, "floor", (0.66, 0.69, 0.72, 1.0))
    _material(spec, "wall", (0.86, 0.89, 0.92, 1.0))
    world = spec.worldbody
    world.add_geom(name="table", type=box, size=(0.6, 0.6, 0.02), pos=(0.4, 0.0, -0.02), material="table",
                   friction=(1.0, 0.01, 0.001))  # fmt: skip
    world.add_geom(type=box, size=(0.595, 0.595, 0.02), pos=(0.4, 0.0, -0.06), material="table_edge", **visual)
    for x, y in ((-0.15, -0.55), (-0.15, 0.55), (0.95, -0.55), (0.95, 0.55)):
        world.add_geom(type=box, size=(0.03, 0.03, 0.32), pos=(x, y, -0.4), material="table_edge", **visual)
    world.add_geom(type=plane, size=(4.0, 4.0, 0.1), pos=(0.0, 0.0, -0.72), material="floor", **visual)
    for pos, axis in (((-1.6, 0.0, 0.0), (1.0, 0.0, 0.0)), ((0.0, 1.9, 0.0), (0.0, -1.0, 0.0))):
        world.add_geom(type=plane, size=(4.0, 4.0, 0.1), pos=pos, zaxis=axis, material="wall", **visual)
    world.add_light(
        name="sun",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        castshadow=True,
        pos=(1.1, -0.9, 2.2),
        dir=(-0.4, 0.45, -1.0),
        diffuse=(0.55, 0.55, 0.52),
        specular=(0.25, 0.25, 0.25),
    )
    _add_camera(spec, FRONT_CAMERA, eye=np.array([1.15, -0.45, 0.55]), target=np.array([0.44, 0.0, 0.1]), fovy=38.0)
    _add_camera(spec, VIEW_CAMERA, eye=np.array([1.5, -0.85, 0.72]), target=np.array([0.25, 0.03, 0.26]), fovy=35.0)


def _add_camera(spec: mujoco.MjSpec, name: str, *, eye: np.ndarray, target: np.ndarray, fovy: float) -> None:
    """Add a camera at `eye` that looks at `target`, upright, with a vertical field of view in degrees."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    axes = (*right, *np.cross(right, forward))  # a camera looks along its -z
    spec.worldbody.add_camera(name=name, pos=eye, xyaxes=axes, fovy=fovy)


def _material(spec: mujoco.MjSpec, name: str, rgba: tuple[float, float, float, float]) -> None:
    spec.add_material(name=name, rgba=rgba, specular=0.1, shininess=0.1)
