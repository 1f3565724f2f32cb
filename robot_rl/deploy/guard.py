"""The safety node without ROS: who may drive, since when each stream is silent, and what may be sent at this tick.

idle -> running -> idle follows the control source; homing is the guard's own motion; stopped is latched until `clear`.
Threads: messages arrive from any, `tick` is called by one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from robot_rl.deploy.follow import CommandFollower
from robot_rl.deploy.limits import LimitValue, vector
from robot_rl.deploy.safety import SafetyFilter
from robot_rl.deploy.watchdog import Watchdog
from robot_rl.errors import ConfigError, SafetyStop

log = logging.getLogger(__name__)

State = Literal["idle", "running", "homing", "stopped"]
NOBODY = "none"
COMMAND, JOINTS = "selected/command", "joint_states"
_HOLD_NS = 500_000_000
_FOLLOW_NS = 200_000_000
_AT_HOME = 0.02  # rad, m


@dataclass(frozen=True, kw_only=True)
class GuardSettings:
    """What the guard needs besides the filter's limits.

    Args:
        step_ns: Period of `tick`.
        sources: Who may command, besides `none`.
        command_timeout_s: Longest age of the selected command.
        joints_timeout_s: Longest age of the joint state.
        cameras: Longest age of each further stream (a camera's heartbeat) by name.
        cameras_for: Sources that need those streams.
        following_error: Largest distance of the measured pose from what was commanded, for longer than 0.2 s.
        interpolate_s: A command is approached in a straight line over the time since the one before it, at most this.
        home: Pose to go home to [A].
        home_speed: Speed of that, unit/s.
    """

    step_ns: int
    sources: Sequence[str] = ("policy", "human")
    command_timeout_s: float = 0.1
    joints_timeout_s: float = 0.1
    cameras: Mapping[str, float]
    cameras_for: Sequence[str] = ("policy", "human")
    following_error: LimitValue
    interpolate_s: float = 0.05
    home: Sequence[float]
    home_speed: LimitValue


@dataclass(frozen=True)
class Verdict:
    """What a tick says.

    Args:
        action: Send this [A]; `None` says: send nothing, the arm holds by itself.
        state: `idle`, `running`, `homing` or `stopped`.
        reason: Why motion is stopped, else empty.
        limited: What the limits changed at this tick.
    """

    action: np.ndarray | None
    state: State
    reason: str = ""
    limited: tuple[str, ...] = ()


class SafetyGuard:
    """Turns selected commands into what may be sent.

    Args:
        safety: The limits.
        settings: Streams, time-outs, home.

    Raises:
        ConfigError: A setting does not fit the filter's width or is missing.
    """

    def __init__(self, safety: SafetyFilter, settings: GuardSettings) -> None:
        width = safety.limits.width
        self._safety, self._settings = safety, settings
        cameras = dict(settings.cameras)
        self._watchdog = Watchdog({COMMAND: settings.command_timeout_s, JOINTS: settings.joints_timeout_s, **cameras})
        self._follow = vector("following_error", settings.following_error, width, np.inf, positive=True)
        self._home = vector("home", list(settings.home), width, np.nan)
        self._home_speed = vector("home_speed", settings.home_speed, width, np.inf, positive=True)
        if NOBODY in settings.sources:
            raise ConfigError(f"{NOBODY!r} means that nobody drives and is no source; got {list(settings.sources)}")
        self._lock = threading.RLock()
        self._source = NOBODY
        self._state: State = "idle"
        self._reason = ""
        self._pressed = False
        self._pose: np.ndarray | None = None
        self._last: np.ndarray | None = None
        self._follower = CommandFollower(
            step_ns=settings.step_ns, interpolate_s=settings.interpolate_s, acceleration=safety.limits.acceleration
        )
        self._stopped_ns = self._tick_ns = self._followed_ns = 0
        self.refused: dict[str, int] = {}

    @property
    def state(self) -> State:
        """What the guard is doing."""
        with self._lock:
            return self._state

    @property
    def source(self) -> str:
        """Who may command."""
        with self._lock:
            return self._source

    def on_joints(self, pose: np.ndarray, *, now_ns: int, age_ns: int) -> None:
        """Take the measured pose [A], in the action's unit."""
        if not np.isfinite(pose).all():
            self.stop(f"`{JOINTS}` holds NaN or infinity: {np.asarray(pose).tolist()}")
            return
        self._watchdog.saw(JOINTS, now_ns=now_ns, age_ns=age_ns)
        with self._lock:
            self._pose = np.array(pose, dtype=np.float64)

    def on_stream(self, name: str, *, now_ns: int, age_ns: int) -> None:
        """Note a sample of a further watched stream."""
        self._watchdog.saw(name, now_ns=now_ns, age_ns=age_ns)

    def on_source(self, source: str) -> None:
        """Take who may command from now on; an unknown one stops motion."""
        if source != NOBODY and source not in self._settings.sources:
            self.stop(f"control source {source!r} is unknown; known are {[NOBODY, *self._settings.sources]}")
            source = NOBODY
        with self._lock:
            if source != self._source and NOBODY in (source, self._source):
                self._follower.reset()  # what another driver sent before is not this one's first command
                if self._state in ("running", "homing"):
                    self._state, self._last = "idle", None
            self._source = source

    def on_command(self, values: np.ndarray, *, source: str, now_ns: int, age_ns: int) -> None:
        """Take a selected command [A]; one from another source than the present one is refused."""
        with self._lock:
            if source not in self._settings.sources and self._source != NOBODY:
                self.stop(f"`{COMMAND}` comes from {source!r}; known sources are {list(self._settings.sources)}")
            if source != self._source or self._state == "stopped":
                self.refused[source] = self.refused.get(source, 0) + 1
                return
            self._watchdog.saw(COMMAND, now_ns=now_ns, age_ns=age_ns)
            last = self._last if self._state == "running" else None
            self._follower.take(np.asarray(values, dtype=np.float64), last=last, now_ns=now_ns)

    def on_e_stop(self, pressed: bool) -> None:
        """Take the state of the e-stop button; releasing it does not clear the stop."""
        with self._lock:
            self._pressed = pressed
        if pressed:
            self.stop("e-stop pressed")

    def stop(self, reason: str) -> None:
        """Stop motion until `clear`. The first reason stays."""
        with self._lock:
            if self._state != "stopped":
                self._state, self._reason, self._stopped_ns = "stopped", reason, self._tick_ns
                self._follower.reset()
                log.error("motion stopped: %s", reason)

    def clear(self) -> str:
        """Release a stop and return an empty string, or return why it cannot be released."""
        with self._lock:
            if self._pressed:
                return "the e-stop is still pressed; release it first"
            self._safety.clear()
            self._state, self._reason, self._last = "idle", "", None
            self._follower.reset()
            self.refused.clear()
            return ""

    def home(self) -> str:
        """Begin to go home and return an empty string, or return why not."""
        with self._lock:
            if self._state != "idle" or self._source != NOBODY:
                return f"homing needs state idle and control source {NOBODY!r}, got {self._state}, {self._source!r}"
            problem = self._arm()
            if not problem:
                self._state = "homing"
            return problem

    def missing(self, now_ns: int) -> dict[str, tuple[str, ...]]:
        """Return by source the streams, besides its commands, without which it would be stopped if it began now."""
        with self._lock:
            return {
                source: tuple(s for s in self._streams_of(source) if self._watchdog.complaint(now_ns, (s,)))
                for source in self._settings.sources
            }

    def tick(self, now_ns: int) -> Verdict:
        """Return what to send now."""
        with self._lock:
            self._tick_ns = now_ns
            if self._state in ("running", "homing"):
                self._watch(now_ns)
            if self._state == "idle" and self._follower.has_command:
                problem = self._arm()
                if problem:
                    self.stop(problem)
                else:
                    self._state = "running"
            if self._state == "running" and self._last is not None:
                return self._send(self._follower.wanted(self._last, now_ns), now_ns)
            if self._state == "homing":
                return self._go_home(now_ns)
            return self._hold(now_ns)

    def _arm(self) -> str:
        """Arm the filter at the present pose and return an empty string, or return why that cannot be."""
        now_ns = self._tick_ns
        complaint = self._watchdog.complaint(now_ns, self._needed())
        if complaint or self._pose is None:
            return f"cannot start: {complaint}"
        try:
            self._safety.clear()
            self._safety.arm(self._pose, now_ns)
        except SafetyStop as error:
            return str(error)
        self._last, self._followed_ns = self._pose.copy(), now_ns
        self.refused.clear()
        return ""

    def _needed(self) -> Sequence[str]:
        """Return the streams that motion depends on now."""
        streams = self._streams_of(self._source)
        return streams if self._source == NOBODY else (COMMAND, *streams)  # nobody: the guard itself, going home

    def _streams_of(self, source: str) -> tuple[str, ...]:
        cameras = tuple(self._settings.cameras) if source in self._settings.cameras_for else ()
        return (JOINTS, *cameras)

    def _watch(self, now_ns: int) -> None:
        complaint = self._watchdog.complaint(now_ns, self._needed())
        if complaint:
            refused = f"; refused meanwhile: {self.refused}" if self.refused else ""
            self.stop(complaint + refused)
        elif self._pose is not None and self._last is not None:
            error = np.abs(self._pose - self._last)
            if (error <= self._follow).all():
                self._followed_ns = now_ns
            elif now_ns - self._followed_ns > _FOLLOW_NS:
                i = int(np.argmax(error - self._follow))
                self.stop(
                    f"the arm does not follow: element {i} is {error[i]:g} from its command, "
                    f"at most {self._follow[i]:g} allowed for longer than {_FOLLOW_NS / 1e9:g} s"
                )

    def _send(self, wanted: np.ndarray, now_ns: int) -> Verdict:
        age = self._watchdog.age_ns(JOINTS, now_ns)
        result = self._safety.filter(wanted, now_ns=now_ns, obs_ns={} if age is None else {JOINTS: now_ns - age})
        if result.stopped:
            self.stop(result.reasons[0])
            return self._hold(now_ns)
        self._last = result.action_executed
        return Verdict(result.action_executed, self._state, limited=result.reasons)

    def _go_home(self, now_ns: int) -> Verdict:
        if self._last is None or self._pose is None:
            raise SafetyStop("homing without a pose; arm first")
        away = self._home - self._last
        if (np.abs(away) < 1e-9).all() and (np.abs(self._pose - self._home) < _AT_HOME).all():
            self._state, self._last = "idle", None
            return Verdict(None, "idle")
        # The farthest element sets the pace, so that the joints move in a straight line.
        share = np.divide(
            self._home_speed * self._settings.step_ns / 1e9, np.abs(away), where=away != 0, out=np.ones_like(away)
        )
        return self._send(self._last + min(1.0, float(share.min())) * away, now_ns)

    def _hold(self, now_ns: int) -> Verdict:
        """Repeat the last action for a while after a stop, then send nothing: the arm holds by itself."""
        recent = self._state == "stopped" and now_ns - self._stopped_ns <= _HOLD_NS
        return Verdict(self._last.copy() if recent and self._last is not None else None, self._state, self._reason)
