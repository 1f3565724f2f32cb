"""Camera intrinsics from views of a board, after Zhang (2000), with the views that do not fit rejected and shown.

The solver is OpenCV's (Levenberg-Marquardt over the camera and every board pose). Around it: views whose residual
stands out are rejected one at a time; residuals are also measured on views that the camera was not fitted to; and what
the views cannot determine is refused or said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from calibration.camera_fit import CameraFit, fit_camera, fit_pose, rms_of, view_residuals
from calibration.captures import BoardView
from robot_rl.calibration_types import CameraIntrinsics, CameraModel, Pose
from robot_rl.errors import CalibrationError

Aspect = Literal["free", "fixed"]
MIN_VIEWS = 3
_GRID = (8, 6)  # cells across and down in which coverage is counted


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """When a view is left out.

    A view is rejected when its rms residual is above `times_median` times the median of all views, above the median by
    more than `sigmas` robust standard deviations (1.4826 times the median absolute deviation), and above `floor_px`.

    Args:
        times_median: Factor.
        sigmas: Number of standard deviations.
        floor_px: A residual that is good enough whatever the others are.
        max_share: The share of views that may be rejected; more than that is not an outlier but a wrong description.
    """

    times_median: float = 2.5
    sigmas: float = 5.0
    floor_px: float = 0.25
    max_share: float = 0.34

    def worst(self, rms: np.ndarray) -> int | None:
        """Return the view to leave out next, or `None` when all fit."""
        median = float(np.median(rms))
        spread = 1.4826 * float(np.median(np.abs(rms - median)))
        limit = max(self.times_median * median, median + self.sigmas * spread, self.floor_px)
        i = int(np.argmax(rms))
        return i if rms[i] > limit else None


@dataclass(frozen=True, kw_only=True)
class ViewResidual:
    """What a view leaves over: rms and largest distance [px], residuals and corners [K, 2], the board's pose."""

    image_id: str
    rms_px: float
    max_px: float
    residuals: np.ndarray
    corners: np.ndarray
    T_camera_board: Pose
    rejected: bool


@dataclass(frozen=True, kw_only=True)
class IntrinsicsResult:
    """A camera and how far to trust it.

    Args:
        intrinsics: Fitted to the views that were kept.
        deviation: Standard deviation of fx, fy, cx, cy [px] as the residuals and the views' geometry imply.
        rms_px: Over all corners of the kept views.
        all_views: The fit before any view was rejected.
        rms_all_px: Its residual over all views.
        heldout_rms_px: Over views that the camera was not fitted to (five-fold).
        views: Every view in order, the rejected ones too (measured against the final camera).
        coverage: Corners in each of 6 x 8 cells of the picture.
        notes: What a person should know before trusting it.
    """

    intrinsics: CameraIntrinsics
    deviation: Mapping[str, float]
    rms_px: float
    all_views: CameraIntrinsics
    rms_all_px: float
    heldout_rms_px: float
    views: Sequence[ViewResidual]
    coverage: np.ndarray
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def rejected(self) -> list[ViewResidual]:
        """The views left out."""
        return [view for view in self.views if view.rejected]

    @property
    def covered(self) -> float:
        """Share of cells that hold a corner."""
        return float((self.coverage > 0).mean())


def calibrate_intrinsics(
    views: Sequence[BoardView],
    *,
    model: CameraModel = "pinhole",
    aspect: Aspect = "free",
    rejection: Rejection | None = None,
) -> IntrinsicsResult:
    """Return the camera that explains the views best.

    Args:
        views: Of one camera at one size; three or more, fifteen or more for a good result.
        model: Lens model.
        aspect: `fixed` makes fx = fy (pixels are square).
        rejection: When a view is left out; the default rule if not given.

    Raises:
        CalibrationError: Too few views, mixed sizes, views that are all alike, or most views do not fit.
        ConfigError: `aspect` is unknown, or fixed for a fisheye camera.
    """
    rule = Rejection() if rejection is None else rejection
    _check_views(views)
    kept = list(range(len(views)))
    first = fit = fit_camera(views, model=model, aspect=aspect)
    first_rms = np.array([rms_of(r) for r in first.residuals])
    most = int(rule.max_share * len(views))
    while (worst := rule.worst(np.array([rms_of(r) for r in fit.residuals]))) is not None:
        if len(views) - len(kept) >= most or len(kept) <= MIN_VIEWS:
            raise CalibrationError(_too_many(views, first_rms, most))
        del kept[worst]
        fit = fit_camera([views[i] for i in kept], model=model, aspect=aspect)
    measured = _measure(views, fit, kept)
    _check_determined(fit, [views[i] for i in kept])
    coverage = corner_coverage([views[i] for i in kept])
    heldout = heldout_residual([views[i] for i in kept], model=model, aspect=aspect)
    return IntrinsicsResult(
        intrinsics=fit.intrinsics, deviation=fit.deviation, rms_px=rms_of(np.concatenate(fit.residuals)),
        all_views=first.intrinsics, rms_all_px=rms_of(np.concatenate(first.residuals)), heldout_rms_px=heldout,
        views=measured, coverage=coverage, notes=_notes(measured, coverage, fit),
    )  # fmt: skip


def heldout_residual(views: Sequence[BoardView], *, model: CameraModel, aspect: Aspect, folds: int = 5) -> float:
    """Return the rms residual [px] of views against cameras that were fitted to the other folds; NaN for few views."""
    folds = min(folds, len(views))
    if len(views) - -(-len(views) // folds) < MIN_VIEWS:
        return float("nan")
    left = []
    for fold in range(folds):
        camera = fit_camera(
            [v for i, v in enumerate(views) if i % folds != fold], model=model, aspect=aspect
        ).intrinsics
        held = [v for i, v in enumerate(views) if i % folds == fold]
        left += [view_residuals(camera, view, fit_pose(camera, view)) for view in held]
    return rms_of(np.concatenate(left))


def corner_coverage(views: Sequence[BoardView]) -> np.ndarray:
    """Return how many corners fall into each cell of the picture, int [6, 8]."""
    width, height = views[0].size
    corners = np.concatenate([view.corners for view in views])
    x = np.clip((corners[:, 0] / width * _GRID[0]).astype(int), 0, _GRID[0] - 1)
    y = np.clip((corners[:, 1] / height * _GRID[1]).astype(int), 0, _GRID[1] - 1)
    counts = np.zeros((_GRID[1], _GRID[0]), dtype=np.int64)
    np.add.at(counts, (y, x), 1)
    return counts


def _measure(views: Sequence[BoardView], fit: CameraFit, kept: Sequence[int]) -> list[ViewResidual]:
    poses = dict(zip(kept, fit.poses, strict=True))
    measured = []
    for i, view in enumerate(views):
        pose = poses[i] if i in poses else fit_pose(fit.intrinsics, view)
        residuals = view_residuals(fit.intrinsics, view, pose)
        measured.append(
            ViewResidual(
                image_id=view.image_id, rms_px=rms_of(residuals), residuals=residuals, corners=view.corners,
                max_px=float(np.linalg.norm(residuals, axis=1).max()), T_camera_board=pose, rejected=i not in poses,
            )
        )  # fmt: skip
    return measured


def _check_views(views: Sequence[BoardView]) -> None:
    if len(views) < MIN_VIEWS:
        raise CalibrationError(
            f"intrinsics need {MIN_VIEWS} views of the board or more, better 15, got {len(views)}; take more pictures"
        )
    sizes = {view.size for view in views}
    if len(sizes) > 1:
        raise CalibrationError(f"views of mixed sizes {sorted(sizes)}; a calibration holds for one size")


def _too_many(views: Sequence[BoardView], rms: np.ndarray, most: int) -> str:
    bad = sorted(zip(rms, (view.image_id for view in views), strict=True), reverse=True)[: most + 1]
    named = ", ".join(f"{name} ({value:.2f} px)" for value, name in bad)
    return (
        f"more than {most} of {len(views)} views do not fit the camera ({named}); check the board's description, that "
        "it is flat and still, or take another lens model (rational, fisheye)"
    )


def _check_determined(fit: CameraFit, views: Sequence[BoardView]) -> None:
    """Refuse views from which the focal length does not follow: boards that were all parallel to one plane."""
    normals = np.stack([pose.rotation[:, 2] for pose in fit.poses])
    mean = normals.mean(axis=0)
    spread = np.degrees(np.arccos(np.clip(normals @ (mean / np.linalg.norm(mean)), -1, 1)).max())
    camera = fit.intrinsics
    loose = max(fit.deviation["fx"] / camera.fx, fit.deviation["fy"] / camera.fy)
    if spread < 5.0 or loose > 0.05:
        raise CalibrationError(
            f"the {len(views)} views do not determine the focal length (board tilts within {spread:.1f} deg of one "
            f"another, fx = {camera.fx:.0f} +- {fit.deviation['fx']:.0f} px); tilt the board by 20 to 45 deg both ways"
        )


def _notes(views: Sequence[ViewResidual], coverage: np.ndarray, fit: CameraFit) -> tuple[str, ...]:
    notes = []
    kept = [view for view in views if not view.rejected]
    if len(kept) < 10:
        notes.append(f"only {len(kept)} views; 15 or more are better")
    empty = float((coverage == 0).mean())
    if empty > 0.25:
        notes.append(f"{100 * empty:.0f} % of the picture holds no corner: the lens is not known there")
    if fit.deviation["fx"] / fit.intrinsics.fx > 0.005:
        notes.append(f"fx is known to {100 * fit.deviation['fx'] / fit.intrinsics.fx:.1f} % only; tilt the board more")
    return tuple(notes)
