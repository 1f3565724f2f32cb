"""What a camera, and the arm, show of one motion, as numbers that can be compared without any calibration."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from calibration.latency import Signal
from calibration.motion import rotation_vectors, stack
from robot_rl.calibration_types import Pose
from robot_rl.errors import CalibrationError


def turning_speed(stamp_ns: np.ndarray, poses: Sequence[Pose], *, span_s: float = 0.15) -> Signal:
    """Return the speed of rotation [rad/s] from each pose to the first one `span_s` later, stamped in the middle.

    A camera on the tool turns as fast as the tool, whatever its hand-eye pose, so this is the same signal for the arm's
    poses and for `T_camera_board`; give both the same span. A board's pose is good to some tenths of a degree, so that
    the speed from one picture to the next would be mostly noise.

    Raises:
        CalibrationError: The poses last no longer than the span.
    """
    R = stack(poses)[:, :3, :3]
    stamp_ns = np.asarray(stamp_ns, np.int64)
    later = np.searchsorted(stamp_ns, stamp_ns + round(1e9 * span_s))
    first = np.flatnonzero(later < len(stamp_ns))
    if len(first) == 0:
        raise CalibrationError(f"the poses last no longer than the span of {span_s:g} s; record for longer")
    last = later[first]
    turned = np.linalg.norm(rotation_vectors(np.swapaxes(R[first], 1, 2) @ R[last]), axis=1)
    gap = stamp_ns[last] - stamp_ns[first]
    middle = stamp_ns[first] + gap // 2
    kept = np.append(True, np.diff(np.maximum.accumulate(middle)) > 0)
    return Signal(stamp_ns=middle[kept], value=(turned / (gap * 1e-9))[kept])


def picture_change(stamp_ns: np.ndarray, pictures: Sequence[np.ndarray]) -> Signal:
    """Return how much each picture differs from the one before, stamped in the middle; needs no board.

    Mean absolute difference of grey values, per second. It follows the speed of a motion, not its direction; compare it
    with a speed.

    Raises:
        CalibrationError: Pictures of different sizes.
    """
    shapes = {np.shape(picture)[:2] for picture in pictures}
    if len(shapes) != 1:
        raise CalibrationError(f"pictures must have one size, got {sorted(shapes)}")
    stamp_ns = np.asarray(stamp_ns, np.int64)
    grey = [np.asarray(p, np.float32) if np.ndim(p) == 2 else np.asarray(p, np.float32).mean(axis=2) for p in pictures]
    gap = np.diff(stamp_ns)
    change = [float(np.abs(b - a).mean()) for a, b in pairwise(grey)]
    return Signal(stamp_ns=stamp_ns[:-1] + gap // 2, value=np.asarray(change) / (gap * 1e-9))


def speed(stamp_ns: np.ndarray, value: np.ndarray) -> Signal:
    """Return the length of the rate of change of values [M, C] per second, stamped in the middle."""
    stamp_ns, value = np.asarray(stamp_ns, np.int64), np.asarray(value, np.float64)
    gap = np.diff(stamp_ns)
    moved = np.linalg.norm(np.diff(value.reshape(len(value), -1), axis=0), axis=1)
    return Signal(stamp_ns=stamp_ns[:-1] + gap // 2, value=moved / (gap * 1e-9))
