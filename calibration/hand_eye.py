"""Hand-eye calibration: where the camera sits on the tool (eye-in-hand) or in the room (eye-to-hand).

Closed-form starts -> views that agree (least median of squares) -> joint refinement -> views rejected by what is left
-> again until nothing changes -> held-out views. One equation serves both mounts: `A_i X T_camera_board_i = Z` with A
the tool in the base (eye-in-hand) or the base in the tool (eye-to-hand).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from calibration.arm_noise import ArmNoise, estimate_arm_noise
from calibration.board_scatter import BoardScatter, board_scatter, scatter_of
from calibration.bundle_adjust import ArmModel, Bundle, BundleOptions, adjust
from calibration.consensus import agreeing_views, disagreement
from calibration.evidence import CornerEvidence, Evidence, PoseEvidence, view_rms
from calibration.hand_eye_checks import check_angles, check_start
from calibration.hand_eye_result import CARRIERS, HandEye, Mount
from calibration.hand_eye_starts import Start, agreement, linear_starts
from calibration.motion import MIN_DISTINCT, check_motion, invert, stack
from robot_rl.calibration_types import Pose
from robot_rl.errors import CalibrationError

_MAX_ROUNDS = 6
_MAX_TIMES_MEDIAN = 3.0
_MAX_ROBUST_SIGMAS = 5.0


@dataclass(frozen=True, kw_only=True)
class HandEyeOptions:
    """How to calibrate.

    Args:
        mount: Where the camera is.
        reject: Leave out views that disagree; without it, every view is used.
        folds: In how many parts the views are held out in turn.
        bundle: What is refined.
        arm_noise: How far to trust the arm's poses: `auto` estimates it from the corners, `exact` holds them, or a
            value. Board poses without corners cannot tell the arm's noise from their own; there `auto` is `exact`.
        seed: Of the choice of triples and folds.
    """

    mount: Mount = "eye_in_hand"
    reject: bool = True
    folds: int = 5
    bundle: BundleOptions = field(default_factory=BundleOptions)
    arm_noise: ArmNoise | Literal["auto", "exact"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mount not in CARRIERS:
            raise CalibrationError(f"`mount` must be one of {sorted(CARRIERS)}, got {self.mount!r}")
        if not isinstance(self.arm_noise, ArmNoise) and self.arm_noise not in ("auto", "exact"):
            raise CalibrationError(f"`arm_noise` must be 'auto', 'exact' or an ArmNoise, got {self.arm_noise!r}")
        if self.folds < 2:
            raise CalibrationError(f"`folds` must be at least 2, got {self.folds}")


def calibrate_hand_eye(
    arm: ArmModel | Sequence[Pose], evidence: Evidence | Sequence[Pose], options: HandEyeOptions | None = None
) -> HandEye:
    """Calibrate from N views.

    Args:
        arm: `T_base_tool` of each view, or the arm's poses with parameters to be found with them.
        evidence: What each picture showed: corners, or `T_camera_board` alone.
        options: Mount and settings.

    Raises:
        CalibrationError: Too few views, degenerate motion, poses that cannot belong to the pictures; says what to do.
    """
    options = HandEyeOptions() if options is None else options
    model = arm if isinstance(arm, ArmModel) else ArmModel.exact(stack(arm))
    model = model if options.mount == "eye_in_hand" else model.inverted()
    seen: Evidence = PoseEvidence.from_poses(evidence) if isinstance(evidence, Sequence) else evidence
    A, B = model.poses(model.start), seen.T_camera_board
    _check_views(A, B)
    keep = agreeing_views(A, B, seed=options.seed) if options.reject else np.ones(len(A), bool)
    start = _best_start(A, B, keep)
    check_start(A, B, start, options.mount)
    _check_kept(A, keep)
    bundle, keep, errors = _refine(model, seen, start, keep, options)
    noise, options = _arm_noise(model, seen, bundle, keep, options)
    if noise != ArmNoise():
        bundle, keep, errors = _refine(model, seen, Start(bundle.X, bundle.Z), keep, options)
    return _result(model, seen, bundle, keep, errors, options, noise)


def _check_views(A: np.ndarray, B: np.ndarray) -> None:
    if len(A) != len(B):
        raise CalibrationError(
            f"one arm pose per picture is needed, got {len(A)} poses and {len(B)} pictures of the board"
        )
    if len(A) < MIN_DISTINCT:
        raise CalibrationError(f"hand-eye calibration needs at least {MIN_DISTINCT} views, better 15, got {len(A)}")
    check_motion(A)
    check_angles(A, B)


def _best_start(A: np.ndarray, B: np.ndarray, keep: np.ndarray) -> Start:
    starts = linear_starts(A[keep], B[keep]).values()
    return min(starts, key=lambda s: float(np.median(disagreement(A[keep], B[keep], s))))


def _result(
    arm: ArmModel, evidence: Evidence, bundle: Bundle, keep: np.ndarray, errors: np.ndarray, options: HandEyeOptions,
    noise: ArmNoise,
) -> HandEye:  # fmt: skip
    """Return what was found by name, with its held-out residuals."""
    A, B, views = arm.poses(bundle.arm), evidence.T_camera_board, np.flatnonzero(keep)
    kept = evidence.select(views)
    held_out, held_out_rms = _held_out(arm.select(views), kept, bundle, options)
    typical = float(np.median(errors[keep]))
    return HandEye(
        mount=options.mount,
        camera=Pose.from_matrix(bundle.X),
        board=Pose.from_matrix(bundle.Z),
        kept=keep,
        rejected={int(i): _reason(errors[i], typical, evidence) for i in np.flatnonzero(~keep)},
        agreement=agreement(linear_starts(A[keep], B[keep])),
        scatter=board_scatter(A[keep], B[keep], bundle.X),
        held_out=held_out,
        rms_px=_pixels(kept, bundle.view_rms),
        held_out_rms_px=held_out_rms,
        sigma_position_m=bundle.sigma_position_m,
        sigma_rotation_rad=bundle.sigma_rotation_rad,
        arm=bundle.arm,
        sigma_arm=bundle.sigma_arm,
        observed=bundle.observed,
        intrinsics=bundle.intrinsics,
        arm_noise=noise,
        board_error_m=np.linalg.norm((A @ bundle.X @ B - bundle.Z)[:, :3, 3], axis=1),
    )


def _arm_noise(
    arm: ArmModel, evidence: Evidence, bundle: Bundle, keep: np.ndarray, options: HandEyeOptions
) -> tuple[ArmNoise, HandEyeOptions]:
    """Return how noisy the arm is, given or estimated in three rounds, and options that allow for it."""
    views = np.flatnonzero(keep)
    noise = options.arm_noise if isinstance(options.arm_noise, ArmNoise) else ArmNoise()
    rounds = 3 if options.arm_noise == "auto" and isinstance(evidence, CornerEvidence) else 0
    for i in range(rounds):
        noise = estimate_arm_noise(arm.poses(bundle.arm)[views], evidence.select(views), bundle)
        if noise == ArmNoise() or i == rounds - 1:
            break
        start = Start(bundle.X, bundle.Z)
        bundle = adjust(evidence.select(views), arm.select(views), start, _allowing(options, noise).bundle)
    return noise, _allowing(options, noise)


def _allowing(options: HandEyeOptions, noise: ArmNoise) -> HandEyeOptions:
    bundle = replace(options.bundle, arm_position_sigma_m=noise.position_m, arm_rotation_sigma_rad=noise.rotation_rad)
    return replace(options, bundle=bundle)


def _refine(
    arm: ArmModel, evidence: Evidence, start: Start, keep: np.ndarray, options: HandEyeOptions
) -> tuple[Bundle, np.ndarray, np.ndarray]:
    """Return the refinement, the views it kept [N], and every view's error [N] in standard deviations."""
    for _ in range(_MAX_ROUNDS):
        views = np.flatnonzero(keep)
        bundle = adjust(evidence.select(views), arm.select(views), start, options.bundle)
        predicted = invert(arm.poses(bundle.arm) @ bundle.X) @ bundle.Z
        errors = view_rms(evidence, evidence.residuals(predicted, bundle.intrinsics))
        again = keep if not options.reject else errors <= _limit(errors[keep])
        _check_kept(predicted, again)
        if (again == keep).all():
            break
        keep, start = again, Start(bundle.X, bundle.Z)
    return bundle, keep, errors


def _limit(errors: np.ndarray) -> float:
    """Return the largest error of a view that still belongs to the others."""
    median = float(np.median(errors))
    spread = 1.4826 * float(np.median(np.abs(errors - median)))
    return max(_MAX_TIMES_MEDIAN * median, median + _MAX_ROBUST_SIGMAS * spread, 1.0)


def _check_kept(A: np.ndarray, keep: np.ndarray) -> None:
    if keep.sum() < max(MIN_DISTINCT, len(keep) / 2):
        raise CalibrationError(
            f"only {int(keep.sum())} of {len(keep)} views agree with each other: most arm poses do not belong to their "
            "pictures, or the board moved; capture again, standing still for each picture"
        )
    check_motion(A[keep])


def _held_out(
    arm: ArmModel, evidence: Evidence, bundle: Bundle, options: HandEyeOptions
) -> tuple[BoardScatter, float | None]:
    """Return the scatter and the pixel error of views that took no part in the fit which predicts them."""
    n = len(evidence.T_camera_board)
    order = np.random.default_rng(options.seed).permutation(n)
    boards, expected, errors = np.zeros((n, 4, 4)), np.zeros((n, 4, 4)), np.zeros(n)
    for part in np.array_split(order, min(options.folds, n)):
        rest = np.setdiff1d(order, part)
        fit = adjust(evidence.select(rest), arm.select(rest), Start(bundle.X, bundle.Z), options.bundle)
        A, test = arm.poses(fit.arm)[part], evidence.select(part)
        boards[part], expected[part] = A @ fit.X @ test.T_camera_board, fit.Z
        errors[part] = view_rms(test, test.residuals(invert(A @ fit.X) @ fit.Z, fit.intrinsics))
    return scatter_of(boards, expected), _pixels(evidence, errors)


def _pixels(evidence: Evidence, errors: np.ndarray) -> float | None:
    """Return the root mean square distance [px] of views with these errors per coordinate in standard deviations."""
    if not isinstance(evidence, CornerEvidence):
        return None
    weights = np.bincount(evidence.view)
    return float(np.sqrt(2 * np.average(errors**2, weights=weights)) * evidence.sigma_px)


def _reason(error: float, typical: float, evidence: Evidence) -> str:
    if isinstance(evidence, CornerEvidence):
        scale = np.sqrt(2) * evidence.sigma_px
        return f"off by {scale * error:.2f} px, the others by {scale * typical:.2f} px"
    return f"off by {error / max(typical, 1e-9):.1f} times as much as the others"
