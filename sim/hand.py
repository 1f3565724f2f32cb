"""A reference for the hand that moves within speed and acceleration, turned into joint targets by differential IK."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from robot_rl.hardware.kinematics import Kinematics


class HandReference:
    """Where a script wants the hand, moved one control step at a time towards a goal; no jump, no overshoot.

    Args:
        kinematics: Of the arm.
        control_hz: Control rate.
        max_acceleration_m_s2: Acceleration limit of the hand.
        max_turn_rad_s: Turning speed limit of the hand.
    """

    def __init__(
        self, kinematics: Kinematics, *, control_hz: float, max_acceleration_m_s2: float, max_turn_rad_s: float
    ) -> None:
        self._kinematics, self._dt = kinematics, 1.0 / control_hz
        self._acceleration, self._turn = max_acceleration_m_s2, max_turn_rad_s
        self.begin(np.zeros(kinematics.n_joints))

    @property
    def joints(self) -> np.ndarray:
        """Joint targets [rad], [J]."""
        return self._joints

    @property
    def pose(self) -> np.ndarray:
        """`T_base_tool` [4, 4] of the joint targets."""
        return self._kinematics.forward(self._joints)

    def begin(self, joint_position: np.ndarray) -> None:
        """Start at rest from joint angles [J]."""
        self._joints, self._velocity = np.asarray(joint_position, np.float64), np.zeros(3)

    def follow(self, goal: np.ndarray, rotation: Rotation, speed_m_s: float) -> np.ndarray:
        """Move one step towards a place [m] and an orientation; return the joint targets [J]."""
        T_base_tool = self.pose
        offset = goal - T_base_tool[:3, 3]
        distance = float(np.linalg.norm(offset))
        # Fast enough to brake in time, and never past the goal within this tick.
        wanted_speed = min(speed_m_s, np.sqrt(1.4 * self._acceleration * distance), distance / (2.0 * self._dt))
        change = offset / max(distance, 1e-9) * wanted_speed - self._velocity
        largest = self._acceleration * self._dt
        self._velocity = self._velocity + change * min(1.0, largest / max(float(np.linalg.norm(change)), 1e-9))
        now = Rotation.from_matrix(T_base_tool[:3, :3])
        turn = (now.inv() * rotation).as_rotvec()
        angle = float(np.linalg.norm(turn))
        share = min(0.4, self._turn * self._dt / max(angle, 1e-9))
        T_base_target = np.eye(4)
        T_base_target[:3, :3] = (now * Rotation.from_rotvec(share * turn)).as_matrix()
        T_base_target[:3, 3] = T_base_tool[:3, 3] + self._velocity * self._dt
        self._joints = self._kinematics.inverse(T_base_target, start=self._joints, max_iterations=4).joint_position
        return self._joints


def pointing_down(yaw: float) -> Rotation:
    """Return the orientation with the tool's z down and its x turned by `yaw` from the base's x."""
    return Rotation.from_euler("z", yaw) * Rotation.from_euler("x", np.pi)


def yaw_of(T_base_tool: np.ndarray) -> float:
    """Return the heading of a pose's x axis [rad]."""
    return float(np.arctan2(T_base_tool[1, 0], T_base_tool[0, 0]))


def pose_yaw(pose: np.ndarray) -> float:
    """Return the heading [rad] of the x axis of a pose as observations carry it (position and rot6d, [9])."""
    return float(np.arctan2(pose[4], pose[3]))


def nearest_quarter_turn(yaw: float, reference: float) -> float:
    """Return the one of the four headings that are the same to a square which is nearest to `reference` [rad]."""
    return reference + (yaw - reference + np.pi / 4) % (np.pi / 2) - np.pi / 4
