"""What there is to do on the table: objects, where they may start, and when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import mujoco
import numpy as np

from robot_rl.errors import ConfigError
from robot_rl.specs import ArraySpec
from robot_rl.values import Obs
from sim.arm import SimArm, pose9


class Task(Protocol):
    """One task on the table; `ArmEnv` runs any of them with any arm."""

    @property
    def name(self) -> str:
        """Short name."""

    @property
    def obs(self) -> Mapping[str, ArraySpec]:
        """State observations that the task adds to the arm's own."""

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Add the task's objects to the scene; the table's top is z = 0."""

    def reset(self, arm: SimArm, rng: np.random.Generator) -> None:
        """Put the objects where the episode starts, taking all randomness from `rng`."""

    def observe(self, arm: SimArm) -> Obs:
        """Return the observations promised in `obs`."""

    def succeeded(self, arm: SimArm) -> bool:
        """Return whether the task is done."""


class Lift:
    """Lift a cube: done when both fingers hold it and its lowest corner is `lift_height_m` above the table.

    (robosuite's Lift asks for 4 cm and no grasp; 10 cm and a grasp leave no doubt.) The cube starts flat, anywhere in a
    rectangle, turned by up to 45 degrees either way, which covers every orientation of a cube.

    Args:
        cube_size_m: Edge of the cube.
        cube_mass_kg: Its mass.
        center_m: Middle of the start rectangle, x and y in the robot's base frame.
        area_m: Its extent in x and y.
        lift_height_m: How high is done.
    """

    name = "lift"

    def __init__(
        self,
        *,
        cube_size_m: float = 0.04,
        cube_mass_kg: float = 0.05,
        center_m: tuple[float, float] = (0.5, 0.0),
        area_m: tuple[float, float] = (0.2, 0.3),
        lift_height_m: float = 0.1,
    ) -> None:
        if min(cube_size_m, cube_mass_kg, lift_height_m) <= 0 or min(area_m) < 0:
            raise ConfigError(
                "lift: cube_size_m, cube_mass_kg and lift_height_m must be positive and area_m not negative, got "
                f"{cube_size_m}, {cube_mass_kg}, {lift_height_m}, {tuple(area_m)}"
            )
        self.cube_size_m = cube_size_m
        self._mass, self._center, self._area = cube_mass_kg, np.array(center_m), np.array(area_m)
        self._lift_height = lift_height_m

    @property
    def obs(self) -> Mapping[str, ArraySpec]:
        """`cube_pose`: position and rot6d of the cube's centre in the base frame."""
        return {"cube_pose": ArraySpec(name="cube_pose", shape=(9,), unit="m, rot6d")}

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Add the cube, and a mat that shows where it may start."""
        mat = (*((self._area + 2 * self.cube_size_m) / 2), 0.0005)
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=mat, pos=(*self._center, 0.0005),
                                rgba=(0.90, 0.81, 0.68, 1.0), contype=0, conaffinity=0)  # fmt: skip
        spec.add_material(name="cube", rgba=(0.85, 0.16, 0.14, 1.0), specular=0.2, shininess=0.3)
        body = spec.worldbody.add_body(name="cube", pos=(*self._center, self.cube_size_m / 2))
        body.add_freejoint(name="cube")
        half = self.cube_size_m / 2
        body.add_geom(name="cube", type=mujoco.mjtGeom.mjGEOM_BOX, size=(half, half, half), mass=self._mass,
                      material="cube", condim=4, friction=(1.0, 0.01, 0.001))  # fmt: skip

    def reset(self, arm: SimArm, rng: np.random.Generator) -> None:
        """Put the cube flat on the table, at rest.

        Raises:
            ConfigError: The robot has no gripper that opens wider than the cube.
        """
        gripper = arm.robot.gripper
        if gripper is None or gripper.max_width_m <= self.cube_size_m:
            raise ConfigError(
                f"lift: robot `{arm.robot.name}` needs a gripper that opens more than {self.cube_size_m:g} m, "
                f"got {'none' if gripper is None else f'{gripper.max_width_m:g} m'}"
            )
        xy = self._center + self._area * rng.uniform(-0.5, 0.5, size=2)
        half_yaw = rng.uniform(-np.pi / 4, np.pi / 4) / 2
        cube = arm.data.joint("cube")
        cube.qpos[:] = [*xy, self.cube_size_m / 2, np.cos(half_yaw), 0.0, 0.0, np.sin(half_yaw)]
        cube.qvel[:] = 0.0

    def observe(self, arm: SimArm) -> Obs:
        """Return the cube's pose."""
        cube = arm.data.body("cube")
        return {"cube_pose": pose9(cube.xpos, cube.xmat)}

    def succeeded(self, arm: SimArm) -> bool:
        """Return whether the held cube's lowest corner is high enough."""
        cube = arm.data.body("cube")
        lowest_corner = cube.xpos[2] - self.cube_size_m / 2 * np.abs(cube.xmat[6:9]).sum()
        return bool(lowest_corner > self._lift_height) and arm.holds("cube")
