"""Intercept: a light hand catches a target that turns when it likes, round a pillar that stands between them.

Made for judging how chunks are executed: a plan made late is a plan for where the target no longer is, and half-way
between two ways round the pillar is the pillar. Cheap (no physics engine): a point mass in a square metre, driven to a
commanded position by a critically damped servo with limited acceleration, pushed about by small random gusts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robot_rl.errors import ConfigError, SimulationError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Obs, Tick

CONTROL_HZ = 20.0
N_SUBSTEPS = 10
STIFFNESS_1_S2 = 100.0
DAMPING_1_S = 20.0
PILLAR_CENTER_M = (0.5, 0.5)
PILLAR_RADIUS_M = 0.13
HAND_RADIUS_M = 0.02
TARGET_CLEARANCE_M = 0.1
WALL_M = 0.05

_SPECS = tuple(
    ArraySpec(name=name, shape=(2,), unit=unit)
    for name, unit in (("agent_pos", "m"), ("agent_vel", "m/s"), ("target_pos", "m"), ("target_vel", "m/s"))
)
SPEC = RobotSpec(
    name="intercept",
    obs={spec.name: spec for spec in _SPECS},
    action=ActionSpec(name="action", shape=(2,), unit="m", low=0.0, high=1.0, kind="position", frame="table"),
    control_hz=CONTROL_HZ,
)


@dataclass
class _State:
    """Positions [m] and velocities [m/s] of hand and target, as plain floats."""

    x: float
    y: float
    vx: float
    vy: float
    tx: float
    ty: float
    tvx: float
    tvy: float


class InterceptEnv:
    """Catch the target: an `Env`.

    Observations: `agent_pos`, `agent_vel`, `target_pos`, `target_vel`, [m] and [m/s]. The action is the hand's target
    position [m]. Success, and the end, is to be within `catch_m` of the target for `hold_steps` ticks in a row;
    touching the pillar ends the episode without it. The reward is 1 at success.

    Args:
        max_steps: Ticks after which an episode is truncated.
        target_speed_m_s: The target's speed.
        turn_every_s: Mean time between its turns, which are memoryless and to any side.
        max_acceleration_m_s2: What the hand's drive can do.
        gust_m_s2: Standard deviation of a random acceleration of the hand, new at every tick.
        catch_m: How near is caught.
        hold_steps: For how many ticks in a row.

    Raises:
        ConfigError: A number that is not positive.
    """

    def __init__(
        self,
        *,
        max_steps: int = 100,
        target_speed_m_s: float = 0.3,
        turn_every_s: float = 1.5,
        max_acceleration_m_s2: float = 4.0,
        gust_m_s2: float = 2.0,
        catch_m: float = 0.05,
        hold_steps: int = 6,
    ) -> None:
        given = {
            "max_steps": max_steps, "target_speed_m_s": target_speed_m_s, "turn_every_s": turn_every_s,
            "max_acceleration_m_s2": max_acceleration_m_s2, "catch_m": catch_m, "hold_steps": hold_steps,
        }  # fmt: skip
        for name, value in given.items():
            if not value > 0:
                raise ConfigError(f"`{name}` must be positive, got {value}")
        if not gust_m_s2 >= 0:
            raise ConfigError(f"`gust_m_s2` must be 0 or more, got {gust_m_s2}")
        self._max_steps, self._hold_steps = max_steps, hold_steps
        self._speed, self._turn_every_s = target_speed_m_s, turn_every_s
        self._acceleration, self._gust, self._catch_m = max_acceleration_m_s2, gust_m_s2, catch_m
        self._running = False

    @property
    def spec(self) -> RobotSpec:
        """What passes in and out."""
        return SPEC

    def reset(self, seed: int) -> Tick:
        """Start an episode: the hand at rest, the target across the pillar."""
        self._rng = rng = np.random.default_rng(seed)
        angle = rng.uniform(-math.pi, math.pi)
        across = angle + math.pi + rng.uniform(-0.6, 0.6)
        (x, y), (tx, ty) = _on_ring(rng.uniform(0.3, 0.42), angle), _on_ring(rng.uniform(0.28, 0.42), across)
        self._s = _State(x, y, 0.0, 0.0, tx, ty, 0.0, 0.0)
        self._turn()
        self._n_steps = self._held = 0
        self._running = True
        return Tick(stamp_ns=0, obs=self._observe())

    def step(self, action: np.ndarray) -> Tick:
        """Move towards `action` [m] for 0.05 s.

        Raises:
            SimulationError: No episode is running.
            SpecError: The action has the wrong shape or dtype, or is not finite.
        """
        if not self._running:
            raise SimulationError("no episode is running: the last one ended or none began; call reset(seed) first")
        commanded = SPEC.action.validate(action)
        executed = np.clip(commanded, np.float32(0.0), np.float32(1.0))
        hit = self._move(float(executed[0]), float(executed[1]))
        self._n_steps += 1
        near = math.hypot(self._s.x - self._s.tx, self._s.y - self._s.ty) <= self._catch_m
        self._held = self._held + 1 if near else 0
        success = not hit and self._held >= self._hold_steps
        terminated = hit or success
        truncated = not terminated and self._n_steps >= self._max_steps
        self._running = not (terminated or truncated)
        return Tick(
            stamp_ns=self._n_steps * SPEC.step_ns, obs=self._observe(), action=commanded.copy(),
            action_executed=executed, reward=float(success), success=success, terminated=terminated,
            truncated=truncated, info={"hit": hit},
        )  # fmt: skip

    def render(self) -> np.ndarray:
        """Return a picture for people, uint8 [240, 240, 3]: pillar grey, target red, hand blue; y upwards."""
        grid = (np.arange(240) + 0.5) / 240
        x, y = grid[None, :], grid[::-1, None]
        picture = np.full((240, 240, 3), 255, dtype=np.uint8)
        things = [(*PILLAR_CENTER_M, PILLAR_RADIUS_M, (140, 140, 140))]
        if hasattr(self, "_s"):
            things += [(self._s.tx, self._s.ty, self._catch_m, (220, 60, 60))]
            things += [(self._s.x, self._s.y, HAND_RADIUS_M, (40, 70, 200))]
        for cx, cy, radius, colour in things:
            picture[(x - cx) ** 2 + (y - cy) ** 2 <= radius**2] = colour
        return picture

    def close(self) -> None:
        """End the episode; nothing else is held."""
        self._running = False

    def _move(self, ux: float, uy: float) -> bool:
        """Advance hand and target by one tick; return whether the hand touched the pillar."""
        s, dt = self._s, 1.0 / (CONTROL_HZ * N_SUBSTEPS)
        gx, gy = self._rng.normal(0.0, self._gust, 2).tolist() if self._gust else (0.0, 0.0)
        for _ in range(N_SUBSTEPS):
            ax = STIFFNESS_1_S2 * (ux - s.x) - DAMPING_1_S * s.vx
            ay = STIFFNESS_1_S2 * (uy - s.y) - DAMPING_1_S * s.vy
            share = min(1.0, self._acceleration / max(math.hypot(ax, ay), 1e-9))
            s.vx, s.vy = s.vx + (share * ax + gx) * dt, s.vy + (share * ay + gy) * dt
            s.x, s.y = s.x + s.vx * dt, s.y + s.vy * dt
            s.tx, s.ty = s.tx + s.tvx * dt, s.ty + s.tvy * dt
            if _from_pillar(s.x, s.y) < PILLAR_RADIUS_M + HAND_RADIUS_M:
                return True
        self._steer_target()
        return False

    def _steer_target(self) -> None:
        """Let the target turn by chance, and turn back where it would leave its ground."""
        if self._rng.random() < 1.0 - math.exp(-1.0 / (CONTROL_HZ * self._turn_every_s)):
            self._turn()
        s = self._s
        s.tvx = _inwards(s.tx, s.tvx)
        s.tvy = _inwards(s.ty, s.tvy)
        cx, cy = s.tx - PILLAR_CENTER_M[0], s.ty - PILLAR_CENTER_M[1]
        radius = math.hypot(cx, cy)
        outward = (s.tvx * cx + s.tvy * cy) / radius
        if radius < PILLAR_RADIUS_M + TARGET_CLEARANCE_M and outward < 0.0:  # mirrored at the pillar's tangent
            s.tvx, s.tvy = s.tvx - 2 * outward * cx / radius, s.tvy - 2 * outward * cy / radius

    def _turn(self) -> None:
        heading = self._rng.uniform(-math.pi, math.pi)
        self._s.tvx, self._s.tvy = self._speed * math.cos(heading), self._speed * math.sin(heading)

    def _observe(self) -> Obs:
        s = self._s
        rows = ((s.x, s.y), (s.vx, s.vy), (s.tx, s.ty), (s.tvx, s.tvy))
        return {name: np.array(row, dtype=np.float32) for name, row in zip(SPEC.obs, rows, strict=True)}


def _on_ring(radius: float, angle: float) -> tuple[float, float]:
    return PILLAR_CENTER_M[0] + radius * math.cos(angle), PILLAR_CENTER_M[1] + radius * math.sin(angle)


def _from_pillar(x: float, y: float) -> float:
    return math.hypot(x - PILLAR_CENTER_M[0], y - PILLAR_CENTER_M[1])


def _inwards(position: float, velocity: float) -> float:
    """Return the velocity, turned round where it leads out of the target's ground."""
    if position < WALL_M:
        return abs(velocity)
    return -abs(velocity) if position > 1.0 - WALL_M else velocity
