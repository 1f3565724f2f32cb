"""A simulated environment with the latencies of a real cell: a policy is validated against what it will meet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from robot_rl.errors import ConfigError, SimulationError
from robot_rl.interfaces import Env
from robot_rl.latency_calibration import LatencyCalibration
from robot_rl.specs import RobotSpec
from robot_rl.values import Obs, Tick


class DelayedEnv:
    """Shows each observation as late, and does each action as late, as was measured.

    One latency per stream and episode is drawn from the measured distribution. It becomes whole control steps by
    rounding up or down at random, so that their mean is the latency itself. Reward and success are those of the moment.

    Args:
        env: The environment without latency.
        latency: What was measured; streams that it does not name are shown at once.
        hold: From the first tick to the action that keeps the arm where it is, until the first command arrives.

    Raises:
        ConfigError: A latency of a stream that the environment does not have.
    """

    def __init__(self, env: Env, latency: LatencyCalibration, *, hold: Callable[[Tick], np.ndarray]) -> None:
        unknown = sorted(set(latency.observation) - set(env.spec.obs))
        if unknown:
            raise ConfigError(f"latencies of unknown streams {unknown}; the environment has {sorted(env.spec.obs)}")
        self._env, self._latency, self._hold = env, latency, hold
        self.obs_steps: dict[str, int] = {}
        self.action_steps = 0
        self._seen: deque[Obs] = deque()
        self._sent: deque[np.ndarray] | None = None

    @property
    def spec(self) -> RobotSpec:
        """What passes in and out: that of the environment."""
        return self._env.spec

    def reset(self, seed: int) -> Tick:
        """Start an episode; the seed decides the latencies too. Before the start, all was as at the start."""
        rng = np.random.default_rng([seed, 0x1A7E])
        self.obs_steps = {
            name: self._steps(samples.draw(rng), rng) for name, samples in self._latency.observation.items()
        }
        action = self._latency.action
        self.action_steps = 0 if action is None else self._steps(action.draw(rng), rng)
        tick = self._env.reset(seed)
        self._seen = deque([tick.obs], maxlen=1 + max(self.obs_steps.values(), default=0))
        self._sent = deque([self._hold(tick)] * self.action_steps)
        return tick

    def step(self, action: np.ndarray) -> Tick:
        """Send `action` [A], and do the one that arrives now.

        Raises:
            SimulationError: No episode is running.
            SpecError: The action has the wrong shape or dtype, or is not finite.
        """
        if self._sent is None:
            raise SimulationError("no episode is running: the last one ended or none began; call reset(seed) first")
        self._sent.append(np.array(self.spec.action.validate(action)))
        tick = self._env.step(self._sent.popleft())
        if tick.terminated or tick.truncated:
            self._sent = None
        self._seen.append(tick.obs)
        obs = {name: self._seen[max(-1 - self.obs_steps.get(name, 0), -len(self._seen))][name] for name in tick.obs}
        return replace(tick, obs=obs, action=np.array(action))

    def render(self) -> np.ndarray:
        """Return the picture of the moment."""
        return self._env.render()

    def close(self) -> None:
        """Release what the environment holds."""
        self._env.close()

    def _steps(self, latency_ns: int, rng: np.random.Generator) -> int:
        return max(int(np.floor(latency_ns / self.spec.step_ns + rng.random())), 0)
