"""The actor's policy at control rate: a frozen chunked base, a learned correction on top, and a person above both.

Order of an action (architecture, section 4): base, correction, clamp, human override. What the base would have done is
worked out at every tick, those driven by a person too, and recorded with where in its chunk it stood. The queue of base
actions is emptied before the first query of an episode (the released ResFiT code empties it after, so that an episode
begins with actions made for the last one).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from robot_rl.deploy.history import ObsHistory
from robot_rl.errors import ConfigError
from robot_rl.interfaces import Holding, Policy, Seedable, StepPolicy
from robot_rl.specs import ArraySpec, RobotSpec
from robot_rl.values import ActionChunk, Obs, PolicyInput, Tick

Mode = Literal["deterministic", "explore", "warm_up"]
NO_CHUNK = -1
"""`chunk_offset` where there is no base."""
HELD = "held"
"""Ticks since the correction was chosen; learning begins its segments where this is 0."""


@runtime_checkable
class Intervener(Protocol):
    """Someone who may take over: a person at a device, or a simulated one."""

    def reset(self, seed: int) -> None:
        """An episode begins."""

    def act(self, tick: Tick, proposed: np.ndarray) -> np.ndarray | None:
        """Return the action [A] to take in place of `proposed` [A] at `tick`, or `None` to let the policy drive."""


@runtime_checkable
class ExploringPolicy(StepPolicy, Protocol):
    """A step policy that also knows how to try something else."""

    def explore(self, obs: Obs, base_action: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an action [A] near the one `act` gives."""

    def warm_up(self, obs: Obs, base_action: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an action [A] that does not depend on what was learned, to fill the replay with first of all."""


@runtime_checkable
class Resettable(Protocol):
    """A step policy that remembers something within an episode: noise that is correlated in time."""

    def reset(self) -> None:
        """An episode begins."""


class BaseQueue:
    """A frozen policy's chunks, one action a tick.

    Args:
        policy: The base.
        delay_steps: d, ticks that inference takes: a chunk is computed from the observation of d ticks before its first
            use and consumed from row d on. An episode's first chunk is waited for, and so consumed from row 0.

    Raises:
        ConfigError: A negative delay.
    """

    def __init__(self, policy: Policy, *, delay_steps: int = 0) -> None:
        if delay_steps < 0:
            raise ConfigError(f"`delay_steps` must be 0 or more, got {delay_steps}")
        self.policy, self._delay = policy, delay_steps
        self._seen: deque[tuple[int, Obs]] = deque(maxlen=delay_steps + 1)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin an episode: nothing of the last one is left, and a base that draws numbers starts them from `seed`."""
        self._seen.clear()
        self._chunk: ActionChunk | None = None
        self._row, self._left = 0, 0
        self.policy.reset()
        if isinstance(self.policy, Seedable):
            self.policy.seed(seed)

    def drop(self) -> None:
        """Forget the rest of the chunk, so that the next tick asks anew: the arm went another way."""
        self._left = 0

    def action(self, stamp_ns: int, stacked: Obs) -> tuple[np.ndarray, int]:
        """Return the base's action [A] at a tick and its row in the chunk; call it once a tick.

        Args:
            stamp_ns: The tick.
            stacked: {name: [O, ...]} there.

        Raises:
            ConfigError: The chunk is too short for delay and `n_execute`.
        """
        self._seen.append((stamp_ns, stacked))
        if self._left == 0:
            self._ask()
        assert self._chunk is not None
        row, self._row, self._left = self._row, self._row + 1, self._left - 1
        return np.asarray(self._chunk.action[row]), row

    def _ask(self) -> None:
        late = len(self._seen) - 1 if self._chunk is not None else 0
        stamp_ns, stacked = self._seen[-1 - late]
        chunk = self.policy.act(PolicyInput(obs=stacked, stamp_ns=stamp_ns))
        n = chunk.n_execute or self.policy.n_execute
        if self._delay + n > len(chunk):
            raise ConfigError(
                f"a delay of {self._delay} steps and {n} executed actions need a chunk of {self._delay + n}, the "
                f"base's has {len(chunk)}; lower `delay_steps` or the base's `n_execute`"
            )
        self._chunk, self._row, self._left = chunk, late, n


@dataclass(frozen=True)
class Decision:
    """What is to be done at a tick.

    Args:
        action: [A], commanded, in physical units.
        by_human: Whether a person decided.
        extras: What is recorded beside it, as `runner_extras` describes; `policy_version` is not among them.
    """

    action: np.ndarray
    by_human: bool
    extras: Mapping[str, np.ndarray]


def runner_extras(spec: RobotSpec) -> dict[str, ArraySpec]:
    """Return the streams that an actor records beside the usual ones."""
    action = spec.action
    rows = {
        name: ArraySpec(name=name, shape=action.shape, unit=action.unit) for name in ("base_action", "action_policy")
    }
    counts = {name: ArraySpec(name=name, shape=(), dtype="int64") for name in ("chunk_offset", "policy_version", HELD)}
    return {**rows, **counts}


class StepRunner:
    """Decides one action a tick.

    Args:
        spec: The robot.
        base: The frozen base; `None` for learning from scratch, where the step policy is given NaN for its action.
        step: The correction, or the whole policy without a base; `None` lets the base drive alone.
        delay_steps: As of `BaseQueue`.
        intervener: Who may take over.
        seed: Of the exploration; every episode draws from this and its own seed.

    Raises:
        ConfigError: Neither base nor step policy.
    """

    def __init__(
        self,
        spec: RobotSpec,
        *,
        base: Policy | None,
        step: StepPolicy | None,
        delay_steps: int = 0,
        intervener: Intervener | None = None,
        seed: int = 0,
    ) -> None:
        if base is None and step is None:
            raise ConfigError("an actor needs a base or a step policy, got neither")
        self.spec, self._step, self._intervener, self._seed = spec, step, intervener, seed
        self._holding = step if isinstance(step, Holding) else None
        self._queue = None if base is None else BaseQueue(base, delay_steps=delay_steps)
        self._history = ObsHistory(1 if base is None else base.n_obs)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin an episode; call it before the first tick."""
        self._history.reset()
        self._rng = np.random.default_rng([self._seed, seed])
        if self._queue is not None:
            self._queue.reset(seed)
        if isinstance(self._step, Resettable):
            self._step.reset()
        if self._intervener is not None:
            self._intervener.reset(seed)

    def decide(self, tick: Tick, mode: Mode) -> Decision:
        """Return what to do at a tick; call it once a tick, in order."""
        if tick.by_human:
            self._drop()  # the environment says that a person drove the tick before
        base, offset = self._base(tick)
        proposed = self._within_limits(self._correct(tick.obs, base, mode))
        taken = None if self._intervener is None else self._intervener.act(tick, proposed.copy())
        action = proposed if taken is None else self._within_limits(taken)
        extras = {
            "base_action": base, "action_policy": proposed, "chunk_offset": np.array(offset, np.int64),
            HELD: np.array(0 if self._holding is None else self._holding.held, np.int64),
        }  # fmt: skip
        if taken is not None:
            self._drop()
        return Decision(action, taken is not None, extras)

    def final(self, tick: Tick) -> dict[str, list[float]]:
        """Return what the base would have done at the observation after an episode's last action, as plain numbers."""
        return {} if self._queue is None else {"base_action": self._base(tick)[0].tolist()}

    def _drop(self) -> None:
        """Forget what base and correction had in mind: the arm went another way."""
        if self._queue is not None:
            self._queue.drop()
        if self._holding is not None:
            self._holding.renew()

    def _base(self, tick: Tick) -> tuple[np.ndarray, int]:
        stacked = self._history.push(tick.obs)
        if self._queue is None:
            return np.full(self.spec.action.shape, np.nan, np.float32), NO_CHUNK
        action, row = self._queue.action(tick.stamp_ns, stacked)
        return action.astype(np.float32), row

    def _correct(self, obs: Obs, base: np.ndarray, mode: Mode) -> np.ndarray:
        if self._step is None:
            return base
        if mode == "deterministic":
            return self._step.act(obs, base)
        if not isinstance(self._step, ExploringPolicy):
            raise ConfigError(f"{type(self._step).__name__} cannot {mode}; actors need an `ExploringPolicy`")
        choose = self._step.explore if mode == "explore" else self._step.warm_up
        return choose(obs, base, self._rng)

    def _within_limits(self, action: np.ndarray) -> np.ndarray:
        low = -np.inf if self.spec.action.low is None else np.asarray(self.spec.action.low)
        high = np.inf if self.spec.action.high is None else np.asarray(self.spec.action.high)
        clamped = np.clip(action, low, high).astype(self.spec.action.dtype)
        return self.spec.action.validate(clamped)


class StepwisePolicy:
    """The deterministic base and correction as a `Policy` of one-action chunks: for evaluation and the control loop.

    Args:
        spec: The robot, restricted to the observations that base and correction read.
        base: The frozen base, or `None`.
        step: The correction.
        delay_steps: As of `BaseQueue`.
    """

    n_execute = 1

    def __init__(self, spec: RobotSpec, *, base: Policy | None, step: StepPolicy | None, delay_steps: int = 0) -> None:
        self._runner = StepRunner(spec, base=base, step=step, delay_steps=delay_steps)
        self._n_obs, self._seed = 1 if base is None else base.n_obs, 0

    @property
    def n_obs(self) -> int:
        """O of the base."""
        return self._n_obs

    def seed(self, seed: int) -> None:
        """Begin an episode whose base draws from `seed`."""
        self._seed = seed
        self._runner.reset(seed)

    def reset(self) -> None:
        """Begin an episode."""
        self._runner.reset(self._seed)

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        """Return the action due at `policy_input.stamp_ns`, as a chunk of one row; ask at every tick.

        Raises:
            SpecError: An observation is missing or not as specified.
        """
        self._runner.spec.validate_obs(policy_input.obs, leading=1)
        newest = {name: np.asarray(rows)[-1] for name, rows in policy_input.obs.items()}
        decision = self._runner.decide(Tick(stamp_ns=policy_input.stamp_ns, obs=newest), "deterministic")
        return ActionChunk(policy_input.stamp_ns, self._runner.spec.step_ns, decision.action[None])
