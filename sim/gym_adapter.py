"""Any gymnasium environment with a continuous action under our `Env`: names, dtypes, clock and seeds made ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from robot_rl.errors import ConfigError, SimulationError
from robot_rl.specs import ActionKind, ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Obs, Tick


@dataclass(frozen=True, kw_only=True)
class ObsField:
    """Where one named observation lies in what gymnasium gives.

    Args:
        key: Key of a dict observation; empty when the observation is one array.
        columns: First and end column of a vector; `None` for all.
        unit: SI unit, for people.
    """

    key: str = ""
    columns: tuple[int, int] | None = None
    unit: str = ""

    def read(self, observation: Any) -> np.ndarray:
        """Return this field of an observation: float32, or uint8 for pictures."""
        array = np.asarray(observation[self.key] if self.key else observation)
        if self.columns is not None:
            array = array[self.columns[0] : self.columns[1]]
        return array.copy() if array.dtype == np.uint8 else array.astype(np.float32)


class GymEnv:
    """Runs a registered gymnasium environment as an `Env`.

    Args:
        env_id: Name in gymnasium's registry, such as `gym_pusht/PushT-v0` or `AdroitHandDoor-v1`.
        control_hz: Rate that one step stands for; gymnasium does not say.
        obs: Our observation names and where each lies; `None` takes every key of a dict (a lone array becomes `state`).
        action_kind: What the action moves.
        action_unit: Its unit.
        success_key: Entry of gymnasium's `info` that says whether the task is done; without it there is no success.
        max_steps: Steps after which an episode is truncated; `None` keeps the registered limit.
        name: The robot's name; `None` takes `env_id`.
        module: Module to import first, where the environment registers itself (`gym_pusht`, `gymnasium_robotics`).
        **settings: Passed to the environment.

    Raises:
        ConfigError: No such environment, module or observation, or the action is not a bounded or unbounded vector.
    """

    def __init__(
        self,
        env_id: str,
        *,
        control_hz: float,
        obs: Mapping[str, ObsField | Mapping[str, Any]] | None = None,
        action_kind: ActionKind = "position",
        action_unit: str = "",
        success_key: str = "is_success",
        max_steps: int | None = None,
        name: str | None = None,
        module: str = "",
        **settings: Any,
    ) -> None:
        self._gym = _make(env_id, module, {"render_mode": "rgb_array", "max_episode_steps": max_steps, **settings})
        self._fields = _fields(obs, self._gym.observation_space)
        self._success_key = success_key
        self._n_steps, self._running, self._closed = 0, False, False
        action_space = self._gym.action_space
        if not isinstance(action_space, spaces.Box) or len(action_space.shape) != 1:
            raise ConfigError(f"{env_id}: the action must be a vector of real numbers, got {action_space}")
        self._action_dtype = action_space.dtype
        self._spec = RobotSpec(
            name=env_id if name is None else name,
            obs=_obs_specs(self._fields, self._gym.observation_space),
            action=ActionSpec(
                name="action",
                shape=action_space.shape,
                unit=action_unit,
                low=_finite(action_space.low),
                high=_finite(action_space.high),
                kind=action_kind,
            ),
            control_hz=control_hz,
        )
        self._low, self._high = action_space.low.astype(np.float32), action_space.high.astype(np.float32)

    @property
    def spec(self) -> RobotSpec:
        """What passes in and out."""
        return self._spec

    def reset(self, seed: int) -> Tick:
        """Start the episode that the environment starts for `seed`."""
        observation, info = self._gym.reset(seed=seed)
        self._n_steps, self._running = 0, True
        return Tick(stamp_ns=0, obs=self._read(observation), info=_scalars(info))

    def step(self, action: np.ndarray) -> Tick:
        """Apply `action`, clamped to the action space, for one step.

        Raises:
            SimulationError: No episode is running.
            SpecError: The action has the wrong shape or dtype, or is not finite.
        """
        if not self._running:
            raise SimulationError("no episode is running: the last one ended or none began; call reset(seed) first")
        commanded = self._spec.action.validate(action)
        executed = np.clip(commanded, self._low, self._high)
        observation, reward, terminated, truncated, info = self._gym.step(executed.astype(self._action_dtype))
        self._n_steps += 1
        self._running = not (terminated or truncated)
        return Tick(
            stamp_ns=self._n_steps * self._spec.step_ns,
            obs=self._read(observation),
            action=commanded.copy(),
            action_executed=executed,
            reward=float(reward),
            success=bool(info.get(self._success_key, False)),
            terminated=bool(terminated),
            truncated=bool(truncated) and not terminated,
            info=_scalars(info),
        )

    def render(self) -> np.ndarray:
        """Return the environment's own picture, uint8 [height, width, 3].

        Raises:
            SimulationError: The environment draws none.
        """
        picture = np.asarray(self._gym.render())
        if picture.ndim != 3 or picture.shape[-1] != 3:
            raise SimulationError(f"`{self._spec.name}` draws no RGB picture, got shape {picture.shape}")
        return np.ascontiguousarray(picture, dtype=np.uint8)

    def close(self) -> None:
        """Close the environment. Calling it twice is allowed."""
        self._running = False
        if not self._closed:
            self._gym.close()
        self._closed = True

    def _read(self, observation: Any) -> Obs:
        return {name: field.read(observation) for name, field in self._fields.items()}


def _make(env_id: str, module: str, settings: dict[str, Any]) -> gym.Env:
    """Return the registered environment, without gymnasium's own checks of what it gives."""
    try:
        return gym.make(f"{module}:{env_id}" if module else env_id, disable_env_checker=True, **settings)
    except (gym.error.Error, ImportError, TypeError) as error:
        raise ConfigError(f"gymnasium cannot make `{env_id}` (module {module or 'none'!r}): {error}") from error


def _fields(given: Mapping[str, ObsField | Mapping[str, Any]] | None, space: spaces.Space) -> dict[str, ObsField]:
    """Return the fields to read, checked against the observation space."""
    keys = list(space.spaces) if isinstance(space, spaces.Dict) else [""]
    if given is None:
        return {key if key else "state": ObsField(key=key) for key in keys}
    fields: dict[str, ObsField] = {}
    for name, value in given.items():
        field = value if isinstance(value, ObsField) else ObsField(**value)
        columns = field.columns
        field = field if columns is None else replace(field, columns=(int(columns[0]), int(columns[1])))
        if field.key not in keys:
            raise ConfigError(f"observation `{name}`: there is no key `{field.key}`; the environment gives {keys}")
        fields[name] = field
    return fields


def _obs_specs(fields: Mapping[str, ObsField], space: spaces.Space) -> dict[str, ArraySpec]:
    """Return a spec per field from the shapes that the observation space promises."""
    example = {key: _zeros(part) for key, part in space.spaces.items()} if isinstance(space, spaces.Dict) else None
    whole = _zeros(space) if example is None else example
    specs = {}
    for name, field in fields.items():
        array = field.read(whole)
        specs[name] = ArraySpec(name=name, shape=array.shape, dtype=array.dtype.name, unit=field.unit)
    return specs


def _zeros(space: spaces.Space) -> np.ndarray:
    if not isinstance(space, spaces.Box):
        raise ConfigError(f"observations must be arrays, got {space}")
    return np.zeros(space.shape, dtype=space.dtype)


def _finite(bound: np.ndarray) -> tuple[float, ...] | None:
    """Return the bound, or `None` when any element has none."""
    return tuple(float(x) for x in bound) if np.isfinite(bound).all() else None


def _scalars(info: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the numbers of gymnasium's `info` as plain values."""
    plain = (bool, int, float, np.bool_, np.integer, np.floating)
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in info.items() if isinstance(v, plain)}
