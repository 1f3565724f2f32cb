"""A script that lifts the cube as a person would: from observations only, smoothly, a little differently each time."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy.spatial.transform import Rotation

from robot_rl.errors import ConfigError, SpecError
from robot_rl.specs import ArraySpec
from robot_rl.values import ActionChunk, Obs, PolicyInput
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
        self._dt = 1.0 / control_hz
        self._step_ns = round(1e9 / control_hz)
        self._acceleration, self._turn = max_acceleration_m_s2, max_turn_rad_s
        self.reset()

    @property
    def phase(self) -> Phase:
        """What the hand is about to do."""
        return self._phase

    def reset(self) -> None:
        """Forget the last episode."""
        self._phase = Phase.APPROACH
        self._style: Style | None = None
        self._joints = np.zeros(0)
        self._velocity = np.zeros(3)
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
        self._yaw = _nearest_quarter_turn(_cube_yaw(obs["cube_pose"]), self._yaw) if self._is_free else self._yaw
        self._follow(self._goal(obs, style), style.speed_m_s)
        action = np.append(self._joints, self._open_m if self._is_free else 0.0).astype(np.float32)
        self._width = float(obs["gripper_width"][0])
        return ActionChunk(policy_input.stamp_ns, self._step_ns, action[None])

    @property
    def _is_free(self) -> bool:
        """Whether the gripper is open."""
        return self._phase in (Phase.APPROACH, Phase.DESCEND)

    def _begin(self, obs: Obs) -> Style:
        """Take the reference from where the arm is, and draw this episode's style."""
        episode = zlib.crc32(obs["cube_pose"].astype(np.float32).tobytes())
        self._style = Style.draw(np.random.default_rng([self._seed, episode]), self._variation)
        self._joints = obs["joint_position"]
        quarter = np.pi / 2  # in quarter turns, so that the start's noise does not decide how the cube is taken
        self._yaw = quarter * round(_yaw_of(self._kinematics.forward(self._joints)) / quarter)
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
            turned = np.cos(_yaw_of(self._kinematics.forward(self._joints)) - self._yaw) > _ALIGNED_COSINE
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

    def _follow(self, goal: np.ndarray, speed: float) -> None:
        """Move the reference one tick towards `goal` and the grasp's orientation, within speed and acceleration."""
        T_base_tool = self._kinematics.forward(self._joints)
        offset = goal - T_base_tool[:3, 3]
        distance = float(np.linalg.norm(offset))
        # Fast enough to brake in time, and never past the goal within this tick.
        wanted_speed = min(speed, np.sqrt(1.4 * self._acceleration * distance), distance / (2.0 * self._dt))
        change = offset / max(distance, 1e-9) * wanted_speed - self._velocity
        largest = self._acceleration * self._dt
        self._velocity = self._velocity + change * min(1.0, largest / max(float(np.linalg.norm(change)), 1e-9))
        rotation = Rotation.from_matrix(T_base_tool[:3, :3])
        turn = (rotation.inv() * _pointing_down(self._yaw)).as_rotvec()
        angle = float(np.linalg.norm(turn))
        share = min(0.4, self._turn * self._dt / max(angle, 1e-9))
        T_base_target = np.eye(4)
        T_base_target[:3, :3] = (rotation * Rotation.from_rotvec(share * turn)).as_matrix()
        T_base_target[:3, 3] = T_base_tool[:3, 3] + self._velocity * self._dt
        self._joints = self._kinematics.inverse(T_base_target, start=self._joints, max_iterations=4).joint_position


def _up(distance_m: float) -> np.ndarray:
    return np.array([0.0, 0.0, distance_m])


def _pointing_down(yaw: float) -> Rotation:
    """Return the orientation with the tool's z down and its x turned by `yaw` from the base's x."""
    return Rotation.from_euler("z", yaw) * Rotation.from_euler("x", np.pi)


def _yaw_of(T_base_tool: np.ndarray) -> float:
    return float(np.arctan2(T_base_tool[1, 0], T_base_tool[0, 0]))


def _cube_yaw(cube_pose: np.ndarray) -> float:
    """Return the heading of the cube's x axis [rad]."""
    return float(np.arctan2(cube_pose[4], cube_pose[3]))


def _nearest_quarter_turn(yaw: float, reference: float) -> float:
    """Return the one of the four headings that are the same to a cube which is nearest to `reference` [rad]."""
    return reference + (yaw - reference + np.pi / 4) % (np.pi / 2) - np.pi / 4
