"""Pictures: blurred, too dark or too bright, empty, or standing still while the robot moves; on a bounded sample.

Sharpness is the variance of the Laplacian (Pech-Pacheco et al., ICPR 2000). It depends on the scene, so a picture is
compared with the other pictures of its camera and not with a fixed number.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from robot_rl.data.checks.finding import Finding
from robot_rl.data.checks.profile import Profile
from robot_rl.data.checks.thresholds import Thresholds
from robot_rl.data.checks.view import EpisodeView, runs
from robot_rl.data.rows import FrameRows
from robot_rl.values import Rows

DARK, BRIGHT = 5, 250
"""Grey levels at and beyond which a pixel is clipped; JPEG moves pure black and white by a few levels."""
EMPTY_STD = 2.0
BLACK_MEAN = 16.0
MARKS = 60
"""Pictures per episode whose bytes are compared, to find where a camera stands still."""
FROZEN_FAIL = 0.2
_WHY = {
    "empty": ("empty (one colour)", "the camera was off, covered or not yet exposed"),
    "blur": ("blurred against the camera's other pictures", "clean and focus the lens, shorten the exposure"),
    "dark": ("much darker than usual, pixels clipped to black", "fix exposure and lighting"),
    "bright": ("much brighter than usual, pixels clipped to white", "fix exposure and lighting"),
}


@dataclass(frozen=True)
class Sample:
    """Figures of the pictures of one camera that were looked at in one episode: float64 [F] each."""

    episode: str
    camera: str
    time_s: np.ndarray
    sharpness: np.ndarray
    dark: np.ndarray
    bright: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def sample_frames(view: EpisodeView, camera: str, count: int) -> Sample:
    """Return the figures of `count` pictures spread evenly over an episode.

    Raises:
        StoreError: A picture cannot be decoded.
    """
    stream = view.recording.streams[camera]
    rows = np.unique(np.linspace(0, len(stream) - 1, min(count, len(stream))).round().astype(int))
    figures = np.array([_figures(stream.data[int(row)]) for row in rows]).T
    time_s = (stream.stamp_ns[rows] - view.origin_ns) / 1e9
    return Sample(view.id, camera, time_s, *figures)


def _figures(image: np.ndarray) -> tuple[float, float, float, float, float]:
    """Return sharpness, share of dark and of bright pixels, mean and deviation of a picture's grey levels."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[-1] == 3 else np.ascontiguousarray(image[..., 0])
    sharpness = float(cv2.Laplacian(grey, cv2.CV_64F).var())
    return (
        sharpness,
        float((grey <= DARK).mean()),
        float((grey >= BRIGHT).mean()),
        float(grey.mean()),
        float(grey.std()),
    )


def check_images(samples: Sequence[Sample], thresholds: Thresholds) -> list[Finding]:
    """Return the episodes whose pictures are bad against all pictures of the same camera."""
    findings = []
    for camera in dict.fromkeys(s.camera for s in samples):
        own = [s for s in samples if s.camera == camera]
        limits = _limits(own, thresholds)
        for sample in own:
            findings += _judge(sample, limits, thresholds)
    return findings


def _limits(samples: Sequence[Sample], thresholds: Thresholds) -> dict[str, float]:
    """Return from which figure on a picture of this camera is bad."""
    log = np.log(np.concatenate([s.sharpness for s in samples]) + 1e-9)
    middle = float(np.median(log))
    deviation = 1.4826 * float(np.median(np.abs(log - middle)))
    dark, bright = (float(np.median(np.concatenate([getattr(s, n) for s in samples]))) for n in ("dark", "bright"))
    blur = min(middle + np.log(thresholds.blur), middle - thresholds.blur_deviations * deviation)
    return {"blur": float(np.exp(blur)), "dark": dark + thresholds.clipped, "bright": bright + thresholds.clipped}


def _judge(sample: Sample, limits: dict[str, float], thresholds: Thresholds) -> list[Finding]:
    empty = sample.std < EMPTY_STD
    dark, bright = ~empty & (sample.dark > limits["dark"]), ~empty & (sample.bright > limits["bright"])
    clipped = empty | dark | bright  # there sharpness says nothing
    bad = {
        "empty": (empty, sample.std, EMPTY_STD, "grey levels"),
        "blur": (~clipped & (sample.sharpness < limits["blur"]), sample.sharpness, limits["blur"], "variance"),
        "dark": (dark, sample.dark, limits["dark"], "share"),
        "bright": (bright, sample.bright, limits["bright"], "share"),
    }
    findings = []
    for check, (mask, values, limit, unit) in bad.items():
        share = float(mask.mean())
        if share == 0 or (check != "empty" and share < thresholds.bad_frames):
            continue
        colour = " and black" if check == "empty" and float(sample.mean[mask].mean()) < BLACK_MEAN else ""
        findings.append(
            Finding(
                check=check, severity="fail" if check == "empty" and share >= thresholds.bad_frames else "warn",
                what=f"{int(mask.sum())} of {len(mask)} pictures are {_WHY[check][0]}{colour}", advice=_WHY[check][1],
                value=float(np.median(values[mask])), threshold=limit, unit=unit, stream=sample.camera,
                start_s=float(sample.time_s[mask][0]), end_s=float(sample.time_s[mask][-1]), episode=sample.episode,
            )
        )  # fmt: skip
    return findings


def check_standstill(
    view: EpisodeView, camera: str, profile: Profile, driven: Sequence[int], thresholds: Thresholds
) -> list[Finding]:
    """Return where a camera gives the same bytes over and over while the robot moves.

    The bytes of at most `MARKS` pictures are compared, so a standstill is known to 1/60 of an episode. The robot moves
    where one of the state columns `driven` by an action does.
    """
    stream = view.recording.streams[camera]
    rows = np.unique(np.linspace(0, len(stream) - 1, min(MARKS, len(stream))).round().astype(int))
    marks = np.array([_mark(stream.data, int(row)) for row in rows])
    ticks = np.searchsorted(view.episode.stamp_ns, stream.stamp_ns[rows])
    found = []
    for b, e in runs(np.diff(marks) == 0):
        seconds = float(stream.stamp_ns[rows[e]] - stream.stamp_ns[rows[b]]) / 1e9
        if seconds >= thresholds.frozen_s and _moves(view, profile, driven, slice(ticks[b], ticks[e]), thresholds):
            found.append((seconds, float(stream.stamp_ns[rows[b]] - view.origin_ns) / 1e9))
    if not found:
        return []
    share = sum(seconds for seconds, _ in found) / max(view.seconds, 1e-9)
    longest, start = max(found)
    return [
        Finding(
            check="standstill", severity="fail" if share >= FROZEN_FAIL else "warn", stream=camera, episode=view.id,
            what=f"gives one and the same picture for {longest:.2f} s while the robot moves "
            f"({100 * share:.0f} % of the episode)", value=longest, threshold=thresholds.frozen_s, unit="s",
            start_s=start, end_s=start + longest,
            advice="the camera or its driver hung: split the episode there or delete it",
        )
    ]  # fmt: skip


def _mark(rows: Rows, row: int) -> int:
    return zlib.crc32(rows.encoded(row) if isinstance(rows, FrameRows) else np.ascontiguousarray(rows[row]).data)


def _moves(view: EpisodeView, profile: Profile, columns: Sequence[int], ticks: slice, thresholds: Thresholds) -> bool:
    state = view.state[ticks][:, columns]
    return len(state) > 1 and bool((np.ptp(state, axis=0) > thresholds.motion * profile.range[columns]).any())


def image_measures(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the median and the tails of each camera's figures as plain JSON."""
    measures = {}
    for camera in dict.fromkeys(s.camera for s in samples):
        own = [s for s in samples if s.camera == camera]
        parts = {n: np.concatenate([getattr(s, n) for s in own]) for n in ("sharpness", "dark", "bright", "mean")}
        measures[camera] = {
            "pictures": len(parts["mean"]),
            **{n: {f"p{q}": round(float(np.percentile(v, q)), 4) for q in (5, 50, 95)} for n, v in parts.items()},
        }
    return measures
