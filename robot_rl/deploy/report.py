"""What a run of the control loop leaves behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from robot_rl.deploy.chunks import ChunkCounts
from robot_rl.deploy.latency import LatencyHistogram
from robot_rl.errors import ConfigError


@dataclass(kw_only=True)
class LoopReport:
    """Counts and latencies of one run; `to_dict` is plain JSON with the histograms' edges and counts for plotting.

    Args:
        control_hz: Rate asked for.
        scheduling: How the loop's thread was run (`Timing`), empty for as any other.
        episodes: Runs that this report joins.
        successes: Those in which the task was achieved.
        ticks: Ticks that issued a command.
        overruns: Ticks whose work lasted beyond the next deadline.
        skipped_ticks: Deadlines that passed during overruns; they are never caught up with.
        held_ticks: Ticks that held because no action was valid.
        held_at_start: Those of them before the first chunk had arrived.
        limited: Ticks on which the safety filter changed the action, by limit.
        stopped: Why motion was stopped, if it was.
        success: Whether the task was achieved at any tick of the last run.
        ret: Sum of rewards.
        chunks: The executor's counts.
        lateness: Wake-up after the deadline.
        obs_to_command: From the wake-up that reads the observation to the command.
        inference: One policy call.
        reaction: From an observation's tick to the first command computed from it.
        period: Between two successive commands.
    """

    control_hz: float
    scheduling: str = ""
    episodes: int = 0
    successes: int = 0
    ticks: int = 0
    overruns: int = 0
    skipped_ticks: int = 0
    held_ticks: int = 0
    held_at_start: int = 0
    limited: Counter[str] = field(default_factory=Counter)
    stopped: str | None = None
    success: bool = False
    terminated: bool = False
    truncated: bool = False
    ret: float = 0.0
    chunks: ChunkCounts = field(default_factory=ChunkCounts)
    lateness: LatencyHistogram = field(default_factory=LatencyHistogram)
    obs_to_command: LatencyHistogram = field(default_factory=LatencyHistogram)
    inference: LatencyHistogram = field(default_factory=LatencyHistogram)
    reaction: LatencyHistogram = field(default_factory=LatencyHistogram)
    period: LatencyHistogram = field(default_factory=LatencyHistogram)

    def add(self, other: LoopReport) -> None:
        """Join the report of a later run: counts and latencies add up, how it ended is the later one's."""
        if other.control_hz != self.control_hz:
            raise ConfigError(f"reports of {self.control_hz:g} Hz and {other.control_hz:g} Hz cannot be joined")
        for name, value in vars(self).items():
            theirs = getattr(other, name)
            if isinstance(value, LatencyHistogram):
                value.add(theirs)
            elif name in (
                "episodes",
                "successes",
                "ticks",
                "overruns",
                "skipped_ticks",
                "held_ticks",
                "held_at_start",
                "ret",
            ):
                setattr(self, name, value + theirs)
        self.limited.update(other.limited)
        self.chunks = self.chunks.plus(other.chunks)
        self.stopped, self.success = other.stopped, other.success
        self.scheduling = other.scheduling
        self.terminated, self.truncated = other.terminated, other.truncated

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; durations in milliseconds."""
        plain = {name: value for name, value in vars(self).items() if not isinstance(value, LatencyHistogram)}
        latency = {name: value.to_dict() for name, value in vars(self).items() if isinstance(value, LatencyHistogram)}
        return {**plain, "limited": dict(self.limited), "chunks": self.chunks.to_dict(), "latency": latency}

    def rows(self) -> list[tuple[str, str]]:
        """Return the report as label and text, for a table that people read."""
        names = ("lateness", "obs_to_command", "inference", "reaction", "period")
        table = []
        for name in names:
            h: LatencyHistogram = getattr(self, name)
            text = "none" if h.count == 0 else " / ".join(
                f"{ns / 1e6:.3f}" for ns in (h.percentile_ns(50), h.percentile_ns(99), h.max_ns)
            )  # fmt: skip
            table.append((f"{name.replace('_', ' ')} p50 / p99 / max [ms]", text))
        table += [
            ("episodes, successes", f"{self.episodes}, {self.successes}"),
            ("ticks at rate", f"{self.ticks} at {self.control_hz:g} Hz"),
            ("scheduled", self.scheduling or "as any thread"),
            ("overruns, skipped ticks", f"{self.overruns}, {self.skipped_ticks}"),
            ("held ticks (before the first chunk)", f"{self.held_ticks} ({self.held_at_start})"),
            ("chunks, stale actions, wholly stale", f"{self.chunks.chunks}, {self.chunks.stale_actions}, "
             f"{self.chunks.stale_chunks}"),
            ("limited by safety", ", ".join(f"{k}: {n}" for k, n in sorted(self.limited.items())) or "never"),
            ("stopped", self.stopped or "no"),
        ]  # fmt: skip
        return table
