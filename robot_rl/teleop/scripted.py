"""A script in a person's place: any policy, behind the protocol of the devices. For tests and demonstrations."""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np

from robot_rl.errors import ConfigError
from robot_rl.interfaces import Policy
from robot_rl.teleop.source import Event, TeleopState
from robot_rl.values import Obs, PolicyInput


class SuccessJudge(Protocol):
    """Says of each observation step whether the task is done."""

    def reset(self) -> None:
        """Forget the last episode."""

    def __call__(self, obs: Obs) -> bool:
        """Return whether it is done."""


class ScriptedSource:
    """Asks a policy of joint targets (and gripper width) at its control rate and says what it answered.

    It is engaged from `begin` to `finish`; observations are handed in by `observe`. Each action stands for a control
    step. Events are said through `say`, or by `succeeded`, once an episode.

    Args:
        policy: A script such as an expert; its actions are joint angles [rad], then the gripper's width [m].
        n_joints: J; an action of J elements has no gripper, one of J + 1 has.
        control_hz: Rate at which the policy is asked.
        obs_timeout_s: Age beyond which an observation is stale; the script then lets go.
        succeeded: Says whether the task is done; `Event.SUCCESS` is then said.

    Raises:
        ConfigError: The policy needs more than one observation step, or a number is not positive.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        n_joints: int,
        control_hz: float,
        obs_timeout_s: float = 0.2,
        succeeded: SuccessJudge | None = None,
    ) -> None:
        if policy.n_obs != 1:
            raise ConfigError(f"a scripted source needs a policy with `n_obs` 1, got {policy.n_obs}")
        if not (control_hz > 0 and obs_timeout_s > 0):
            raise ConfigError(f"need control_hz > 0 and obs_timeout_s > 0, got {control_hz}, {obs_timeout_s}")
        self._policy, self._n, self._succeeded = policy, n_joints, succeeded
        self._step_ns, self._timeout_ns = round(1e9 / control_hz), round(obs_timeout_s * 1e9)
        self._lock = threading.Lock()
        self._newest: tuple[int, Obs] | None = None
        self._events: list[Event] = []
        self._running = False
        self._action: np.ndarray | None = None
        self._due_ns = 0
        self._is_done = False

    def begin(self) -> None:
        """Start an episode: the policy forgets the last one."""
        with self._lock:
            self._policy.reset()
            if self._succeeded is not None:
                self._succeeded.reset()
            self._running, self._action, self._is_done = True, None, False

    def finish(self) -> None:
        """Let go of the arm."""
        with self._lock:
            self._running = False

    def observe(self, stamp_ns: int, obs: Obs) -> None:
        """Take one observation step {name: [...]}, received at `stamp_ns` on the clock of `poll`."""
        with self._lock:
            self._newest = (stamp_ns, obs)

    def say(self, event: Event) -> None:
        """Say an event at the next poll."""
        with self._lock:
            self._events.append(event)

    def open(self) -> None:
        """Nothing to open."""

    def poll(self, now_ns: int) -> TeleopState:
        """Return the action in force, asking the policy for it when one is due."""
        with self._lock:
            fresh = self._newest is not None and 0 <= now_ns - self._newest[0] <= self._timeout_ns
            if (
                self._running
                and fresh
                and self._newest is not None
                and (self._action is None or now_ns >= self._due_ns)
            ):
                self._ask(self._newest[1], now_ns)
            events, self._events = tuple(self._events), []
            if not (self._running and fresh) or self._action is None:
                return TeleopState(stamp_ns=now_ns, events=events)
            width = float(self._action[self._n]) if len(self._action) > self._n else None
            return TeleopState(
                stamp_ns=now_ns,
                engaged=True,
                joints=self._action[: self._n].copy(),
                gripper_width_m=None if width is None else max(width, 0.0),
                events=events,
            )

    def close(self) -> None:
        """Let go of the arm."""
        self.finish()

    def _ask(self, obs: Obs, now_ns: int) -> None:
        stacked = {name: np.asarray(value)[None] for name, value in obs.items()}
        chunk = self._policy.act(PolicyInput(obs=stacked, stamp_ns=now_ns))
        first = self._action is None
        self._action = np.asarray(chunk.action[0], dtype=np.float64)
        late = now_ns - self._due_ns
        # On the grid while in time; a new grid after a pause, never a burst.
        self._due_ns = now_ns + self._step_ns if first or late > self._step_ns else self._due_ns + self._step_ns
        if self._succeeded is not None and not self._is_done and self._succeeded(obs):
            self._is_done = True
            self._events.append(Event.SUCCESS)


class RaisedBy:
    """Says whether a position has risen by some height above where it was first seen, such as a lifted object.

    Args:
        obs_name: Observation that starts with x, y, z [m].
        height_m: How far it must rise.

    Raises:
        ConfigError: The height is not positive.
    """

    def __init__(self, obs_name: str, height_m: float) -> None:
        if not height_m > 0:
            raise ConfigError(f"`height_m` must be positive, got {height_m}")
        self._name, self._height = obs_name, height_m
        self._start: float | None = None

    def reset(self) -> None:
        """Take the next observation's height as the start."""
        self._start = None

    def __call__(self, obs: Obs) -> bool:
        """Return whether it has risen."""
        z = float(obs[self._name][2])
        self._start = z if self._start is None else min(self._start, z)
        return z - self._start >= self._height
