"""A script that inserts the peg from observations only: over the hole, down, and a search where it meets the rim."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy.spatial.transform import Rotation

from robot_rl.errors import ConfigError, SpecError
from robot_rl.specs import ArraySpec
from robot_rl.values import ActionChunk, Obs, PolicyInput
from sim.hand import HandReference, nearest_quarter_turn, pose_yaw
from sim.insert import PEG_LENGTH_M
from sim.robots import ARM7, RobotModel

_OVER_M = 0.0015  # close enough to the hole's axis to go down
_ALIGNED_RAD = 0.03
_INSIDE_M = 0.006  # a tip so deep has found the hole
_BOTTOM_M = 0.035  # where it pushes the tip to
_RIM_M = 0.004  # from here on the tip may touch
_LEAD_M = 0.008  # how far the reference leads the tip at the rim: stiffness makes it a force, which the grip must bear
_PRESS_M = 0.003  # and while searching
_ADVANCE_M = 3e-4  # a tip that sinks by less in a tick is stuck
_STUCK_TICKS = 2
_TURN_RAD = 0.8  # of the spiral, a tick
_WIDEN_M = 1.5e-4  # of the spiral, a tick
_WIDEST_M = 0.003


class InsertPhase(Enum):
    """What the hand is about to do."""

    OVER = "over"
    DOWN = "down"
    SEARCH = "search"


@dataclass(frozen=True)
class _Style:
    """How this episode is performed: fastest motions of the hand [m/s], height of the tip over the block [m]."""

    speed_m_s: float
    down_m_s: float
    hover_m: float

    @classmethod
    def draw(cls, rng: np.random.Generator, variation: float) -> _Style:
        u = variation * rng.uniform(-1.0, 1.0, size=3)
        return cls(0.22 * (1.0 + 0.15 * u[0]), 0.12 * (1.0 + 0.15 * u[1]), 0.012 + 0.004 * u[2])


class InsertExpert:
    """Inserts the peg of `Insert` from one observation step at a time; a `Policy` with chunks of one action.

    The peg's pose in the hand is measured at every tick, so an odd grasp or a slip is made good. A peg that does not
    sink is pressed lightly and led along a growing spiral until it does. All variation comes from `seed` and the
    episode's first peg and hole poses.

    Args:
        robot: The arm, with a gripper.
        control_hz: Control rate of its environment.
        seed: Seed of the small variations between episodes.
        variation: How much of them; 0 for none.
        max_acceleration_m_s2: Acceleration limit of the hand.
        max_turn_rad_s: Turning speed limit of the hand.

    Raises:
        ConfigError: The robot has no gripper.
    """

    n_obs = 1
    n_execute = 1

    def __init__(
        self,
        robot: RobotModel = ARM7,
        *,
        control_hz: float = 20.0,
        seed: int = 0,
        variation: float = 1.0,
        max_acceleration_m_s2: float = 1.0,
        max_turn_rad_s: float = 1.2,
    ) -> None:
        if robot.gripper is None:
            raise ConfigError(f"the insert expert needs a robot with a gripper; `{robot.name}` has none")
        self._kinematics = robot.kinematics()
        self._hand = HandReference(
            self._kinematics, control_hz=control_hz, max_acceleration_m_s2=max_acceleration_m_s2,
            max_turn_rad_s=max_turn_rad_s,
        )  # fmt: skip
        self._obs = (
            ArraySpec(name="joint_position", shape=(len(robot.joints),), unit="rad"),
            ArraySpec(name="peg_pose", shape=(9,), unit="m, rot6d"),
            ArraySpec(name="hole_pose", shape=(9,), unit="m, rot6d"),
        )
        self._seed, self._variation = seed, variation
        self._step_ns = round(1e9 / control_hz)
        self.reset()

    @property
    def phase(self) -> InsertPhase:
        """What the hand is about to do."""
        return self._phase

    def reset(self) -> None:
        """Forget the last episode."""
        self._phase = InsertPhase.OVER
        self._style: _Style | None = None
        self._depth, self._stuck, self._searched = -np.inf, 0, 0

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        """Return the next joint targets, and a closed gripper.

        Raises:
            SpecError: An observation is missing or not what the spec says.
        """
        given = policy_input.obs
        missing = [spec.name for spec in self._obs if spec.name not in given]
        if missing:
            raise SpecError(f"the insert expert needs observations {missing}; got {sorted(given)}")
        obs = {spec.name: spec.validate(given[spec.name], leading=1)[-1].astype(np.float64) for spec in self._obs}
        style = self._style if self._style is not None else self._begin(obs)
        joints = self._move(obs, style)
        action = np.append(joints, 0.0).astype(np.float32)
        return ActionChunk(policy_input.stamp_ns, self._step_ns, action[None])

    def _begin(self, obs: Obs) -> _Style:
        """Take the reference from where the arm is, and draw this episode's style."""
        seen = np.concatenate([obs["peg_pose"], obs["hole_pose"]]).astype(np.float32)
        rng = np.random.default_rng([self._seed, zlib.crc32(seen.tobytes())])
        self._style = _Style.draw(rng, self._variation)
        self._hand.begin(obs["joint_position"])
        return self._style

    def _move(self, obs: Obs, style: _Style) -> np.ndarray:
        """Return joint targets one step nearer to where the peg should be."""
        peg, hole = _matrix(obs["peg_pose"]), obs["hole_pose"]
        tip = peg[:3, 3] - PEG_LENGTH_M * 0.5 * peg[:3, 2]
        yaw = nearest_quarter_turn(pose_yaw(hole), pose_yaw(obs["peg_pose"]))
        target, speed = self._goal(tip, hole[:3], abs(yaw - pose_yaw(obs["peg_pose"])), style), style.speed_m_s
        if self._phase is not InsertPhase.OVER:
            speed = style.down_m_s
        T_base_tip = np.eye(4)
        T_base_tip[:3, :3], T_base_tip[:3, 3] = Rotation.from_euler("z", yaw).as_matrix(), target
        T_base_seen_tip = peg.copy()
        T_base_seen_tip[:3, 3] = tip
        T_tip_tool = np.linalg.inv(T_base_seen_tip) @ self._kinematics.forward(obs["joint_position"])
        goal = T_base_tip @ T_tip_tool
        return self._hand.follow(goal[:3, 3], Rotation.from_matrix(goal[:3, :3]), speed)

    def _goal(self, tip: np.ndarray, mouth: np.ndarray, turned: float, style: _Style) -> np.ndarray:
        """Move on to the next phase when this one is done, and return where the tip should go [m]."""
        depth, off = float(mouth[2] - tip[2]), float(np.linalg.norm((tip - mouth)[:2]))
        sank, self._depth = depth - self._depth, depth
        if self._phase is InsertPhase.OVER:
            if off > _OVER_M or turned > _ALIGNED_RAD:
                return np.asarray(mouth + _up(style.hover_m))
            self._phase = InsertPhase.DOWN
        if depth > _INSIDE_M:
            self._phase, self._stuck, self._searched = InsertPhase.DOWN, 0, 0
        elif depth > -_RIM_M:
            self._stuck = self._stuck + 1 if sank < _ADVANCE_M else 0
            if self._stuck >= _STUCK_TICKS:
                self._phase = InsertPhase.SEARCH
        if self._phase is InsertPhase.DOWN:
            lead = _LEAD_M if -_RIM_M < depth < _INSIDE_M else np.inf
            return np.asarray([*mouth[:2], max(mouth[2] - _BOTTOM_M, tip[2] - lead)])
        self._searched += 1
        angle, radius = _TURN_RAD * self._searched, min(_WIDEST_M, _WIDEN_M * self._searched)
        around = radius * np.array([np.cos(angle), np.sin(angle), 0.0])
        return np.asarray(np.append(mouth[:2], tip[2]) + around - _up(_PRESS_M))


def _matrix(pose: np.ndarray) -> np.ndarray:
    """Return the pose [4, 4] of position and rot6d [9]."""
    x, y = pose[3:6], pose[6:9]
    T = np.eye(4)
    T[:3, 0], T[:3, 1], T[:3, 2], T[:3, 3] = x, y, np.cross(x, y), pose[:3]
    return T


def _up(distance_m: float) -> np.ndarray:
    return np.array([0.0, 0.0, distance_m])
