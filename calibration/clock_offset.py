"""The offset between the camera's clock and the arm's, found together with the hand-eye pose from a moving arm.

The angle that the arm turns between two pictures must be the angle that the board seems to turn, whatever the hand-eye
pose is; the offset at which the angles fit best is the start. The joint refinement then treats it as one more unknown,
interpolating the arm's poses (slerp for rotations, linear for positions), after Furgale et al. (2013), who use splines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from calibration.bundle_adjust import ArmModel
from calibration.evidence import Evidence
from calibration.hand_eye import HandEyeOptions, calibrate_hand_eye
from calibration.hand_eye_checks import pair_angles
from calibration.hand_eye_result import HandEye
from calibration.motion import check_motion, stack
from robot_rl.calibration_types import Pose
from robot_rl.errors import CalibrationError

MAX_OFFSET_S = 0.25
MAX_SIGMA_S = 0.01
_STEP_S = 0.004
_MAX_ANGLE_RAD = np.radians(3.0)


class ArmTrajectory:
    """The arm's poses over time.

    Args:
        stamp_ns: Time of each pose by the arm's clock, int64 [M], strictly increasing.
        poses: `T_base_tool` at those times.

    Raises:
        CalibrationError: Fewer than two poses, or stamps that do not increase.
    """

    def __init__(self, stamp_ns: np.ndarray, poses: Sequence[Pose]) -> None:
        stamp_ns = np.asarray(stamp_ns, np.int64)
        if len(stamp_ns) != len(poses) or len(poses) < 2:
            raise CalibrationError(
                f"a trajectory needs one stamp per pose and at least two, got {len(stamp_ns)} and {len(poses)}"
            )
        if (np.diff(stamp_ns) <= 0).any():
            where = int(np.argmax(np.diff(stamp_ns) <= 0))
            raise CalibrationError(f"the arm's `stamp_ns` must increase, they do not after row {where}; sort the poses")
        self.start_ns, self.end_ns = int(stamp_ns[0]), int(stamp_ns[-1])
        self._time_s = (stamp_ns - self.start_ns) * 1e-9
        matrices = stack(poses)
        self._position = matrices[:, :3, 3]
        self._rotation = Slerp(self._time_s, Rotation.from_matrix(matrices[:, :3, :3]))

    def at(self, stamp_ns: np.ndarray, offset_s: float = 0.0) -> np.ndarray:
        """Return poses [N, 4, 4] at stamps int64 [N] plus an offset; before and after, the first and the last."""
        time_s = np.clip((stamp_ns - self.start_ns) * 1e-9 + offset_s, 0.0, self._time_s[-1])
        T = np.zeros((len(time_s), 4, 4))
        T[:, :3, :3] = self._rotation(time_s).as_matrix()
        T[:, :3, 3] = np.stack([np.interp(time_s, self._time_s, column) for column in self._position.T], axis=1)
        T[:, 3, 3] = 1.0
        return T


@dataclass(frozen=True)
class ClockOffset:
    """What to add to a picture's stamp to get the arm's time of it [s], and one standard deviation.

    A camera that stamps its pictures late has a negative offset: its latency is `-offset_s` plus the arm's own.
    """

    offset_s: float
    sigma_s: float


def calibrate_moving(
    trajectory: ArmTrajectory,
    stamp_ns: np.ndarray,
    evidence: Evidence,
    options: HandEyeOptions | None = None,
    *,
    max_offset_s: float = MAX_OFFSET_S,
) -> tuple[HandEye, ClockOffset]:
    """Calibrate hand-eye and clock offset from pictures taken while the arm moved.

    Args:
        trajectory: The arm, from `max_offset_s` before the first picture to as long after the last.
        stamp_ns: Stamp of each picture by the camera's clock, int64 [N].
        evidence: What each picture showed.
        options: As for `calibrate_hand_eye`.
        max_offset_s: Largest offset to look for, either way [s].

    Raises:
        CalibrationError: The trajectory does not cover the pictures, the arm stood still, or as `calibrate_hand_eye`.
    """
    stamp_ns = np.asarray(stamp_ns, np.int64)
    _check_covered(trajectory, stamp_ns, max_offset_s)
    begin = coarse_offset(trajectory, stamp_ns, evidence.T_camera_board, max_offset_s=max_offset_s)
    arm = ArmModel(
        poses=lambda p: trajectory.at(stamp_ns, float(p[0])),
        start=np.array([begin]),
        sigma=np.array([np.inf]),
        scale=np.array([1e-3]),
    )
    found = calibrate_hand_eye(arm, evidence, options)
    clock = ClockOffset(float(found.arm[0]), float(found.sigma_arm[0]))
    _check_determined(clock, max_offset_s)
    return found, clock


def coarse_offset(
    trajectory: ArmTrajectory, stamp_ns: np.ndarray, T_camera_board: np.ndarray, *, max_offset_s: float
) -> float:
    """Return the offset [s], to some milliseconds, at which arm and board turn by the same angles.

    The cost of a pair of pictures is its mismatch, cut at three degrees so that wrong poses do not decide.
    """
    check_motion(trajectory.at(stamp_ns))
    seen = pair_angles(np.swapaxes(T_camera_board[:, :3, :3], 1, 2))
    steps = int(np.ceil(max_offset_s / _STEP_S))
    offsets = _STEP_S * np.arange(-steps, steps + 1)
    costs = []
    for offset in offsets:
        turned = pair_angles(trajectory.at(stamp_ns, float(offset))[:, :3, :3])
        costs.append(float(np.minimum(np.abs(turned - seen), _MAX_ANGLE_RAD).mean()))
    as_good = offsets[np.array(costs) <= 1.01 * min(costs) + 1e-9]
    return float(np.median(as_good))  # of an arm that stands still all are as good: then the middle, and not an end


def _check_covered(trajectory: ArmTrajectory, stamp_ns: np.ndarray, max_offset_s: float) -> None:
    margin = round(1e9 * max_offset_s)
    outside = (stamp_ns - margin < trajectory.start_ns) | (stamp_ns + margin > trajectory.end_ns)
    if outside.any():
        raise CalibrationError(
            f"{int(outside.sum())} of {len(stamp_ns)} pictures are not covered by the arm's recording with "
            f"{max_offset_s:g} s to spare (first: picture {int(np.argmax(outside))}); record the arm from before the "
            f"first "
            "picture to after the last, on a clock within that offset, or leave those pictures out"
        )


def _check_determined(clock: ClockOffset, max_offset_s: float) -> None:
    if not clock.sigma_s < MAX_SIGMA_S:
        raise CalibrationError(
            f"the clock offset is not determined (one sigma is {1e3 * clock.sigma_s:.0f} ms): the arm hardly moved "
            f"while "
            "the pictures were taken; move it at 0.1 m/s or 30 deg/s or more, or use pictures taken standing still "
            "without stamps"
        )
    if abs(clock.offset_s) > max_offset_s:
        raise CalibrationError(
            f"the clock offset, {1e3 * clock.offset_s:.0f} ms, is beyond the {1e3 * max_offset_s:.0f} ms that were "
            "searched; raise `max_offset_s` or synchronise the clocks"
        )
