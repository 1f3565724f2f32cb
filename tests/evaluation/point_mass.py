"""A small real Env and policies with closed-form answers; at module level, where spawned processes find them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import ActionChunk, PolicyInput, Tick

STEP_NS = 100_000_000
SPEC = RobotSpec(
    name="point_mass",
    obs={
        "position": ArraySpec(name="position", shape=(1,), unit="m"),
        "count": ArraySpec(name="count", shape=(1,), dtype="int64"),
    },
    action=ActionSpec(name="action", shape=(1,), unit="m", low=-1.0, high=1.0, kind="position"),
    control_hz=10.0,
)


class PointMass:
    """A point on a line that moves by the action; starts at seed / 10 m, succeeds within 5 cm of the origin.

    Reward is minus the distance after the step. It truncates after `max_steps`.
    """

    def __init__(self, max_steps: int = 30) -> None:
        self._max_steps = max_steps
        self._x = np.float32(0)
        self._n = 0

    @property
    def spec(self) -> RobotSpec:
        return SPEC

    def _obs(self) -> dict[str, np.ndarray]:
        return {"position": np.array([self._x], np.float32), "count": np.array([self._n], np.int64)}

    def reset(self, seed: int) -> Tick:
        self._x, self._n = np.float32(seed / 10), 0
        return Tick(stamp_ns=0, obs=self._obs())

    def step(self, action: np.ndarray) -> Tick:
        self._x += np.clip(action, -1, 1)[0]
        self._n += 1
        near = bool(abs(self._x) < 0.05)
        late = not near and self._n >= self._max_steps
        return Tick(
            stamp_ns=self._n * STEP_NS, obs=self._obs(), action=action, action_executed=np.clip(action, -1, 1),
            reward=-float(abs(self._x)), success=near, terminated=near, truncated=late,
        )  # fmt: skip

    def render(self) -> np.ndarray:
        """A grey 32x33 picture whose level is the step count."""
        return np.full((32, 33, 3), 8 * self._n % 256, np.uint8)

    def close(self) -> None:
        pass


class Ramp:
    """Row h of every chunk is h / 100 and a constant; remembers what it was asked."""

    def __init__(self, n_obs: int = 2, n_execute: int = 3, horizon: int = 5, step_ns: int = STEP_NS) -> None:
        self.n_obs, self.n_execute, self._horizon, self._step_ns = n_obs, n_execute, horizon, step_ns
        self.asked: list[PolicyInput] = []
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1
        self.asked = []

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        self.asked.append(policy_input)
        rows = np.arange(self._horizon, dtype=np.float32)[:, None] / 100
        return ActionChunk(policy_input.stamp_ns, self._step_ns, rows)


class Noisy:
    """Goes to the origin with random errors drawn from its own generator: repeatable only if it is seeded."""

    n_obs, n_execute = 1, 1

    def __init__(self) -> None:
        self._rng = np.random.default_rng()

    def reset(self) -> None:
        pass

    def seed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        aim = -policy_input.obs["position"][-1] + self._rng.normal(0, 0.1, 1)
        return ActionChunk(policy_input.stamp_ns, STEP_NS, np.clip(aim, -1, 1).astype(np.float32)[None])


class Straight(Noisy):
    """Goes straight to the origin, at most 1 m a step; so from seed / 10 m it takes ceil(seed / 10) steps."""

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        return ActionChunk(policy_input.stamp_ns, STEP_NS, np.clip(-policy_input.obs["position"][-1:], -1, 1))


class Breaking(Straight):
    """Raises on the start of the seed in `bad`, or ends the whole process there."""

    def __init__(self, bad: int, kill: bool = False) -> None:
        self._bad, self._kill = bad, kill

    def seed(self, seed: int) -> None:
        if seed == self._bad and self._kill:
            os._exit(7)
        if seed == self._bad:
            raise ZeroDivisionError(f"the policy broke on {seed}")


class Slow(Straight):
    """Takes a tenth of a second an action, and leaves a file with its process id at `folder`."""

    def __init__(self, folder: str) -> None:
        Path(folder, f"pid_{os.getpid()}").touch()

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        time.sleep(0.1)
        return super().act(policy_input)


def broken_factory() -> PointMass:
    raise FileNotFoundError("no such scene: kitchen.xml")


def thread_settings() -> Mapping[str, str]:
    return {name: os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


class ThreadReporter(Straight):
    """Raises with what the worker process looks like from inside."""

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        raise RuntimeError(f"threads {thread_settings()} torch {'torch' in sys.modules}")
