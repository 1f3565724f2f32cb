"""Where one camera is as seen by another, from pictures of a board that both took at the same moment.

The cameras may differ in lens model and size (two colour cameras, or the infrared and the colour camera of a depth
camera), and each may see another part of the board. Both intrinsics stay as they are; the pose between the cameras and
every board pose minimise the reprojection error in all pictures together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.sparse import lil_matrix

from calibration.camera_fit import fit_pose, rms_of, straighten, view_residuals
from calibration.captures import BoardView
from calibration.intrinsics import Rejection
from robot_rl.calibration_types import CameraIntrinsics, Pose
from robot_rl.errors import CalibrationError

MIN_PAIRS = 3
TIMES_ALONE = 3.0  # how much more than the cameras' own residuals the pairs may leave


@dataclass(frozen=True, kw_only=True)
class PairResidual:
    """One pair of pictures: their names, rms residual in each and in both [px], and whether the pair was left out."""

    left_id: str
    right_id: str
    left_px: float
    right_px: float
    rms_px: float
    rejected: bool


@dataclass(frozen=True, kw_only=True)
class StereoResult:
    """The pose between two cameras.

    Args:
        T_left_right: Takes coordinates of the right camera to the left's.
        rms_px: Over all corners in both pictures of the kept pairs.
        rms_all_px: Over all pairs, before any was rejected.
        epipolar_px: Mean distance of a corner from the line that the other picture gives it, kept pairs.
        pairs: Every pair in order.
    """

    T_left_right: Pose
    rms_px: float
    rms_all_px: float
    epipolar_px: float
    pairs: Sequence[PairResidual]

    @property
    def baseline_m(self) -> float:
        """Distance between the cameras."""
        return float(np.linalg.norm(self.T_left_right.translation))


def calibrate_stereo(
    left: Sequence[BoardView], right: Sequence[BoardView], left_camera: CameraIntrinsics,
    right_camera: CameraIntrinsics, *, rejection: Rejection | None = None,
) -> StereoResult:  # fmt: skip
    """Return the pose between two calibrated cameras.

    Args:
        left: Views of the left camera.
        right: Views of the right camera, the i-th taken at the same moment as the i-th of the left.
        left_camera: Its intrinsics.
        right_camera: Its intrinsics.
        rejection: When a pair is left out; the default rule if not given.

    Raises:
        CalibrationError: Too few pairs, another size than the intrinsics', or pairs that do not agree.
    """
    rule = Rejection() if rejection is None else rejection
    cameras = (left_camera, right_camera)
    _check(left, right, cameras)
    pairs = list(zip(left, right, strict=True))
    starts = [(fit_pose(left_camera, a), fit_pose(right_camera, b)) for a, b in pairs]
    kept, T_right_left, boards, rms_all = _reject(pairs, cameras, starts, rule)
    good = [pairs[i] for i in kept]
    rms = rms_of(np.concatenate(_residuals(good, cameras, T_right_left, boards)))
    alone = rms_of(np.concatenate([_alone(pairs[i], cameras, starts[i]) for i in kept]))
    if rms > max(TIMES_ALONE * alone, alone + 1.0):
        raise CalibrationError(_not_together(rms, alone))
    return StereoResult(
        T_left_right=T_right_left.inverse(), rms_px=rms, rms_all_px=rms_all,
        epipolar_px=_epipolar(good, cameras, T_right_left),
        pairs=_report(pairs, cameras, T_right_left, dict(zip(kept, boards, strict=True)), starts),
    )  # fmt: skip


Pair = tuple[BoardView, BoardView]
Cameras = tuple[CameraIntrinsics, CameraIntrinsics]


def _check(left: Sequence[BoardView], right: Sequence[BoardView], cameras: Cameras) -> None:
    if len(left) != len(right) or len(left) < MIN_PAIRS:
        raise CalibrationError(
            f"stereo needs {MIN_PAIRS} or more pairs with the board in both pictures, got {len(left)} left and "
            f"{len(right)} right views"
        )
    for side, views, camera in zip(("left", "right"), (left, right), cameras, strict=True):
        for view in views:
            if view.size != (camera.width, camera.height):
                raise CalibrationError(
                    f"{side} picture {view.image_id} is {view.size[0]} x {view.size[1]}, the intrinsics hold at "
                    f"{camera.width} x {camera.height}; calibrate at the size you use"
                )


def _reject(
    pairs: Sequence[Pair], cameras: Cameras, starts: Sequence[tuple[Pose, Pose]], rule: Rejection
) -> tuple[list[int], Pose, list[Pose], float]:
    """Return which pairs are kept, `T_right_left` and boards fitted to those, and the residual over all pairs."""
    kept = list(range(len(pairs)))
    T_right_left, boards = _refine(pairs, cameras, starts)
    rms_all = rms_of(np.concatenate(_residuals(pairs, cameras, T_right_left, boards)))
    while True:
        each = np.array([rms_of(r) for r in _by_pair([pairs[i] for i in kept], cameras, T_right_left, boards)])
        worst = rule.worst(each)
        if worst is None:
            return kept, T_right_left, boards, rms_all
        if len(pairs) - len(kept) >= int(rule.max_share * len(pairs)) or len(kept) <= MIN_PAIRS:
            raise CalibrationError(_not_together(float(each[worst]), float(np.median(each))))
        del kept[worst]
        T_right_left, boards = _refine([pairs[i] for i in kept], cameras, [starts[i] for i in kept])


def _not_together(rms: float, usual: float) -> str:
    return (
        f"the pose between the cameras differs from pair to pair: {rms:.2f} px are left where {usual:.2f} px would do; "
        "are the pictures paired by name, taken at the same moment, and the intrinsics those of these cameras?"
    )


def _alone(pair: Pair, cameras: Cameras, poses: tuple[Pose, Pose]) -> np.ndarray:
    """Return the residuals [K, 2] when each camera has its own pose of the board."""
    each = [view_residuals(c, view, pose) for c, view, pose in zip(cameras, pair, poses, strict=True)]
    return np.concatenate(each)


def _refine(pairs: Sequence[Pair], cameras: Cameras, starts: Sequence[tuple[Pose, Pose]]) -> tuple[Pose, list[Pose]]:
    """Return `T_right_left` and the boards' `T_left_board` with the least squared error."""
    first = _consensus([b @ a.inverse() for a, b in starts])
    boards = [a for a, _ in starts]

    def moved(x: np.ndarray) -> tuple[Pose, list[Pose]]:
        return _step(first, x[:6]), [_step(board, x[6 * i + 6 : 6 * i + 12]) for i, board in enumerate(boards)]

    def residuals(x: np.ndarray) -> np.ndarray:
        return np.concatenate(_residuals(pairs, cameras, *moved(x))).ravel()

    solved = least_squares(
        residuals, np.zeros(6 + 6 * len(pairs)), jac_sparsity=_sparsity(pairs), x_scale="jac", max_nfev=40
    )
    return moved(solved.x)


def _step(pose: Pose, x: np.ndarray) -> Pose:
    """Return the pose turned and shifted by a small motion [6] (rotation vector, translation)."""
    return Pose.from_rotation_vector(x[:3], np.zeros(3)) @ pose @ Pose(np.eye(3), x[3:])


def _consensus(poses: Sequence[Pose]) -> Pose:
    """Return the pose nearest to all the others, which a few wrong ones cannot move."""

    def apart(a: Pose, b: Pose) -> float:
        return (a.inverse() @ b).angle + float(np.linalg.norm(a.translation - b.translation))

    return min(poses, key=lambda a: float(np.median([apart(a, b) for b in poses])))


def _residuals(pairs: Sequence[Pair], cameras: Cameras, T_right_left: Pose, boards: Sequence[Pose]) -> list[np.ndarray]:
    """Return [K, 2] for each picture, left and right in turn."""
    return [
        view_residuals(camera, view, T @ board)
        for pair, board in zip(pairs, boards, strict=True)
        for camera, view, T in zip(cameras, pair, (Pose.identity(), T_right_left), strict=True)
    ]


def _by_pair(pairs: Sequence[Pair], cameras: Cameras, T_right_left: Pose, boards: Sequence[Pose]) -> list[np.ndarray]:
    each = _residuals(pairs, cameras, T_right_left, boards)
    return [np.concatenate([a, b]) for a, b in zip(each[::2], each[1::2], strict=True)]


def _sparsity(pairs: Sequence[Pair]) -> lil_matrix:
    """Return which residuals depend on which unknowns."""
    counts = [(2 * len(a.ids), 2 * len(b.ids)) for a, b in pairs]
    pattern = lil_matrix((sum(map(sum, counts)), 6 + 6 * len(pairs)), dtype=np.int8)
    row = 0
    for i, (n_left, n_right) in enumerate(counts):
        pattern[row : row + n_left + n_right, 6 * i + 6 : 6 * i + 12] = 1
        pattern[row + n_left : row + n_left + n_right, :6] = 1
        row += n_left + n_right
    return pattern


def _report(
    pairs: Sequence[Pair], cameras: Cameras, T_right_left: Pose, boards: dict[int, Pose],
    starts: Sequence[tuple[Pose, Pose]],
) -> list[PairResidual]:  # fmt: skip
    """Return every pair's residuals; a rejected pair's board stands where the left camera sees it."""
    rows = []
    for i, pair in enumerate(pairs):
        a, b = _residuals([pair], cameras, T_right_left, [boards.get(i, starts[i][0])])
        rows.append(
            PairResidual(left_id=pair[0].image_id, right_id=pair[1].image_id, left_px=rms_of(a), right_px=rms_of(b),
                         rms_px=rms_of(np.concatenate([a, b])), rejected=i not in boards)
        )  # fmt: skip
    return rows


def _epipolar(pairs: Sequence[Pair], cameras: Cameras, T_right_left: Pose) -> float:
    """Return the mean distance [px] between corners and epipolar lines, both ways, in undistorted pictures."""
    x, y, z = T_right_left.translation
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ T_right_left.rotation
    distances = []
    for left, right in pairs:
        _, i, j = np.intersect1d(left.ids, right.ids, return_indices=True)
        rays = [
            straighten(c, v.corners[k]).reshape(-1, 2) for c, v, k in zip(cameras, (left, right), (i, j), strict=True)
        ]
        a, b = (np.column_stack([ray, np.ones(len(ray))]) for ray in rays)
        lines_right, lines_left = a @ essential.T, b @ essential
        miss = np.abs((b * lines_right).sum(axis=1))
        distances.append(cameras[1].fx * miss / np.linalg.norm(lines_right[:, :2], axis=1))
        distances.append(cameras[0].fx * miss / np.linalg.norm(lines_left[:, :2], axis=1))
    together = np.concatenate(distances)
    return float(together.mean()) if len(together) else float("nan")
