"""The table's plane and the box the tool may work in, from points that the tool's tip touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from robot_rl.calibration_types import CalibrationFile
from robot_rl.errors import CalibrationError

MAX_REACH_M = 20.0
MIN_SPREAD_M = 0.03
_TOLERANCE_M = 0.005
_MAX_TRIPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Points p with `normal @ p = offset_m`, in the base's frame; the normal points up.

    Args:
        normal: Unit vector [3].
        offset_m: Height along the normal [m].
        kept: Which of the points lie on it, bool [N].
        rms_m: Distance of those to it [m].
        held_out_rms_m: The same, each point to the plane through the others [m]; infinite with three points.
    """

    normal: np.ndarray
    offset_m: float
    kept: np.ndarray
    rms_m: float
    held_out_rms_m: float

    def height(self, points: np.ndarray) -> np.ndarray:
        """Return how far points [..., 3] are above it [m]."""
        return np.asarray(points @ self.normal - self.offset_m)

    @property
    def tilt_rad(self) -> float:
        """Angle between its normal and the base's z axis [rad]."""
        return float(np.arccos(np.clip(self.normal[2], -1.0, 1.0)))


@dataclass(frozen=True, kw_only=True)
class TouchedWorkspace:
    """A table and a box above it, corners [3] in the base's frame [m]."""

    table: Plane
    low: np.ndarray
    high: np.ndarray

    def to_file(self, *, date: str, device_serial: str = "", digest: str = "") -> CalibrationFile:
        """Return it as a calibration file; the serial is the arm's."""
        residuals = {"table_rms_mm": 1e3 * self.table.rms_m, "n_points": float(self.table.kept.sum())}
        if np.isfinite(self.table.held_out_rms_m):
            residuals["table_heldout_rms_mm"] = 1e3 * self.table.held_out_rms_m
        return CalibrationFile(
            kind="workspace",
            values={
                "low_m": [float(value) for value in self.low],
                "high_m": [float(value) for value in self.high],
                "table_normal": [float(value) for value in self.table.normal],
                "table_offset_m": self.table.offset_m,
            },
            frames={"low_m": "base", "high_m": "base", "table_normal": "base, pointing up"},
            date=date,
            device_serial=device_serial,
            method="least median of squares plane, then total least squares; box around touched corners",
            residuals=residuals,
            image_digest=digest,
            units={"table_normal": "1"},
        )


def fit_plane(points: Sequence[Sequence[float]] | np.ndarray, *, tolerance_m: float = _TOLERANCE_M) -> Plane:
    """Return the plane through touched points; a point that is far from the plane of the others is left out.

    Args:
        points: Where the tip touched the table [N, 3], in the base's frame [m].
        tolerance_m: A point nearer than this is never left out [m].

    Raises:
        CalibrationError: Fewer than three points, millimetres, or all in one line.
    """
    p = _checked(points, "table points", least=3)
    _check_spread(p)
    triples = list(combinations(range(len(p)), 3))[:: max(1, len(p) ** 3 // 6 // _MAX_TRIPLES)]
    candidates = [_through(p[list(triple)]) for triple in triples if _spread(p[list(triple)]) > 0.5 * MIN_SPREAD_M]
    candidates.append(_through(p))
    errors = np.abs(np.stack([p @ normal - offset for normal, offset in candidates]))  # [planes, N]
    best = errors[int(np.argmin(np.median(errors, axis=1)))]
    kept = best <= max(tolerance_m, 2.5 * 1.4826 * float(np.median(best)))
    _check_spread(p[kept])
    normal, offset = _through(p[kept])
    return Plane(
        normal=normal,
        offset_m=offset,
        kept=kept,
        rms_m=float(np.sqrt(((p[kept] @ normal - offset) ** 2).mean())),
        held_out_rms_m=_held_out(p[kept]),
    )


def calibrate_workspace(
    table_points: Sequence[Sequence[float]] | np.ndarray,
    corner_points: Sequence[Sequence[float]] | np.ndarray,
    *,
    clearance_m: float = 0.005,
    margin_m: float = 0.0,
) -> TouchedWorkspace:
    """Return the table and the box around the corners that were touched or shown.

    The box is aligned with the base's axes, as the safety filter's is. Its floor is the highest point of the table
    inside it plus the clearance, so that a tilted table is never inside the box; the corners below it do not lower it.

    Args:
        table_points: Where the tip touched the table [N, 3] m.
        corner_points: Extreme places the tip may go to [M, 3] m, M >= 2.
        clearance_m: Lowest height of the tip above the table [m].
        margin_m: How far the box stays inside the corners, in x and y [m].

    Raises:
        CalibrationError: As `fit_plane`, or an empty box.
    """
    table = fit_plane(table_points)
    corners = _checked(corner_points, "corner points", least=2)
    low, high = corners.min(axis=0), corners.max(axis=0)
    low[:2] += margin_m
    high[:2] -= margin_m
    if table.normal[2] < np.cos(np.radians(45.0)):
        raise CalibrationError(
            f"the table leans {np.degrees(table.tilt_rad):.0f} deg against the base's z axis; a box with a flat "
            f"floor does "
            "not fit above it: check that the points are in the base's frame"
        )
    low[2] = _highest(table, low, high) + clearance_m
    if (low >= high).any():
        raise CalibrationError(
            f"the workspace box is empty: low {np.round(low, 3).tolist()}, high {np.round(high, 3).tolist()} m; touch "
            "corners that are apart in x and y, and at least one high above the table"
        )
    return TouchedWorkspace(table=table, low=low, high=high)


def _highest(table: Plane, low: np.ndarray, high: np.ndarray) -> float:
    """Return the highest z of the plane inside the box."""
    places = np.array([[x, y] for x in (low[0], high[0]) for y in (low[1], high[1])])
    return float(((table.offset_m - places @ table.normal[:2]) / table.normal[2]).max())


def _checked(points: Sequence[Sequence[float]] | np.ndarray, name: str, *, least: int) -> np.ndarray:
    p = np.array(points, np.float64)
    if p.ndim != 2 or p.shape[1] != 3 or not np.isfinite(p).all():
        raise CalibrationError(f"{name} must be finite [N, 3] m, got shape {p.shape}")
    if len(p) < least:
        raise CalibrationError(f"{name}: at least {least} are needed, got {len(p)}")
    if np.abs(p).max() > MAX_REACH_M:
        raise CalibrationError(
            f"{name} must be metres, got {np.abs(p).max():.6g}; if these are millimetres, divide them by 1000"
        )
    return p


def _spread(p: np.ndarray) -> float:
    """Return how far points reach across their longest direction [m]; zero when they are in one line."""
    return float(np.linalg.svd(p - p.mean(axis=0), compute_uv=False)[1])


def _check_spread(p: np.ndarray) -> None:
    if len(p) < 3 or _spread(p) < MIN_SPREAD_M:
        raise CalibrationError(
            f"{len(p)} table points lie within {1e3 * _spread(p) if len(p) > 2 else 0:.0f} mm of one line; touch the "
            f"table "
            "in places far apart, not in a row"
        )


def _through(p: np.ndarray) -> tuple[np.ndarray, float]:
    """Return normal and offset of the plane nearest to the points (total least squares)."""
    middle = p.mean(axis=0)
    normal = np.linalg.svd(p - middle)[2][2]
    normal = normal if normal[2] >= 0 else -normal
    return normal, float(normal @ middle)


def _held_out(p: np.ndarray) -> float:
    if len(p) < 4:
        return float(np.inf)
    errors = []
    for i in range(len(p)):
        normal, offset = _through(np.delete(p, i, axis=0))
        errors.append(float(p[i] @ normal - offset))
    return float(np.sqrt(np.square(errors).mean()))
