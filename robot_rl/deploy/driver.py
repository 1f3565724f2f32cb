"""One policy on one clock: what to command at a tick, given streams that other threads feed.

`ControlLoop` owns its `Env` and waits for it; here the arm is elsewhere (behind topics), so the driver only decides.
It runs on monotonic time throughout, so that no jump of the ROS clock moves a plan; stamps of observations are ROS time
and are compared with the tick's. When it must not command it gives no action and the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robot_rl.deploy.chunks import ChunkCounts, ChunkExecutor
from robot_rl.deploy.clock import Clock, MonotonicClock
from robot_rl.deploy.latency import LatencyHistogram
from robot_rl.deploy.observer import Observer
from robot_rl.deploy.runners import Runner, ThreadRunner
from robot_rl.errors import ConfigError, RobotRLError
from robot_rl.hold import renew
from robot_rl.interfaces import Policy, StepPolicy
from robot_rl.values import ActionChunk, Obs, PolicyInput

CLOCK_JUMP_NS = 20_000_000
"""ROS time may drift against monotonic time by slewing; more than this between two ticks is a jump."""


@dataclass(frozen=True)
class Decision:
    """What to do at a tick.

    Args:
        action: What to command [A]; `None` says: command nothing.
        held: The action repeats the last one, because no chunk was in force.
        reason: Why nothing is commanded, or why the action is held; else empty.
        chunk: A chunk that arrived since the last tick, stamps in monotonic time.
    """

    action: np.ndarray | None
    held: bool = False
    reason: str = ""
    chunk: ActionChunk | None = None


class PolicyDriver:
    """Drives with one policy. All methods but the observer's `push` belong to one thread.

    Args:
        policy: Gives the chunks; warmed up.
        observer: Holds the streams.
        max_hold_s: How long the last action may be repeated when no chunk is in force.
        executor: Holds the chunks (`robot_rl.deploy.execution`); one that replans after the policy's `n_execute` when
            `None`.
        make_runner: Where inference happens.
        clock: Monotonic time.
        step: Corrects each action of the chunks at its tick, by the newest observation; it runs in the tick itself.
        max_step: [A], how far an action may be from the one of the tick before, by which a policy is slowed down; one
            that is farther is approached in a straight line. `None` leaves actions as they are.

    Raises:
        ConfigError: A negative `max_hold_s`, or a `max_step` that is not positive.
    """

    def __init__(
        self,
        policy: Policy,
        observer: Observer,
        *,
        max_hold_s: float = 0.5,
        executor: ChunkExecutor | None = None,
        make_runner: Callable[[Policy, ChunkExecutor, Clock], Runner] = ThreadRunner,
        clock: Clock | None = None,
        step: StepPolicy | None = None,
        max_step: np.ndarray | None = None,
    ) -> None:
        if not max_hold_s >= 0:
            raise ConfigError(f"`max_hold_s` must not be negative, got {max_hold_s}")
        if max_step is not None and not (np.asarray(max_step) > 0).all():
            raise ConfigError(f"`max_step` must be positive, got {max_step}")
        self._max_step = max_step
        self.observer = observer
        self._policy, self._step = _Watched(policy), step
        self._clock: Clock = MonotonicClock() if clock is None else clock
        self._executor = ChunkExecutor(n_execute=policy.n_execute) if executor is None else executor
        self._runner = make_runner(self._policy, self._executor, self._clock)
        self._max_hold_ns = round(max_hold_s * 1e9)
        self._offset_ns: int | None = None
        self._fault, self._outdated = "", False
        self.clock_jumps = 0
        self._before = ChunkCounts()
        self._last: np.ndarray | None = None
        self._replan()

    @property
    def counts(self) -> ChunkCounts:
        """What happened to chunks since the driver was made."""
        return self._before.plus(self._executor.counts)

    @property
    def inference(self) -> LatencyHistogram:
        """How long the policy took."""
        return self._runner.latency

    def reset(self) -> None:
        """Begin an episode: forget observations, plan, and a fault of the policy."""
        self.observer.reset()
        self._fault = ""
        self._policy.reset()
        self._replan()

    def replan(self) -> None:
        """Drop the plan, for example after a person moved the arm; observations stay."""
        self._replan()

    def close(self) -> None:
        """Wait for the inference under way and release its thread."""
        self._runner.close()

    def tick(self, deadline_ns: int, *, ros_offset_ns: int) -> Decision:
        """Return what to command at a tick.

        Args:
            deadline_ns: The tick, monotonic time.
            ros_offset_ns: ROS time minus monotonic time, measured now.
        """
        jump_ns = self._jumped(ros_offset_ns)
        sight = self.observer.at(deadline_ns + ros_offset_ns, now_ns=self._clock.now_ns())
        ready = self._poll()
        reason = self._fault
        if jump_ns:
            reason = f"the ROS clock jumped by {jump_ns / 1e9:+.3f} s; waiting for observations on the new one"
        elif not reason and sight.obs is None:
            reason = sight.reason
        if reason or not ready or sight.obs is None:
            self._drop_plan()
            return Decision(None, reason=reason if reason else "waiting for the inference under way")
        if not self._runner.busy and self._executor.wants_chunk(deadline_ns):
            self._runner.request(self._executor.ask(sight.obs, deadline_ns))
        return self._decide(deadline_ns, sight.obs)

    def _decide(self, deadline_ns: int, obs: Obs) -> Decision:
        action, chunk = self._executor.action_at(deadline_ns), self._policy.take_latest()
        if action is not None:
            try:
                action = self._corrected(action, obs)
            except RobotRLError as error:
                self._fault = f"the correction failed: {error}"
                self._drop_plan()
                return Decision(None, reason=self._fault, chunk=chunk)
            self._last, self._last_ns = action, deadline_ns
            return Decision(action, chunk=chunk)
        if self._last is None:
            return Decision(None, reason="no chunk yet", chunk=chunk)
        silent_ns = deadline_ns - self._last_ns
        reason = f"no chunk in force for {silent_ns / 1e6:.0f} ms; inference is slower than the chunk lasts"
        held = self._last if silent_ns <= self._max_hold_ns else None
        return Decision(held, held=held is not None, reason=reason, chunk=chunk)

    def _corrected(self, action: np.ndarray, obs: Obs) -> np.ndarray:
        """Return the action to take, given the base's [A] and the stacked observations {name: [O, ...]}."""
        if self._step is not None:
            action = self._step.act({name: rows[-1] for name, rows in obs.items()}, action)
        if self._max_step is None or self._last is None:
            return action
        way = np.asarray(action, np.float64) - self._last
        excess = float(np.max(np.abs(way) / self._max_step))
        return action if excess <= 1 else (self._last + way / excess).astype(action.dtype)

    def _poll(self) -> bool:
        """Take in failures of the worker; return whether what it computes is wanted."""
        try:
            self._runner.poll(self._clock.now_ns())
        except RobotRLError as error:
            self._fault = f"the policy failed: {error}"
        if self._outdated and not self._runner.busy:
            self._forget_chunks()
            self._outdated = False
        return not self._outdated

    def _jumped(self, offset_ns: int) -> int:
        """Return by how much the ROS clock jumped since the last tick, zero if it did not."""
        before, self._offset_ns = self._offset_ns, offset_ns
        if before is None or abs(offset_ns - before) <= CLOCK_JUMP_NS:
            return 0
        self.clock_jumps += 1
        self.observer.reset()
        return offset_ns - before

    def _drop_plan(self) -> None:
        if self._last is not None or self._executor.counts.chunks or self._runner.busy:
            self._replan()

    def _replan(self) -> None:
        self._forget_chunks()
        renew(self._step)
        self._outdated = self._runner.busy  # what is being computed started from what is no longer true
        self._last, self._last_ns = None, 0

    def _forget_chunks(self) -> None:
        self._before = self.counts
        self._executor.reset()
        self._policy.take_latest()


class _Watched:
    """The policy, remembering its newest chunk for those who want to show it."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._latest: ActionChunk | None = None

    @property
    def n_obs(self) -> int:
        return self._policy.n_obs

    @property
    def n_execute(self) -> int:
        return self._policy.n_execute

    def reset(self) -> None:
        self._policy.reset()

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        self._latest = self._policy.act(policy_input)
        return self._latest

    def take_latest(self) -> ActionChunk | None:
        """Return the newest chunk once."""
        latest, self._latest = self._latest, None
        return latest
