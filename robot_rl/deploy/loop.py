"""The control loop: observe, ask the policy, execute its chunk by time stamp, filter, command. At a fixed rate.

Deadlines are absolute: tick n is due at start + n * step, so errors do not add up. A tick that overruns loses the
deadlines it slept through; they are counted and never caught up with, because a burst of commands would be a jump.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import numpy as np

from robot_rl.deploy.chunks import ChunkExecutor
from robot_rl.deploy.clock import Clock, MonotonicClock
from robot_rl.deploy.history import ObsHistory
from robot_rl.deploy.policy_grid import PolicyGrid
from robot_rl.deploy.report import LoopReport
from robot_rl.deploy.runners import Runner, ThreadRunner
from robot_rl.deploy.safety import SafetyFilter
from robot_rl.deploy.timing import Timing
from robot_rl.errors import ConfigError, SafetyStop
from robot_rl.hold import renew
from robot_rl.interfaces import Env, Policy, StepPolicy
from robot_rl.specs import ActionSpec
from robot_rl.values import Obs, Tick

log = logging.getLogger(__name__)

HOLDS_BY_REPEATING = ("joint_position", "position", "pose_rot6d")


class ControlLoop:
    """Drives one arm (an `Env`, simulated or real) with one policy.

    The policy's `warm_up`, if it has one, should have run before: the first call of a fresh session is slow.

    Args:
        env: The arm. `step` must return within the control period.
        policy: Gives the chunks.
        safety: The last thing an action passes.
        rest_action: Gives, for an observation, the action that would hold the present pose.
        hold: What to command when no action is valid, from the last executed one; needed where repeating the last
            action would go on moving (delta and chunk-relative actions).
        obs_names: Observations the policy reads; all of the robot's when `None`.
        control_hz: Rate; the robot's own when `None`. The arm's `step` must take one period of it.
        policy_hz: Rate the policy was trained for, `control_hz` when `None`. A faster loop observes for the policy, and
            looks at its chunks, at this rate, and goes from row to row in a straight line (`PolicyGrid`).
        interpolate: Whether it does; otherwise each row is commanded as a whole from its first tick on.
        executor: Holds the chunks; one that replans after the policy's `n_execute` when `None`.
        make_runner: Where inference happens: `ThreadRunner`, `SyncRunner`, or another of `runners`.
        clock: What time it is.
        on_tick: Called with every tick, the reset's too, commanded and executed action filled in (a recorder).
        step: Corrects each action of the chunks at its tick, by the newest observation; it runs in the tick itself.
        timing: What is switched off while the loop runs, so that it wakes up in time; nothing when `None`.

    Raises:
        ConfigError: A rate that is not positive, one that is no whole multiple of the policy's, delta actions without
            `hold`, or delta actions in a loop faster than the policy, which would carry each out more than once.
    """

    def __init__(
        self,
        env: Env,
        policy: Policy,
        safety: SafetyFilter,
        *,
        rest_action: Callable[[Obs], np.ndarray],
        hold: Callable[[np.ndarray], np.ndarray] | None = None,
        obs_names: Sequence[str] | None = None,
        control_hz: float | None = None,
        policy_hz: float | None = None,
        interpolate: bool = True,
        executor: ChunkExecutor | None = None,
        make_runner: Callable[[Policy, ChunkExecutor, Clock], Runner] = ThreadRunner,
        clock: Clock | None = None,
        on_tick: Callable[[Tick], None] | None = None,
        step: StepPolicy | None = None,
        timing: Timing | None = None,
    ) -> None:
        kind = env.spec.action.kind
        if hold is None and kind not in HOLDS_BY_REPEATING:
            raise ConfigError(f"actions of kind {kind!r} do not stop by repeating the last one; pass `hold`")
        self.control_hz = env.spec.control_hz if control_hz is None else control_hz
        self._grid = PolicyGrid(
            self.control_hz, self.control_hz if policy_hz is None else policy_hz, interpolate=interpolate
        )
        if self._grid.ticks > 1 and kind not in HOLDS_BY_REPEATING:
            raise ConfigError(
                f"a loop at {self.control_hz:g} Hz would carry out each action of kind {kind!r} {self._grid.ticks} "
                f"times; run it at the policy's {policy_hz:g} Hz"
            )
        self._env, self._policy, self._safety, self._step = env, policy, safety, step
        self._rest_action, self._hold = rest_action, hold
        self._names = tuple(env.spec.select(obs_names).obs) if obs_names is not None else tuple(env.spec.obs)
        self._step_ns = self._grid.step_ns
        self._executor = ChunkExecutor(n_execute=policy.n_execute) if executor is None else executor
        self._make_runner = make_runner
        self._clock: Clock = MonotonicClock() if clock is None else clock
        self._on_tick, self._timing = on_tick, timing
        self._history = ObsHistory(policy.n_obs)

    def start(self, *, seed: int, ticks: int, stop: Callable[[], bool] = lambda: False) -> Future[LoopReport]:
        """Do `run` in a thread of its own; the future gives its report or raises what it raised."""
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="control")
        future = pool.submit(self.run, seed=seed, ticks=ticks, stop=stop)
        pool.shutdown(wait=False)
        return future

    def run(self, *, seed: int, ticks: int, stop: Callable[[], bool] = lambda: False) -> LoopReport:
        """Reset, arm the safety filter, and drive until the episode ends.

        Args:
            seed: Of the environment's reset.
            ticks: At most this many ticks.
            stop: Asked before every tick; true ends the run.

        Returns:
            The report; a safety stop ends the run and is told in `stopped`.

        Raises:
            SafetyStop: The filter cannot be armed, so that nothing was commanded.
        """
        report = LoopReport(control_hz=self.control_hz)
        # Collecting garbage takes long, so it comes before the filter is armed: the silence would count against it.
        with nullcontext("") if self._timing is None else self._timing.applied() as report.scheduling:
            tick = self._begin(seed)
            runner = self._make_runner(self._policy, self._executor, self._clock)
            try:
                self._drive(tick, runner, report=report, ticks=ticks, stop=stop)
            except BaseException as error:
                self._safety.emergency_stop(f"the control loop failed: {type(error).__name__}: {error}")
                raise
            finally:
                runner.close()
        report.chunks, report.inference = self._executor.counts, runner.latency
        report.stopped = self._safety.stopped
        report.episodes, report.successes = 1, int(report.success)
        return report

    def _begin(self, seed: int) -> Tick:
        tick = self._env.reset(seed)
        self._history.reset()
        self._executor.reset()
        self._policy.reset()
        renew(self._step)
        self._last = np.asarray(self._rest_action(tick.obs), dtype=np.float64)
        self._safety.arm(self._last, self._clock.now_ns())
        self._row: np.ndarray | None = None
        self._source_ns: int | None = None
        self._commanded_ns: int | None = None
        if self._on_tick is not None:
            self._on_tick(tick)
        return tick

    def _drive(self, tick: Tick, runner: Runner, *, report: LoopReport, ticks: int, stop: Callable[[], bool]) -> None:
        received_ns = self._clock.now_ns()
        deadline = received_ns + self._step_ns
        self._grid.start(deadline)
        while report.ticks < ticks and not stop():
            self._clock.sleep_until(deadline)
            woke = self._clock.now_ns()
            report.lateness.record(woke - deadline)
            command = self._decide(tick, runner, deadline_ns=deadline, report=report)
            filtered = self._safety.filter(command, now_ns=self._clock.now_ns(), obs_ns=self._taken(tick, received_ns))
            executed = _as_action(filtered.action_executed, self._env.spec.action)
            self._note_command(woke, report)
            after = self._env.step(executed)
            received_ns = self._clock.now_ns()
            self._last = filtered.action_executed
            report.ticks += 1
            done = executed if after.action_executed is None else after.action_executed  # an arm may limit it further
            tick = replace(after, action=_as_action(command, self._env.spec.action), action_executed=done)
            self._note_tick(tick, filtered.reasons, report)
            if filtered.stopped or tick.terminated or tick.truncated:
                break
            deadline = self._next_deadline(deadline, report)

    def _decide(self, tick: Tick, runner: Runner, *, deadline_ns: int, report: LoopReport) -> np.ndarray:
        """Return the action to command at this tick: on the way to the chunk's row, or a hold."""
        try:
            runner.poll(self._clock.now_ns())
            if self._grid.due(deadline_ns):
                self._row = self._look(tick.obs, runner, deadline_ns)
        except SafetyStop as error:
            self._safety.emergency_stop(str(error))
            return self._last
        if self._row is not None:
            return self._grid.toward(self._last, self._row, deadline_ns)
        report.held_ticks += 1
        report.held_at_start += self._executor.counts.chunks == 0
        return self._last if self._hold is None else self._hold(self._last)

    def _look(self, obs: Obs, runner: Runner, deadline_ns: int) -> np.ndarray | None:
        """Ask for a chunk if one is wanted, and return the row in force at this tick, corrected, if there is one."""
        stacked = self._history.push({name: obs[name] for name in self._names})
        if not runner.busy and self._executor.wants_chunk(deadline_ns):
            runner.request(self._executor.ask(stacked, deadline_ns))
        row = self._executor.action_at(deadline_ns)
        return row if row is None or self._step is None else self._step.act(obs, row)

    def _taken(self, tick: Tick, received_ns: int) -> dict[str, int]:
        """Return when each observation the policy reads was received, on the loop's clock.

        An arm whose sensors come in at their own times says so in `info["received_ns"]`; else `step`'s return counts.
        """
        told: Mapping[str, int] = tick.info.get("received_ns", {})
        return {name: told.get(name, received_ns) for name in self._names}

    def _note_command(self, woke_ns: int, report: LoopReport) -> None:
        now = self._clock.now_ns()
        report.obs_to_command.record(now - woke_ns)
        if self._commanded_ns is not None:
            report.period.record(now - self._commanded_ns)
        self._commanded_ns = now
        source = self._executor.source_ns
        if source is not None and source != self._source_ns:
            report.reaction.record(now - source)
            self._source_ns = source

    def _note_tick(self, tick: Tick, reasons: Sequence[str], report: LoopReport) -> None:
        report.ret += float(tick.reward)
        report.success = report.success or bool(tick.success)
        report.terminated, report.truncated = bool(tick.terminated), bool(tick.truncated)
        if not self._safety.stopped:
            report.limited.update(reason.split()[0] for reason in reasons)
        if self._on_tick is not None:
            self._on_tick(tick)

    def _next_deadline(self, deadline_ns: int, report: LoopReport) -> int:
        due, now = self._grid.snap(deadline_ns + self._step_ns), self._clock.now_ns()
        if now <= due:
            return due
        missed = -((due - now) // self._step_ns)  # ceil((now - due) / step) in integers
        report.overruns += 1
        report.skipped_ticks += missed
        return due + missed * self._step_ns


def _as_action(value: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """Cast to the spec's dtype, so that rounding never carries an element over the bound it was just clipped to."""
    action = np.asarray(value).astype(spec.dtype)
    for bound, outside, inwards in ((spec.low, np.greater, np.inf), (spec.high, np.less, -np.inf)):
        if bound is not None:
            limit = np.broadcast_to(np.asarray(bound), action.shape)
            rounded = outside(limit, action.astype(np.float64)) & ~outside(limit, np.asarray(value, dtype=np.float64))
            action[rounded] = np.nextafter(action[rounded], action.dtype.type(inwards))
    return action
