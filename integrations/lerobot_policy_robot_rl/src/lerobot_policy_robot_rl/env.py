"""A task of robot-rl under gymnasium's interface, with the keys that LeRobot turns into its features."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from robot_rl.cli.config import build, load_config
from robot_rl.interfaces import Env
from robot_rl.specs import ArraySpec
from robot_rl.values import Tick


def build_task(task: str) -> Env:
    """Return a task's environment, as `robot-rl evaluate task=...` builds it."""
    env: Env = build(load_config([f"task={task}"]).task.env)
    return env


class TaskEnv(gym.Env):
    """One environment.

    Args:
        task: The task's name.
        max_steps: Steps after which an episode is truncated.
    """

    def __init__(self, task: str, max_steps: int) -> None:
        self._env, self._steps = build_task(task), 0
        self.task = task
        self.task_description = task
        self._max_episode_steps = max_steps
        spec = self._env.spec
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": round(spec.control_hz)}
        self.render_mode = "rgb_array"
        self._pictures = [name for name, array in spec.obs.items() if array.is_image]
        vectors = {name: _space(array) for name, array in spec.obs.items() if not array.is_image}
        pictures = {"pixels": spaces.Dict({n: _space(spec.obs[n]) for n in self._pictures})} if self._pictures else {}
        self.observation_space = spaces.Dict({**vectors, **pictures})
        self.action_space = spaces.Box(-np.inf, np.inf, spec.action.shape, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        self._steps = 0
        drawn = int(self.np_random.integers(2**31)) if seed is None else seed
        return self._observation(self._env.reset(drawn)), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Apply one action."""
        tick = self._env.step(np.asarray(action, np.float32))
        self._steps += 1
        truncated = tick.truncated or self._steps >= self._max_episode_steps
        return self._observation(tick), tick.reward, tick.terminated, truncated, {"is_success": tick.success}

    def render(self) -> np.ndarray:
        """Return a picture for people."""
        return self._env.render()

    def close(self) -> None:
        """Release what the simulation holds."""
        self._env.close()

    def _observation(self, tick: Tick) -> dict[str, Any]:
        vectors = {name: value for name, value in tick.obs.items() if name not in self._pictures}
        return {**vectors, "pixels": {n: tick.obs[n] for n in self._pictures}} if self._pictures else vectors


def _space(array: ArraySpec) -> spaces.Box:
    low, high = (0, 255) if array.is_image else (-np.inf, np.inf)
    return spaces.Box(low, high, array.shape, np.dtype(array.dtype))
