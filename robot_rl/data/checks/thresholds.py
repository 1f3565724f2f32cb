"""From which number on a finding is worth a look. The reasons are in docs/check.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from robot_rl.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Numbers that findings are compared with; shares are of frames, ranges those of an element over the store.

    Args:
        rates_hz: Nominal rate of a stream; without one, the control rate for `action`, else the store's median.
        skew_ms: A stream whose stamps lie this much beside the others'.
        cover_s: A stream that begins later, or ends earlier, than the others by this much.
        max_lag_s: How far to look for the state that follows an action.
        lag_ms: A state that follows its action later than this.
        min_correlation: Below this, no state element is said to follow an action element.
        frozen_s: A reading that keeps one exact value this long while what should move it moves.
        motion: Share of its range that an element must cross to count as moving.
        saturated: Share of frames at one end of an element's range.
        jump_factor: A step this many times the 99th percentile of the element's steps.
        jump_range: Share of the element's range that a jump must also have.
        idle_s: Nothing moves for so long at the head or the tail.
        idle_motion: Share of its range that an element may wander while idle.
        near_duplicate: Root mean square difference of two episodes, in ranges, that is too small for two attempts.
        max_shift_s: How far apart in time two near duplicates may be.
        max_pairs: How many pairs of like episodes are compared frame by frame.
        frames: Pictures looked at per camera and episode.
        blur: Sharpness (variance of the Laplacian) below this share of the store's median, and
        blur_deviations: below so many deviations (of its logarithm) of the store's pictures.
        clipped: Share of pixels that are black or white, beyond the store's median share.
        bad_frames: Share of an episode's pictures that must be bad.
        length_factor: An episode this many times longer or shorter than the median, and
        length_deviations: this many deviations (of the logarithm) away.
        min_steps: An episode with fewer steps.
        rare_task: A task with less than this share of the most frequent task's episodes.

    Raises:
        ConfigError: A number that is not positive.
    """

    rates_hz: Mapping[str, float] = field(default_factory=dict)
    skew_ms: float = 50.0
    cover_s: float = 0.5
    max_lag_s: float = 1.0
    lag_ms: float = 200.0
    min_correlation: float = 0.5
    frozen_s: float = 0.5
    motion: float = 0.05
    saturated: float = 0.1
    jump_factor: float = 8.0
    jump_range: float = 0.2
    idle_s: float = 1.0
    idle_motion: float = 0.02
    near_duplicate: float = 0.005
    max_shift_s: float = 1.0
    max_pairs: int = 2000
    frames: int = 8
    blur: float = 0.2
    blur_deviations: float = 5.0
    clipped: float = 0.3
    bad_frames: float = 0.5
    length_factor: float = 3.0
    length_deviations: float = 5.0
    min_steps: int = 10
    rare_task: float = 0.05

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            wrong = {n: v for n, v in value.items() if not v > 0} if isinstance(value, Mapping) else not value > 0
            if wrong:
                raise ConfigError(f"`check.thresholds.{item.name}` must be positive, got {value}")
