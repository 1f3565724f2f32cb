"""When a view is worth taking, and what a live session says about the newest picture."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from robot_rl.errors import ConfigError

Purpose = Literal["intrinsics", "hand-eye"]
PURPOSES: tuple[Purpose, ...] = ("intrinsics", "hand-eye")


@dataclass(frozen=True, kw_only=True)
class CaptureRules:
    """When a view is worth taking.

    Args:
        n_views: How many views to take.
        min_share: Share of the board's corners that must be seen.
        max_edge_px: How wide edges may look, see `calibration.sharpness`.
        still_s: How long the board and the arm must have been still.
        still_px: How far corners may move in that time.
        arm_still_m: How far the tool may move in that time.
        arm_still_deg: How far it may turn.
        min_new: For intrinsics, how far corners must be from those of every view taken, as a share of the picture's
            diagonal; or the board has turned by `min_turn_deg`.
        min_move_m: For hand-eye, how far the tool must have moved against every view taken; or it has turned by
            `min_turn_deg`.
        min_turn_deg: What counts as another rotation.

    Raises:
        ConfigError: A value that is not positive, or a share above one.
    """

    n_views: int = 20
    min_share: float = 0.5
    max_edge_px: float = 4.0
    still_s: float = 0.5
    still_px: float = 0.5
    arm_still_m: float = 5e-4
    arm_still_deg: float = 0.1
    min_new: float = 0.04
    min_move_m: float = 0.03
    min_turn_deg: float = 8.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ConfigError(f"`{name}` of the capture rules must be positive, got {value}")
        for name in ("min_share", "min_new"):
            if getattr(self, name) > 1:
                raise ConfigError(f"`{name}` of the capture rules is a share, at most 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the newest picture is worth.

    Args:
        stamp_ns: When it was taken.
        found: Whether the board is in it.
        share: Share of the board's corners that are seen.
        edge_px: How wide edges look.
        moved_px: How far corners moved in the last `still_s`; `None` where the board was not seen for so long.
        advice: What speaks against taking it, as what to do, most important first; empty: a good view.
    """

    stamp_ns: int
    found: bool
    share: float = 0.0
    edge_px: float | None = None
    moved_px: float | None = None
    advice: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether the view is worth taking."""
        return self.found and not self.advice

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        return "good view" if self.is_good else self.advice[0]

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        figures = {
            "share": _rounded(self.share),
            "edge_px": _rounded(self.edge_px),
            "moved_px": _rounded(self.moved_px),
        }
        return {"good": self.is_good, "found": self.found, **figures, "advice": list(self.advice)}


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 2)
