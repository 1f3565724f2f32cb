"""Put a square peg into a square hole that is one millimetre wider."""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from robot_rl.errors import ConfigError
from robot_rl.specs import ArraySpec
from robot_rl.values import Obs
from sim.arm import SimArm, pose9

PEG_WIDTH_M = 0.02
PEG_LENGTH_M = 0.08
BLOCK_HEIGHT_M = 0.05
_BLOCK_HALF_M = 0.035
_TOP_ABOVE_TCP_M = 0.012  # where in the fingers the peg's upper end is, without offset
_SETTLE_STEPS = 60  # physics steps in which the fingers take hold
_STIFF = {"solref": (0.004, 1.0), "solimp": (0.95, 0.99, 0.0005, 0.5, 2.0)}
"""Contact of peg and block: twice the physics step as time constant, and hardly any depth."""


class Insert:
    """Insert a square peg that the gripper holds from the start: done when its tip is `depth_m` below the block's top.

    The hole is `clearance_m` wider than the peg in total, with a bevelled edge of `bevel_m` that guides a peg which is
    off by no more than that. The block stands upright, anywhere in a rectangle, turned a little; the peg is held
    upright, not quite in the middle of the fingers.

    Args:
        clearance_m: Width of the hole less that of the peg.
        bevel_m: Width and height of the bevel, 45 degrees; 0 for a sharp edge.
        center_m: Middle of the hole's rectangle, x and y in the robot's base frame.
        area_m: Its extent in x and y.
        max_yaw_rad: The block is turned by up to so much either way.
        grasp_offset_m: The peg is held off the middle by up to so much along the fingers' faces and along itself.
        depth_m: How deep is done.
        friction: Sliding friction of peg and block.
        peg_mass_kg: Mass of the peg.

    Raises:
        ConfigError: A size that is negative, or a bevel or depth that the block has no room for.
    """

    name = "insert"

    def __init__(
        self,
        *,
        clearance_m: float = 0.001,
        bevel_m: float = 0.003,
        center_m: tuple[float, float] = (0.5, 0.0),
        area_m: tuple[float, float] = (0.12, 0.16),
        max_yaw_rad: float = 0.3,
        grasp_offset_m: float = 0.003,
        depth_m: float = 0.025,
        friction: float = 0.2,
        peg_mass_kg: float = 0.25,
    ) -> None:
        sizes = {"clearance_m": clearance_m, "bevel_m": bevel_m, "max_yaw_rad": max_yaw_rad, "friction": friction,
                 "grasp_offset_m": grasp_offset_m, "area_m": min(area_m)}  # fmt: skip
        if wrong := {name: value for name, value in sizes.items() if value < 0}:
            raise ConfigError(f"insert: sizes must not be negative, got {wrong}")
        if not bevel_m < depth_m < BLOCK_HEIGHT_M or peg_mass_kg <= 0:
            raise ConfigError(
                f"insert: need bevel_m < depth_m < {BLOCK_HEIGHT_M:g} (the block's height) and peg_mass_kg > 0, got "
                f"{bevel_m}, {depth_m} and {peg_mass_kg}"
            )
        self._half, self._bevel = (PEG_WIDTH_M + clearance_m) / 2, bevel_m
        self._clearance, self._depth, self._friction, self._mass = clearance_m, depth_m, friction, peg_mass_kg
        self._center, self._area, self._max_yaw = np.array(center_m), np.array(area_m), max_yaw_rad
        self._grasp_offset = grasp_offset_m

    @property
    def obs(self) -> Mapping[str, ArraySpec]:
        """`peg_pose`, of the peg's centre, and `hole_pose`, of the middle of the hole's mouth; both with z up."""
        names = ("peg_pose", "hole_pose")
        return {name: ArraySpec(name=name, shape=(9,), unit="m, rot6d") for name in names}

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Add block and peg."""
        spec.add_material(name="block", rgba=(0.30, 0.42, 0.62, 1.0), specular=0.2, shininess=0.3)
        spec.add_material(name="peg", rgba=(0.90, 0.62, 0.13, 1.0), specular=0.2, shininess=0.3)
        self._add_block(spec.worldbody.add_body(name="block", mocap=True, pos=(*self._center, 0.0)))
        half, x = PEG_WIDTH_M / 2, self._center[0] - 0.3
        body = spec.worldbody.add_body(name="peg", pos=(x, 0.0, PEG_LENGTH_M / 2))
        body.add_freejoint(name="peg")
        body.add_geom(name="peg", type=mujoco.mjtGeom.mjGEOM_BOX, size=(half, half, PEG_LENGTH_M / 2),
                      mass=self._mass, material="peg", friction=(self._friction, 0.005, 0.0001), **_STIFF)  # fmt: skip

    def reset(self, arm: SimArm, rng: np.random.Generator) -> None:
        """Place the block, put the peg between the fingers and let them take hold.

        Raises:
            ConfigError: The robot has no gripper that opens wider than the peg.
        """
        xy = self._center + self._area * rng.uniform(-0.5, 0.5, size=2)
        half_yaw = self._max_yaw * rng.uniform(-1.0, 1.0) / 2
        along, up = self._grasp_offset * rng.uniform(-1.0, 1.0, size=2)
        data, block = arm.data, arm.model.body("block").mocapid[0]
        data.mocap_pos[block] = [*xy, 0.0]
        data.mocap_quat[block] = [np.cos(half_yaw), 0.0, 0.0, np.sin(half_yaw)]
        arm.close_on(PEG_WIDTH_M)
        mujoco.mj_kinematics(arm.model, data)
        tool, rotation = arm.tool
        upright = rotation @ np.diag([1.0, -1.0, -1.0])  # the tool's z points down, the peg's up
        peg, quat = data.joint("peg"), np.zeros(4)
        mujoco.mju_mat2Quat(quat, upright.ravel())
        center = np.array([along, 0.0, _TOP_ABOVE_TCP_M - PEG_LENGTH_M / 2 + up])
        peg.qpos[:], peg.qvel[:] = [*(tool + upright @ center), *quat], 0.0
        mujoco.mj_step(arm.model, data, _SETTLE_STEPS)

    def observe(self, arm: SimArm) -> Obs:
        """Return the poses of peg and hole."""
        peg, block = arm.data.body("peg"), arm.data.body("block")
        mouth = np.add(block.xpos, [0.0, 0.0, BLOCK_HEIGHT_M])
        return {"peg_pose": pose9(peg.xpos, peg.xmat), "hole_pose": pose9(mouth, block.xmat)}

    def succeeded(self, arm: SimArm) -> bool:
        """Return whether the peg's tip is deep enough, inside the hole."""
        peg, block = arm.data.body("peg"), arm.data.body("block")
        tip = peg.xpos - PEG_LENGTH_M / 2 * peg.xmat.reshape(3, 3)[:, 2]
        x, y, z = block.xmat.reshape(3, 3).T @ (tip - block.xpos) - [0.0, 0.0, BLOCK_HEIGHT_M]
        return bool(z < -self._depth and max(abs(x), abs(y)) < self._half)

    def _add_block(self, body: mujoco.MjsBody) -> None:
        """Add four walls round the hole: each its lower part, its upper part behind the bevel, and the bevel."""
        inner, bevel, height = self._half, self._bevel, BLOCK_HEIGHT_M
        for quarter in range(4):
            wall = _Side(body, quarter * np.pi / 2, self._friction)
            wall.add(x=(inner, _BLOCK_HALF_M), z=(0.0, height - bevel))
            if bevel > 0:
                wall.add(x=(inner + bevel, _BLOCK_HALF_M), z=(height - bevel, height))
                wall.add_bevel(x=inner, width=bevel)


class _Side:
    """One side of the block, `turn` about z from the side at +x."""

    def __init__(self, body: mujoco.MjsBody, turn: float, friction: float) -> None:
        self._body, self._turn, self._friction = body, turn, friction

    def add(self, *, x: tuple[float, float], z: tuple[float, float]) -> None:
        """Add a box that spans x and z and is as wide as the block."""
        size = ((x[1] - x[0]) / 2, _BLOCK_HALF_M, (z[1] - z[0]) / 2)
        self._box(np.array([sum(x) / 2, 0.0, sum(z) / 2]), size, tilt=0.0)

    def add_bevel(self, *, x: float, width: float) -> None:
        """Add a box whose face goes from the hole's edge at x up and outwards to the block's top at 45 degrees."""
        middle = np.array([x + width / 2, 0.0, BLOCK_HEIGHT_M - width / 2])
        thickness = width / np.sqrt(2.0)  # it ends inside the walls
        inwards = np.array([-1.0, 0.0, 1.0]) / np.sqrt(2.0)
        size = (width / np.sqrt(2.0), x + width, thickness / 2)
        self._box(middle - thickness / 2 * inwards, size, tilt=-np.pi / 4)

    def _box(self, center: np.ndarray, size: tuple[float, float, float], *, tilt: float) -> None:
        turn = Rotation.from_euler("z", self._turn)
        w_last = (turn * Rotation.from_euler("y", tilt)).as_quat()
        self._body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=size, pos=turn.apply(center), quat=np.roll(w_last, 1),
                            material="block", friction=(self._friction, 0.005, 0.0001), **_STIFF)  # fmt: skip
