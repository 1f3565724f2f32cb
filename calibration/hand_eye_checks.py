"""Whether arm poses and board poses can belong together at all, before anything is solved.

Between two views the arm's tool and the camera turn by the same angle, however the camera is mounted; this needs no
calibration to check and finds poses that belong to other pictures. It does not see quaternions read in the wrong order,
for the angle between two of them is the same in any order; those are found by solving again in the other order.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from calibration.consensus import agreeing_views, disagreement
from calibration.hand_eye_starts import Start, linear_starts
from calibration.motion import invert, rotation_vectors
from robot_rl.errors import CalibrationError

MAX_MISMATCH_RAD = np.radians(5.0)
MAX_DISAGREEMENT = 3.0
_MUCH_BETTER = 0.3


def pair_angles(R: np.ndarray) -> np.ndarray:
    """Return the angle between every two of N rotations [N, 3, 3], [N (N - 1) / 2] rad."""
    first, second = np.triu_indices(len(R), 1)
    return np.asarray(np.linalg.norm(rotation_vectors(np.swapaxes(R[first], 1, 2) @ R[second]), axis=1))


def check_angles(A: np.ndarray, B: np.ndarray) -> None:
    """Raise where arm [N, 4, 4] and board [N, 4, 4] do not turn by the same angles in most pairs of views.

    Raises:
        CalibrationError: Says what to check.
    """
    seen = pair_angles(np.swapaxes(B[:, :3, :3], 1, 2))
    mismatch = _median_mismatch(A[:, :3, :3], seen)
    if mismatch <= MAX_MISMATCH_RAD:
        return
    raise CalibrationError(
        f"the arm and the board do not turn by the same angles between views (median mismatch "
        f"{np.degrees(mismatch):.1f} deg): check that pose i belongs to picture i, that Euler angles were converted "
        f"in the "
        "robot's own convention, and that arm and camera were still, or give time stamps so that the offset is "
        "estimated"
    )


def check_start(A: np.ndarray, B: np.ndarray, start: Start, mount: str) -> None:
    """Raise where the best start still leaves the board centimetres apart in most views.

    Raises:
        CalibrationError: Says whether inverted arm poses (which is the other mount), or quaternions in another order,
            would fit.
    """
    error = float(np.median(disagreement(A, B, start)))
    if error <= MAX_DISAGREEMENT:
        return
    enough = _MUCH_BETTER * error
    arm = A if mount == "eye_in_hand" else invert(A)
    if _best_error(invert(A), B) < enough:
        other_mount = "eye_to_hand" if mount == "eye_in_hand" else "eye_in_hand"
        raise CalibrationError(
            f"the poses fit only when inverted: either the camera is mounted {other_mount} and not {mount}, or the "
            f"file "
            "holds T_tool_base where T_base_tool is asked for; say which"
        )
    numbers = Rotation.from_matrix(arm[:, :3, :3]).as_quat()
    for shift, given, meant in ((-1, "w, x, y, z", "x, y, z, w"), (1, "x, y, z, w", "w, x, y, z")):
        other = arm.copy()
        other[:, :3, :3] = Rotation.from_quat(np.roll(numbers, shift, axis=1)).as_matrix()
        if _best_error(other if mount == "eye_in_hand" else invert(other), B) < enough:
            raise CalibrationError(
                f"the arm's quaternions are in the order {given}, they were read as {meant}: only in that order the "
                f"board "
                "stays in one place; give the order as it is"
            )
    raise CalibrationError(
        f"no hand-eye pose explains the views: the board would be {error:.0f} cm (or deg) apart in the median view; "
        f"check "
        "that the poses are T_base_tool in metres, that the board did not move, and the size of its squares"
    )


def _best_error(A: np.ndarray, B: np.ndarray) -> float:
    """Return the median disagreement of the best closed-form solution over the views that agree."""
    keep = agreeing_views(A, B)
    starts = linear_starts(A[keep], B[keep]).values()
    return min(float(np.median(disagreement(A, B, start))) for start in starts)


def _median_mismatch(R: np.ndarray, seen: np.ndarray) -> float:
    return float(np.median(np.abs(pair_angles(R) - seen)))
