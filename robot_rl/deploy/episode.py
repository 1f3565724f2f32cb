"""The life of an episode: idle -> running -> success, failure, discard or timeout -> resetting -> idle."""

from __future__ import annotations

from typing import Any, Literal, get_args

from robot_rl.deploy.takeover import Now
from robot_rl.errors import ConfigError, EpisodeError

EpisodeOutcome = Literal["success", "failure", "discard", "timeout"]
EpisodeState = Literal["idle", "running", "success", "failure", "discard", "timeout", "resetting"]
OUTCOMES: tuple[EpisodeOutcome, ...] = get_args(EpisodeOutcome)


class EpisodeStates:
    """Where the present episode stands. Only the moves named above are possible; every other is refused with a reason.

    Args:
        max_episode_s: Time after which a running episode ends with `timeout`; infinity for never.
        task: What is attempted, in words.

    Raises:
        ConfigError: `max_episode_s` is not positive.
    """

    def __init__(self, *, max_episode_s: float, task: str = "") -> None:
        if not max_episode_s > 0:
            raise ConfigError(f"`max_episode_s` must be positive, got {max_episode_s}")
        self._max_episode_s = max_episode_s
        self._started = Now(0, 0)
        self._is_told = False
        self.state: EpisodeState = "idle"
        self.task = task
        self.index = -1
        self.outcome: EpisodeOutcome | None = None
        self.seed: int | None = None

    def start(self, now: Now, *, seed: int | None = None) -> None:
        """Begin the next episode.

        Args:
            now: The moment it begins.
            seed: Of the reset before it, where there was one.

        Raises:
            EpisodeError: Not idle.
        """
        self._need("idle", "start")
        self.state, self.outcome, self.seed = "running", None, seed
        self.index += 1
        self._started = now

    def finish(self, outcome: EpisodeOutcome) -> None:
        """End the running episode.

        Raises:
            EpisodeError: None is running, or there is no such outcome.
        """
        if outcome not in OUTCOMES:
            raise EpisodeError(f"an episode ends with one of {OUTCOMES}, got {outcome!r}")
        self._need("running", outcome)
        self.state = self.outcome = outcome
        self._is_told = False

    def reset(self) -> None:
        """Prepare arm and scene before an episode, as after one.

        Raises:
            EpisodeError: Not idle.
        """
        self._need("idle", "reset")
        self.state = "resetting"

    def reset_done(self) -> None:
        """Note that arm and scene are ready for the next episode.

        Raises:
            EpisodeError: Nothing is being reset.
        """
        self._need("resetting", "reset_done")
        self.state = "idle"

    def update(self, now: Now) -> bool:
        """Let time pass: an overdue episode ends, an ended one goes on to `resetting`. Returns whether it moved.

        An end that was called between two updates stays until the second of them, so that it can be told.
        """
        before = self.state
        if self.state == "running" and self.elapsed_s(now) >= self._max_episode_s:
            self.finish("timeout")
        elif self.outcome is not None and self.state == self.outcome:
            self.state, self._is_told = ("resetting" if self._is_told else self.state), True
        return self.state != before

    def elapsed_s(self, now: Now) -> float:
        """Return how long ago the episode began [s], by the monotonic clock."""
        return (now.monotonic_ns - self._started.monotonic_ns) / 1e9

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `started_ns` is ROS time, `outcome` stays until the next episode starts."""
        return {
            "state": self.state, "index": self.index, "task": self.task, "outcome": self.outcome,
            "started_ns": self._started.stamp_ns, "seed": self.seed,
        }  # fmt: skip

    def _need(self, state: EpisodeState, move: str) -> None:
        if self.state != state:
            raise EpisodeError(f"`{move}` is possible only while {state}, the episode is {self.state}")
