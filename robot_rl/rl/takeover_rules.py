"""When a simulated operator takes over: by chance, by schedule, by an action's value, or when nothing moves on.

A rule is asked while the policy drives; how long the operator then keeps the arm is not its business
(`robot_rl.rl.interveners.SimulatedOperator`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from robot_rl.errors import ConfigError
from robot_rl.interfaces import Policy
from robot_rl.values import Obs, PolicyInput, Tick


@runtime_checkable
class TakeoverRule(Protocol):
    """Says when to take over."""

    def reset(self) -> None:
        """The policy begins to drive: an episode starts, or the operator has given the arm back."""

    def wants(self, tick: Tick, proposed: np.ndarray, rng: np.random.Generator) -> bool:
        """Return whether to take over now, where the policy proposes `proposed` [A]; asked once a tick."""


class RandomTakeover:
    """Takes over with probability `p` at each step (RLIF, Luo et al. 2024, arXiv 2311.12996, random strategy).

    With interventions of one step, takeovers start at p (1 - p) of the steps, not at p: a step that follows a human one
    continues the intervention.

    Raises:
        ConfigError: `p` is not a probability.
    """

    def __init__(self, p: float) -> None:
        if not 0 <= p <= 1:
            raise ConfigError(f"`p` must be from 0 to 1, got {p}")
        self._p = p

    def reset(self) -> None:
        """Nothing to forget."""

    def wants(self, tick: Tick, proposed: np.ndarray, rng: np.random.Generator) -> bool:
        """Draw."""
        return bool(rng.random() < self._p)


class ScheduledTakeover:
    """Takes over each time that the policy has driven `after_steps` steps.

    Raises:
        ConfigError: A negative number.
    """

    def __init__(self, after_steps: int) -> None:
        if after_steps < 0:
            raise ConfigError(f"`after_steps` must be 0 or more, got {after_steps}")
        self._after = after_steps
        self.reset()

    def reset(self) -> None:
        """Begin to count."""
        self._driven = 0

    def wants(self, tick: Tick, proposed: np.ndarray, rng: np.random.Generator) -> bool:
        """Count."""
        self._driven += 1
        return self._driven > self._after


class ValueTakeover:
    """Takes over with probability `beta` where the expert's action is worth more than the policy's, else `1 - beta`.

    "More" is Q(s, a_expert) > Q(s, a_policy) + delta. The released RLIF code compares Q_policy < kappa Q_expert, which
    holds for equal negative values, and values of RLIF are negative; ours is additive.

    Args:
        value: Q of one observation step and a physical action [A].
        expert: Asked afresh at every step for what it would do.
        delta: By how much it must be better.
        beta: How reliably the operator acts on it.

    Raises:
        ConfigError: `beta` is not a probability, or the expert needs more than one observation step.
    """

    def __init__(
        self, value: Callable[[Obs, np.ndarray], float], expert: Policy, *, delta: float = 0.0, beta: float = 0.95
    ) -> None:
        if not 0 <= beta <= 1:
            raise ConfigError(f"`beta` must be from 0 to 1, got {beta}")
        if expert.n_obs != 1:
            raise ConfigError(f"a value rule needs an expert with `n_obs` 1, got {expert.n_obs}")
        self._value, self._expert, self._delta, self._beta = value, expert, delta, beta

    def reset(self) -> None:
        """Nothing to forget: the expert starts anew at every step."""

    def wants(self, tick: Tick, proposed: np.ndarray, rng: np.random.Generator) -> bool:
        """Compare, then draw."""
        self._expert.reset()
        stacked = {name: np.asarray(value)[None] for name, value in tick.obs.items()}
        chunk = self._expert.act(PolicyInput(obs=stacked, stamp_ns=tick.stamp_ns))
        better = self._value(tick.obs, chunk.action[0]) > self._value(tick.obs, proposed) + self._delta
        return bool(rng.random() < (self._beta if better else 1.0 - self._beta))


class StalledTakeover:
    """Takes over when the way to go has not become shorter for a while: the policy has strayed, or stands still.

    Args:
        to_go: Metres to go at an observation step.
        patience_steps: So many steps without a new best.
        least_gain_m: How much shorter counts.

    Raises:
        ConfigError: Less than one step, or a negative gain.
    """

    def __init__(self, to_go: Callable[[Obs], float], *, patience_steps: int = 6, least_gain_m: float = 0.003) -> None:
        if patience_steps < 1 or least_gain_m < 0:
            raise ConfigError(
                f"need patience_steps >= 1 and least_gain_m >= 0, got {patience_steps} and {least_gain_m}"
            )
        self._to_go, self._patience, self._gain = to_go, patience_steps, least_gain_m
        self.reset()

    def reset(self) -> None:
        """Begin to measure from where the arm is."""
        self._best, self._waited = np.inf, 0

    def wants(self, tick: Tick, proposed: np.ndarray, rng: np.random.Generator) -> bool:
        """Measure."""
        left = self._to_go(tick.obs)
        if left < self._best - self._gain:
            self._best, self._waited = left, 0
        else:
            self._waited += 1
        return self._waited >= self._patience
