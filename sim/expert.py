"""A script that lifts the cube as a person would: from observations only, smoothly, a little differently each time."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import Enum

import numpy as np

from robot_rl.errors import ConfigError, SpecError
from robot_rl.specs import ArraySpec
from robot_rl.values import ActionChunk, Obs, PolicyInput
from sim.hand import HandReference, nearest_quarter_turn, pointing_down, pose_yaw, yaw_of
from sim.robots import ARM7, RobotModel

_ABOVE_M = 0.02  # close enough above the cube to begin to descend
_ALIGNED_COSINE = np.cos(0.15)
_AT_GRASP_M = 0.007
_STILL_M = 5e-4  # per tick: the fingers have met the cube
_LIFT_M = 0.16


class Phase(Enum):
    """What the hand is about to do."""

    APPROACH = "approach"
    DESCEND = "descend"
    CLOSE = "close"
    LIFT = "lift"


@dataclass(frozen=True)
class Style:
    """How this episode is performed.

    Args:
        speed_m_s: Fastest motion of the hand.
        hover_m: Height above the cube at which the approach aims.
        approach_offset_m: Where above the cube the approach aims, x and y.
        grasp_offset_m: Grasp height relative to the cube's centre.
    """

    speed_m_s: float
    hover_m: float
    approach_offset_m: np.ndarray
    grasp_offset_m: float

    @classmethod
    def draw(cls, rng: np.random.Generator, variation: float) -> Style:
        """Draw a style; `variation` 0 gives always the same one."""
        u = variation * rng.uniform(-1.0, 1.0, size=5)
        return cls(
            speed_m_s=0.22 * (1.0 + 0.15 * u[0]),
            hover_m=0.09 + 0.02 * u[1],
            approach_offset_m=0.012 * u[2:4],
            grasp_offset_m=0.004 * u[4],
        )


class LiftExpert:
    """Lifts the cube of `Lift` from one observation step at a time; a `Policy` with chunks of one action.

    The hand follows a reference that is limited in speed and acceleration, turned into joint targets by differential
    IK. It goes above the cube, down, closes, and lifts; a lost cube sends it back to the start of that list. All
    variation comes from `seed` and the episode's first cube pose, so an episode looks the same whatever was played
    before it.

    Args:
        robot: The arm, with a gripper.
        control_hz: Control rate of its environment.
        seed: Seed of the small variations between episodes.
        variation: How much of them; 0 for none.
        cube_size_m: Edge of the cube.
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
        cube_size_m: float = 0.04,
        max_acceleration_m_s2: float = 1.0,
        max_turn_rad_s: float = 1.2,
    ) -> None:
        if robot.gripper is None:
            raise ConfigError(f"the lift expert needs a robot with a gripper; `{robot.name}` has none")
        self._kinematics = robot.kinematics()
        self._open_m = robot.gripper.max_width_m
        self._obs = (
            ArraySpec(name="joint_position", shape=(len(robot.joints),), unit="rad"),
            ArraySpec(name="gripper_width", shape=(1,), unit="m"),
            ArraySpec(name="cube_pose", shape=(9,), unit="m, rot6d"),
        )
        self._seed, self._variation = seed, variation
        self._cube_size = cube_size_m
        self._hand = HandReference(
            self._kinematics, control_hz=control_hz, max_acceleration_m_s2=max_acceleration_m_s2,
            max_turn_rad_s=max_turn_rad_s,
        )  # fmt: skip
        self._step_ns = round(1e9 / control_hz)
        self.reset()

    @property
    def phase(self) -> Phase:
        """What the hand is about to do."""
        return self._phase

    def reset(self) -> None:
        """Forget the last episode."""
        self._phase = Phase.APPROACH
        self._style: Style | None = None
        self._width = self._open_m
        self._yaw = 0.0
        self._hold = np.zeros(3)

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        """Return the next joint targets and gripper width.

        Raises:
            SpecError: An observation is missing or not what the spec says.
        """
        given = policy_input.obs
        missing = [spec.name for spec in self._obs if spec.name not in given]
        if missing:
            raise SpecError(f"the lift expert needs observations {missing}; got {sorted(given)}")
        rows = {spec.name: spec.validate(given[spec.name], leading=1)[-1] for spec in self._obs}
        obs = {name: row.astype(np.float64) for name, row in rows.items()}
        style = self._style if self._style is not None else self._begin(obs)
        self._yaw = nearest_quarter_turn(pose_yaw(obs["cube_pose"]), self._yaw) if self._is_free else self._yaw
        joints = self._hand.follow(self._goal(obs, style), pointing_down(self._yaw), style.speed_m_s)
        action = np.append(joints, self._open_m if self._is_free else 0.0).astype(np.float32)
        self._width = float(obs["gripper_width"][0])
        return ActionChunk(policy_input.stamp_ns, self._step_ns, action[None])

    @property
    def _is_free(self) -> bool:
        """Whether the gripper is open."""
        return self._phase in (Phase.APPROACH, Phase.DESCEND)

    def _begin(self, obs: Obs) -> Style:
        """Take the reference from where the arm is, see whether it holds the cube, and draw this episode's style."""
        episode = zlib.crc32(obs["cube_pose"].astype(np.float32).tobytes())
        self._style = Style.draw(np.random.default_rng([self._seed, episode]), self._variation)
        self._hand.begin(obs["joint_position"])
        quarter = np.pi / 2  # in quarter turns, so that the start's noise does not decide how the cube is taken
        self._yaw = quarter * round(yaw_of(self._hand.pose) / quarter)
        tool, cube = self._hand.pose, obs["cube_pose"][:3]
        gripped = float(obs["gripper_width"][0]) < 1.25 * self._cube_size
        if gripped and np.linalg.norm(tool[:3, 3] - cube) < 2 * _AT_GRASP_M:  # taken over with the cube in the hand
            self._phase, self._hold, self._yaw = Phase.CLOSE, tool[:3, 3].copy(), yaw_of(tool)
        return self._style

    def _goal(self, obs: Obs, style: Style) -> np.ndarray:
        """Move on to the next phase when this one is done, and return where the hand should go [m]."""
        cube, width = obs["cube_pose"][:3], float(obs["gripper_width"][0])
        tool = self._kinematics.forward(obs["joint_position"])[:3, 3]
        grasp: np.ndarray = cube + _up(style.grasp_offset_m)
        if not self._is_free and width < self._cube_size / 2:  # closed on nothing
            self._phase = Phase.APPROACH
        if self._phase is Phase.APPROACH:
            above: np.ndarray = cube + np.append(style.approach_offset_m, style.hover_m)
            turned = np.cos(yaw_of(self._hand.pose) - self._yaw) > _ALIGNED_COSINE
            if np.linalg.norm((tool - above)[:2]) < _ABOVE_M and turned:
                self._phase = Phase.DESCEND
            else:
                return above
        if self._phase is Phase.DESCEND:
            if np.linalg.norm(tool - grasp) > _AT_GRASP_M:
                return grasp
            self._phase, self._hold = Phase.CLOSE, grasp
        if self._phase is Phase.CLOSE and width < 1.25 * self._cube_size and self._width - width < _STILL_M:
            self._phase = Phase.LIFT
        return self._hold if self._phase is Phase.CLOSE else self._hold + _up(_LIFT_M)


def _up(distance_m: float) -> np.ndarray:
    return np.array([0.0, 0.0, distance_m])
