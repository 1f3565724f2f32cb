"""Which views agree with each other: least median of squares over triples of views (Rousseeuw, 1984).

A wrong arm pose, or a board pose flipped by its mirror image, spoils a least-squares hand-eye solution; a triple of
good views does not see it. Up to almost half of the views may be wrong.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from calibration.hand_eye_starts import Start, linear_start
from calibration.motion import rotation_vectors

MAX_TRIPLES = 400
_MIN_TURN_RAD = np.radians(5.0)
_MIN_AXES_SINE = np.sin(np.radians(15.0))
_POSITION_M = 0.01  # one centimetre weighs as much as one degree
_ROTATION_RAD = np.radians(1.0)
_FLOOR = 0.3


def disagreement(A: np.ndarray, B: np.ndarray, start: Start) -> np.ndarray:
    """Return how far each view puts the board from where it is [N], one for a centimetre or a degree."""
    T = A @ start.X @ B
    position = np.linalg.norm(T[:, :3, 3] - start.Z[:3, 3], axis=1) / _POSITION_M
    angle = np.linalg.norm(rotation_vectors(start.Z[:3, :3].T @ T[:, :3, :3]), axis=1) / _ROTATION_RAD
    return np.asarray(np.hypot(position, angle))


def agreeing_views(A: np.ndarray, B: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return which views agree with the best triple, bool [N].

    Args:
        A: Arm poses [N, 4, 4], N >= 3.
        B: Board poses `T_camera_board` [N, 4, 4].
        seed: Of the choice of triples, where there are too many to try all.
    """
    best: tuple[float, Start | None] = (np.inf, None)
    for triple in _triples(len(A), seed):
        if not _turns_enough(A[triple]):
            continue
        start = linear_start(A[triple], B[triple], "park")
        if start is not None:
            median = float(np.median(disagreement(A, B, start)))
            best = (median, start) if median < best[0] else best
    keep = np.ones(len(A), bool)
    if best[1] is None:
        return keep
    start = best[1]
    for _ in range(3):  # the triple's own noise is large: fit again to all that agree
        errors = disagreement(A, B, start)
        keep = errors <= max(_limit(errors), _FLOOR)
        again = linear_start(A[keep], B[keep], "park") if keep.sum() >= 3 else None
        if again is None:
            break
        start = again
    return np.asarray(keep)


def _limit(errors: np.ndarray) -> float:
    """Return 2.5 robust standard deviations, with Rousseeuw's correction for few views."""
    return float(2.5 * 1.4826 * (1 + 5 / max(len(errors) - 3, 1)) * np.median(errors))


def _triples(n: int, seed: int) -> list[list[int]]:
    if n <= 14:  # at most 364
        return [list(triple) for triple in combinations(range(n), 3)]
    rng = np.random.default_rng(seed)
    return [rng.choice(n, 3, replace=False).tolist() for _ in range(MAX_TRIPLES)]


def _turns_enough(A: np.ndarray) -> bool:
    """Whether three poses turn about two axes that are not parallel."""
    turns = rotation_vectors(np.swapaxes(A[:1, :3, :3], 1, 2) @ A[1:, :3, :3])
    lengths = np.linalg.norm(turns, axis=1)
    if lengths.min() < _MIN_TURN_RAD:
        return False
    sine = float(np.linalg.norm(np.cross(turns[0], turns[1])) / lengths.prod())
    return bool(sine > _MIN_AXES_SINE)
