"""Who may take over from the actor's policy: a teleoperation device, held by a person or by a simulated operator.

Both go the same way: device, mapper, takeover. The device says that it is engaged and where to go, the mapper turns
that into joint targets from where the arm is, and `robot_rl.deploy.takeover.Takeover` decides who drives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from robot_rl.deploy.takeover import Command, Now, Takeover, TakeoverInputs
from robot_rl.errors import ConfigError, SpecError
from robot_rl.rl.takeover_rules import TakeoverRule
from robot_rl.teleop.scripted import ScriptedSource
from robot_rl.teleop.source import Event, TeleopSource, TeleopState
from robot_rl.values import Obs, Tick


class Mapper(Protocol):
    """From a device's states to commands: `robot_rl.teleop.mapper.JointMapper` or `CartesianMapper`."""

    def step(self, state: TeleopState, measured: np.ndarray, now_ns: int) -> np.ndarray | None:
        """Return a command [A], or `None` when the device does not drive."""


class SimulatedOperator:
    """Holds a scripted device: engages it when a rule says so, and lets go after `n_steps` steps.

    Args:
        source: The device, whose script knows what to do.
        rule: When to take over.
        n_steps: How long an intervention lasts; the rule is asked again after it, and may prolong it.
        seed: Of the rule's draws; every episode draws from this and its own seed.

    Raises:
        ConfigError: `n_steps` is below 1.
    """

    def __init__(self, source: ScriptedSource, rule: TakeoverRule, *, n_steps: int, seed: int = 0) -> None:
        if n_steps < 1:
            raise ConfigError(f"`n_steps` must be at least 1, got {n_steps}")
        self.source, self._rule, self._n_steps, self._seed = source, rule, n_steps, seed
        self.reset(0)

    def reset(self, seed: int) -> None:
        """An episode begins: hands off."""
        self._rng = np.random.default_rng([self._seed, seed])
        self._rule.reset()
        self.source.finish()
        self._left, self._drives = 0, False

    def watch(self, tick: Tick, proposed: np.ndarray, now_ns: int) -> None:
        """See a tick and what the policy proposes, and engage the device or let go."""
        self.source.observe(now_ns, tick.obs)
        if self._left == 0:
            self._decide(self._rule.wants(tick, proposed, self._rng))
        self._left = max(0, self._left - 1)

    def _decide(self, wanted: bool) -> None:
        if wanted:
            self._left = self._n_steps
            self._rule.reset()
        if wanted and not self._drives:
            self.source.begin()
        elif self._drives and not wanted:
            self.source.finish()
        self._drives = wanted


def stamp_of(tick: Tick) -> int:
    """Return a tick's own time: the clock of a simulation that runs as fast as it can."""
    return tick.stamp_ns


class TeleopIntervener:
    """A `robot_rl.rl.runner.Intervener` from a device.

    Giving back is not blended: the runner asks its base anew from where the arm then is, and the environment's speed
    limits hold. An operator who has the arm but sends nothing usable holds it where it was last commanded to be.

    Args:
        source: The device; open it before the first episode.
        mapper: Turns its states into commands; joint targets, then the gripper's width if there is one.
        rest: Observations that, joined, are the command that holds the present pose.
        has_gripper: The last element is a gripper: it starts from the last command, not from the measured width, since
            a gripper that is told the width of what it holds lets go of it.
        operator: Who holds a scripted device; `None` for a person.
        handover_s: Time over which a takeover is blended in.
        release_s: Quiet time after which the operator counts as having let go.
        clock: The device's time [ns] at a tick: `time.monotonic_ns` behind a lambda for a person at a device.

    Raises:
        ConfigError: A time that is negative.
    """

    def __init__(
        self,
        source: TeleopSource,
        mapper: Mapper,
        *,
        rest: Sequence[str],
        has_gripper: bool = True,
        operator: SimulatedOperator | None = None,
        handover_s: float = 0.5,
        release_s: float = 0.5,
        clock: Callable[[Tick], int] = stamp_of,
    ) -> None:
        self.source, self._mapper, self._operator, self._clock = source, mapper, operator, clock
        self._rest, self._has_gripper = tuple(rest), has_gripper
        self._handover_s, self._release_s = handover_s, release_s
        self._takeover = self._new_takeover(1)  # says at once what is wrong with the times
        self.reset(0)

    def reset(self, seed: int) -> None:
        """An episode begins: the policy drives until the device is engaged."""
        self._fresh, self._kept = True, False
        if self._operator is not None:
            self._operator.reset(seed)

    def act(self, tick: Tick, proposed: np.ndarray) -> np.ndarray | None:
        """Return the operator's action [A], or `None` to let the policy drive.

        Raises:
            SpecError: An observation of `rest` is missing, or the device does not fit the mapper.
        """
        now_ns = self._clock(tick)
        if self._operator is not None:
            self._operator.watch(tick, proposed, now_ns)
        last = proposed if tick.action is None else tick.action
        if tick.action_executed is not None:
            last = tick.action_executed
        state = self.source.poll(now_ns)
        for _ in range(state.events.count(Event.TOGGLE)):
            self._kept = not self._kept
        measured = self._measured(tick.obs, last)
        human = self._mapper.step(state, measured, now_ns)
        inputs = TakeoverInputs(
            policy=Command(proposed, now_ns, now_ns),
            human=None if human is None else Command(human, now_ns, now_ns),
            executed=Command(np.asarray(last, np.float64), now_ns, now_ns),
            measured=Command(measured, now_ns, now_ns),
            intervening=state.engaged, intervening_ns=now_ns, forced=self._kept, policy_allowed=True,
        )  # fmt: skip
        return self._choose(inputs, now_ns, last)

    def _new_takeover(self, width: int) -> Takeover:
        return Takeover(width, has_gripper=self._has_gripper, handover_s=self._handover_s, release_s=self._release_s)

    def _choose(self, inputs: TakeoverInputs, now_ns: int, last: np.ndarray) -> np.ndarray | None:
        if self._fresh:
            self._takeover, self._fresh = self._new_takeover(len(last)), False
        now = Now(now_ns, now_ns)
        selection = self._takeover.update(now, inputs)
        if selection.policy_reset:  # the runner asks its base anew after every tick that somebody else drove
            self._takeover.policy_was_reset(Now(now_ns - 1, now_ns - 1))
            selection = self._takeover.update(now, inputs)
        if selection.driver == "policy":
            return None
        return np.asarray(last if selection.value is None else selection.value)

    def _measured(self, obs: Obs, last: np.ndarray) -> np.ndarray:
        if missing := [name for name in self._rest if name not in obs]:
            raise SpecError(f"an operator's takeover needs observations {missing}; got {sorted(obs)}")
        measured = np.concatenate([np.asarray(obs[name], np.float64) for name in self._rest])
        if self._has_gripper:
            measured[-1] = last[-1]
        return measured
