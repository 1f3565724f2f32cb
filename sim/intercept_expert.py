"""The scripted demonstrator of `sim.intercept`: lead the target, and go round the pillar on one side or the other."""

from __future__ import annotations

import math
import zlib

import numpy as np

from robot_rl.errors import SpecError
from robot_rl.values import ActionChunk, PolicyInput
from sim.intercept import (
    DAMPING_1_S,
    HAND_RADIUS_M,
    PILLAR_CENTER_M,
    PILLAR_RADIUS_M,
    SPEC,
    STIFFNESS_1_S2,
)

Vector = np.ndarray


class InterceptExpert:
    """Steers the hand tick by tick; an even choice of sides is drawn, so that demonstrations show both.

    Args:
        seed: With the episode's first observation, decides the sides.
        speed_m_s: How fast the hand travels.
        clearance_m: How far from the pillar's face it passes.
        undecided_rad: Where the target is across the pillar to within this angle, the side is drawn; else the shorter
            way is taken.
    """

    def __init__(
        self, *, seed: int = 0, speed_m_s: float = 0.6, clearance_m: float = 0.1, undecided_rad: float = 0.7
    ) -> None:
        self._seed, self._speed, self._undecided = seed, speed_m_s, undecided_rad
        self._ring_m = PILLAR_RADIUS_M + HAND_RADIUS_M + clearance_m
        self.reset()

    @property
    def n_obs(self) -> int:
        """The newest observation is enough."""
        return 1

    @property
    def n_execute(self) -> int:
        """It looks at every tick."""
        return 1

    def reset(self) -> None:
        """Forget the last episode."""
        self._rng: np.random.Generator | None = None
        self._side = 0.0

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        """Return the next position to command.

        Raises:
            SpecError: An observation is missing or not what the spec says.
        """
        if missing := sorted(set(SPEC.obs) - set(policy_input.obs)):
            raise SpecError(f"the intercept expert needs observations {missing}; got {sorted(policy_input.obs)}")
        rows = {name: spec.validate(policy_input.obs[name], leading=1)[-1] for name, spec in SPEC.obs.items()}
        hand, velocity, target, target_velocity = (row.astype(np.float64) for row in rows.values())
        if self._rng is None:
            self._rng = np.random.default_rng([self._seed, zlib.crc32(rows["target_pos"].tobytes())])
        wanted = self._wanted_velocity(hand, velocity, target, target_velocity)
        # The servo settles at `velocity` when it is told to be DAMPING / STIFFNESS * velocity ahead.
        action = np.clip(hand + DAMPING_1_S / STIFFNESS_1_S2 * wanted, 0.0, 1.0).astype(np.float32)
        return ActionChunk(policy_input.stamp_ns, SPEC.step_ns, action[None])

    def _wanted_velocity(self, hand: Vector, velocity: Vector, target: Vector, target_velocity: Vector) -> Vector:
        distance = float(np.linalg.norm(target - hand))
        aim = np.clip(target + target_velocity * min(distance / self._speed, 0.4), 0.02, 0.98)
        if not self._blocked(hand, aim):
            self._side = 0.0
            return _limited(target_velocity + 4.0 * (target - hand), self._speed)
        if self._side == 0.0:
            self._side = self._choose(hand, velocity, aim)
        return _limited(8.0 * (self._way_round(hand) - hand), self._speed)

    def _blocked(self, hand: Vector, aim: Vector) -> bool:
        """Return whether the straight way comes too near to the pillar."""
        way = aim - hand
        share = float(np.clip((PILLAR_CENTER_M - hand) @ way / max(float(way @ way), 1e-9), 0.0, 1.0))
        nearest = np.linalg.norm(hand + share * way - PILLAR_CENTER_M)
        return bool(nearest < self._ring_m - 0.02 and share > 0.0)

    def _choose(self, hand: Vector, velocity: Vector, aim: Vector) -> float:
        """Return +1 for counter-clockwise round the pillar, -1 for clockwise."""
        ray = hand - PILLAR_CENTER_M
        turning = float(ray[0] * velocity[1] - ray[1] * velocity[0]) / max(float(np.linalg.norm(ray)), 1e-9)
        if abs(turning) > 0.2:  # it is on its way round already
            return math.copysign(1.0, turning)
        angle = _angle(aim) - _angle(hand)
        angle = (angle + math.pi) % (2 * math.pi) - math.pi
        if abs(angle) > math.pi - self._undecided:
            assert self._rng is not None
            return 1.0 if self._rng.random() < 0.5 else -1.0
        return math.copysign(1.0, angle)

    def _way_round(self, hand: Vector) -> Vector:
        """Return a point ahead on the ring round the pillar, reached tangentially from outside."""
        radius = max(float(np.linalg.norm(hand - PILLAR_CENTER_M)), self._ring_m)
        ahead = math.acos(self._ring_m / radius) + 0.45
        angle = _angle(hand) + self._side * ahead
        return np.asarray(PILLAR_CENTER_M) + self._ring_m * np.array([math.cos(angle), math.sin(angle)])


def _angle(point: Vector) -> float:
    return math.atan2(point[1] - PILLAR_CENTER_M[1], point[0] - PILLAR_CENTER_M[0])


def _limited(velocity: Vector, speed: float) -> Vector:
    """Return a velocity of at most `speed`."""
    return velocity * min(1.0, speed / max(float(np.linalg.norm(velocity)), 1e-9))
