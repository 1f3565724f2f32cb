"""The last thing an action passes before it moves an arm. It fails closed.

A limit that is missing is an error; a limit of 0.0 is a limit; leaving one out takes the word `unlimited`. Position,
velocity and acceleration are limited together: a speed is allowed only if the arm can still brake before its position
limit, so that all three hold at every step. NaN, a stale observation, a silent controller, a jump at the start and the
e-stop stop motion; the stop is latched until `clear`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robot_rl.deploy.limits import UNLIMITED, LimitValue, Workspace, brake_speed, vector
from robot_rl.errors import ConfigError, SafetyStop

__all__ = ["UNLIMITED", "SafetyFilter", "SafetyLimits", "SafetyResult", "Workspace"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SafetyResult:
    """What may be sent.

    Args:
        action_executed: The filtered action [A]; when stopped, the last one executed, so that sending it holds.
        stopped: Motion is stopped and stays so until `clear`.
        reasons: What was limited, or why it stopped; empty when the action passed unchanged.
    """

    action_executed: np.ndarray
    stopped: bool
    reasons: tuple[str, ...]


class SafetyLimits:
    """Limits per action element, each one number or one per element; none of them may be left out.

    Args:
        width: A, elements of an action.
        low: Lowest position, in the action's unit.
        high: Highest position.
        velocity: Largest speed, unit/s.
        acceleration: Largest acceleration, unit/s^2.
        start_jump: Largest distance of the first command from the present pose, in the action's unit.
        obs_age_s: Age in seconds beyond which an observation is stale.
        command_gap_s: Silence in seconds between two commands after which motion stops.
        slow_start_s: Seconds over which the speed limit rises from a tenth to the whole.
        workspace: Box that a point of the arm must stay in.

    Raises:
        ConfigError: A limit is missing (`None`), NaN, negative where it must not be, or contradicts another.
    """

    def __init__(
        self,
        width: int,
        *,
        low: LimitValue,
        high: LimitValue,
        velocity: LimitValue,
        acceleration: LimitValue,
        start_jump: LimitValue,
        obs_age_s: LimitValue,
        command_gap_s: LimitValue,
        slow_start_s: float,
        workspace: Workspace | str,
    ) -> None:
        self.width = width
        self.low = vector("low", low, width, -np.inf)
        self.high = vector("high", high, width, np.inf)
        if (self.low > self.high).any():
            i = int(np.argmax(self.low > self.high))
            raise ConfigError(f"safety limits of element {i}: low {self.low[i]:g} lies above high {self.high[i]:g}")
        self.velocity = vector("velocity", velocity, width, np.inf, positive=True)
        self.acceleration = vector("acceleration", acceleration, width, np.inf, positive=True)
        self.start_jump = vector("start_jump", start_jump, width, np.inf, positive=True)
        self.obs_age_s = float(vector("obs_age_s", obs_age_s, 1, np.inf, positive=True)[0])
        self.command_gap_s = float(vector("command_gap_s", command_gap_s, 1, np.inf, positive=True)[0])
        self.slow_start_s = float(vector("slow_start_s", slow_start_s, 1, np.inf, positive=True)[0])
        if not isinstance(workspace, Workspace) and workspace != UNLIMITED:
            raise ConfigError(f"safety limit `workspace` must be a Workspace or {UNLIMITED!r}, got {workspace!r}")
        self.workspace = workspace if isinstance(workspace, Workspace) else None


class SafetyFilter:
    """Turns a commanded action into one that may be executed. Call `arm` with the present pose first.

    Args:
        limits: What is allowed.
        step_ns: Control period. Speeds are counted over it even when a tick came late: late is never a reason to jump.
    """

    def __init__(self, limits: SafetyLimits, *, step_ns: int) -> None:
        if step_ns <= 0:
            raise ConfigError(f"`step_ns` must be positive, got {step_ns}")
        self.limits = limits
        self._dt = step_ns / 1e9
        self._lock = threading.Lock()
        self._stopped: str | None = None
        self._last: np.ndarray | None = None
        self._velocity = np.zeros(limits.width)
        self._armed_ns = self._command_ns = 0
        self._first = True

    @property
    def stopped(self) -> str | None:
        """Why motion is stopped, or `None`."""
        with self._lock:
            return self._stopped

    def arm(self, pose: np.ndarray, now_ns: int) -> None:
        """Start from the present pose, expressed as the action that would hold it; speed rises slowly from here.

        A measured pose may lie a little outside its limits: up to `start_jump`, the nearest allowed pose stands for it.

        Raises:
            SafetyStop: A stop is latched, or the pose is not finite or lies farther outside the limits.
        """
        value = self._vector(pose)
        with self._lock:
            if self._stopped is not None:
                raise SafetyStop(f"stopped ({self._stopped}); find the cause, then call clear() before arming")
            if value is None:
                raise SafetyStop(f"the present pose must be {self.limits.width} finite numbers, got {pose}")
            inside = np.clip(value, self.limits.low, self.limits.high)
            outside = np.abs(inside - value) > self.limits.start_jump
            if outside.any():
                i = int(np.argmax(outside))
                raise SafetyStop(
                    f"the present pose lies outside its limits: element {i} must be in "
                    f"[{self.limits.low[i]:g}, {self.limits.high[i]:g}], got {value[i]:g}; move the arm by hand first"
                )
            value = inside
            if self.limits.workspace is not None and not self.limits.workspace.contains(value):
                raise SafetyStop("the present pose lies outside the workspace box; move the arm by hand first")
            self._last, self._velocity, self._first = value, np.zeros_like(value), True
            self._armed_ns = self._command_ns = now_ns

    def emergency_stop(self, reason: str) -> None:
        """Stop motion, from any thread, until `clear`."""
        with self._lock:
            self._latch(f"e-stop: {reason}")

    def clear(self) -> None:
        """Release a latched stop. The filter must be armed again before it lets anything through."""
        with self._lock:
            self._stopped, self._last = None, None

    def check_command_gap(self, now_ns: int) -> str | None:
        """Stop if no command came for too long; for a watchdog thread. Returns why motion is stopped, or `None`."""
        with self._lock:
            if self._last is not None and self._stopped is None:
                self._check_gap(now_ns)
            return self._stopped

    def filter(self, action: np.ndarray, *, now_ns: int, obs_ns: Mapping[str, int]) -> SafetyResult:
        """Return what may be executed.

        Args:
            action: Commanded action [A], in its physical unit.
            now_ns: The present time, on the clock of `obs_ns`.
            obs_ns: When each observation the policy reads was taken or received.

        Raises:
            SafetyStop: The filter was never armed, so that there is no pose to hold.
        """
        with self._lock:
            if self._last is None:
                raise SafetyStop(f"not armed ({self._stopped or 'call arm() with the present pose first'})")
            value = self._vector(action)
            if self._stopped is None:
                self._check(value, action, now_ns=now_ns, obs_ns=obs_ns)
            if self._stopped is not None or value is None:
                self._velocity[:] = 0.0
                return SafetyResult(self._last.copy(), True, (str(self._stopped),))
            executed, reasons = self._limit(value, now_ns)
            self._velocity, self._last = (executed - self._last) / self._dt, executed
            self._first, self._command_ns = False, now_ns
            return SafetyResult(executed.copy(), False, reasons)

    def _check(self, value: np.ndarray | None, action: np.ndarray, *, now_ns: int, obs_ns: Mapping[str, int]) -> None:
        self._check_gap(now_ns)
        if not obs_ns:
            self._latch("no observation stamps were given; staleness cannot be judged")
        for name, stamp in obs_ns.items():
            age_s = (now_ns - stamp) / 1e9
            if age_s < -self._dt:  # it would never grow stale
                self._latch(f"observation `{name}` is stamped {-age_s:.3f} s in the future; use the clock of `now_ns`")
            elif not age_s <= self.limits.obs_age_s:
                self._latch(f"observation `{name}` is {age_s:.3f} s old, at most {self.limits.obs_age_s:g} s allowed")
        if value is None:
            self._latch(f"action must be {self.limits.width} finite numbers, got {np.asarray(action).tolist()}")
        elif self._first and self._last is not None:
            jump = np.abs(value - self._last)
            if (jump > self.limits.start_jump).any():
                i = int(np.argmax(jump - self.limits.start_jump))
                self._latch(
                    f"the first command jumps: element {i} is {jump[i]:g} from the present pose, "
                    f"at most {self.limits.start_jump[i]:g} allowed"
                )

    def _check_gap(self, now_ns: int) -> None:
        gap_s = (now_ns - self._command_ns) / 1e9
        if not gap_s <= self.limits.command_gap_s:
            self._latch(f"no command for {gap_s:.3f} s, at most {self.limits.command_gap_s:g} s allowed")

    def _limit(self, value: np.ndarray, now_ns: int) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the nearest action that every limit allows, and which limits spoke."""
        lim, last = self.limits, self._last
        reasons: list[str] = []
        if last is None:
            raise SafetyStop("not armed; call arm() with the present pose first")
        target = np.clip(value, lim.low, lim.high)
        reasons += _named("position", target != value)
        speed = lim.velocity * self._ramp(now_ns)
        wanted = (target - last) / self._dt
        slower = np.clip(wanted, -speed, speed)
        reasons += _named("velocity", slower != wanted)
        up = np.minimum(speed, brake_speed(lim.high - last, lim.acceleration, self._dt))
        down = np.minimum(speed, brake_speed(last - lim.low, lim.acceleration, self._dt))
        step = lim.acceleration * self._dt
        low, high = np.maximum(-down, self._velocity - step), np.minimum(up, self._velocity + step)
        velocity = np.clip(slower, np.minimum(low, high), high)
        reasons += _named("acceleration", velocity != slower)
        # An untouched element passes bit for bit instead of through a division and a multiplication.
        executed = np.where(velocity == wanted, target, np.clip(last + velocity * self._dt, lim.low, lim.high))
        if lim.workspace is not None:
            inside = lim.workspace.pull_in(last, executed)
            if inside is not executed:
                executed, reasons = inside, [*reasons, "workspace"]
        return executed, tuple(reasons)

    def _ramp(self, now_ns: int) -> float:
        elapsed_s = (now_ns - self._armed_ns) / 1e9
        done = 1.0 if self.limits.slow_start_s == 0 else min(elapsed_s / self.limits.slow_start_s, 1.0)
        return 0.1 + 0.9 * max(done, 0.0)

    def _vector(self, action: np.ndarray) -> np.ndarray | None:
        """Return a float64 copy, or `None` if the shape is wrong or anything is not finite."""
        value = np.array(action, dtype=np.float64)
        return value if value.shape == (self.limits.width,) and np.isfinite(value).all() else None

    def _latch(self, reason: str) -> None:
        if self._stopped is None:
            self._stopped = reason
            log.error("motion stopped: %s", reason)


def _named(limit: str, touched: np.ndarray) -> Sequence[str]:
    """Return one reason per limit, naming the elements it touched."""
    return [f"{limit} of element {', '.join(map(str, np.flatnonzero(touched)))}"] if touched.any() else []
