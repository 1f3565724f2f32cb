"""Whether a camera does what it should, seen from its frames: rate, gaps, latency, age."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from robot_rl.hardware.cameras import Frame

Level = Literal["ok", "warn", "error", "stale"]
_GAP = 1.6
"""A longer step between stamps than this many periods means that frames are missing."""


@dataclass(frozen=True)
class CameraVerdict:
    """One line for a person, and the figures behind it."""

    level: Level
    message: str
    values: dict[str, str] = field(default_factory=dict)


class CameraHealth:
    """Judges a camera over the frames of the last seconds. One thread updates it while another asks.

    Args:
        fps: Rate that is asked of it.
        period_s: How long it looks back.
        min_rate: Share of `fps` below which it warns.
        stale_s: Age of the newest frame at which the stream counts as stale, at least two periods.
    """

    def __init__(self, fps: float, *, period_s: float = 2.0, min_rate: float = 0.9, stale_s: float = 0.15) -> None:
        self._fps, self._period_ns, self._min_rate = fps, round(period_s * 1e9), min_rate
        self._stale_ns = round(max(stale_s, 2 / fps) * 1e9)
        self._lock = threading.Lock()
        # (received, stamp, latency) of the last frames
        self._seen: deque[tuple[int, int, int]] = deque(maxlen=max(8, round(4 * fps * period_s)))
        self._last: tuple[int, int] | None = None
        self.frames = 0
        self.missing = 0

    def update(self, frame: Frame, latency_ns: int) -> None:
        """Take note of a frame.

        Args:
            frame: What came.
            latency_ns: From its capture to now.
        """
        if self._last is not None:
            periods = (frame.stamp_ns - self._last[1]) * self._fps / 1e9
            if periods > _GAP:
                self.missing += round(periods) - 1
        with self._lock:
            self._last = (frame.receipt_ns, frame.stamp_ns)
            self._seen.append((frame.receipt_ns, frame.stamp_ns, latency_ns))
            self.frames += 1

    def verdict(self, now_ns: int, *, trouble: str = "") -> CameraVerdict:
        """Return how it is at monotonic time `now_ns`.

        Args:
            now_ns: Monotonic time.
            trouble: Why the camera is away, if it is.
        """
        with self._lock:
            recent = [seen for seen in self._seen if seen[0] > now_ns - self._period_ns]
            last = self._last
        rate = 0.0
        if len(recent) > 1:
            rate = (len(recent) - 1) * 1e9 / max(recent[-1][0] - recent[0][0], 1)
        age_s = float("inf") if last is None else (now_ns - last[0]) / 1e9
        latency = float(np.quantile([seen[2] for seen in recent], 0.99)) / 1e6 if recent else float("nan")
        values = {
            "rate_hz": f"{rate:.2f}", "asked_hz": f"{self._fps:g}", "frames": str(self.frames),
            "missing": str(self.missing), "age_s": f"{age_s:.3f}", "latency_p99_ms": f"{latency:.2f}",
        }  # fmt: skip
        level, message = self._judge(rate, age_s, len(recent), trouble)
        return CameraVerdict(level, message, values)

    def _judge(self, rate: float, age_s: float, n_recent: int, trouble: str) -> tuple[Level, str]:
        if trouble:
            return "error", f"away: {trouble}"
        if self._last is None:
            return "stale", "no frame yet"
        if age_s * 1e9 > self._stale_ns:
            return "stale", f"no frame for {age_s:.2f} s"
        if n_recent > 2 and rate < self._min_rate * self._fps:
            return "warn", f"{rate:.1f} Hz instead of {self._fps:g}"
        return "ok", f"{rate:.1f} Hz"
