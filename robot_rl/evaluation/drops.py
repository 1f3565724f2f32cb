"""Observations and chunks that never arrive, in bursts as on a real cell, for a policy that is being validated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.interfaces import Env
from robot_rl.specs import RobotSpec
from robot_rl.values import Obs, Recording, Tick

_SEED = 0xD809


@dataclass(frozen=True, kw_only=True)
class DropPattern:
    """How much is lost (Gilbert 1960: a channel with a good and a bad state).

    Args:
        fraction: Share of arrivals that are lost.
        burst: Mean number lost in a row, at least 1.

    Raises:
        ConfigError: A fraction outside [0, 1), or a burst below 1.
    """

    fraction: float = 0.0
    burst: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.fraction < 1.0 or not self.burst >= 1.0:
            raise ConfigError(
                f"`fraction` must be in [0, 1) and `burst` at least 1, got {self.fraction} and {self.burst}"
            )

    def losses(self, rng: np.random.Generator) -> Losses:
        """Return a sequence of losses."""
        return Losses(self, rng)

    def to_dict(self) -> dict[str, float]:
        """Return plain JSON values."""
        return asdict(self)


class Losses:
    """One sequence of losses; it begins in the good state."""

    def __init__(self, pattern: DropPattern, rng: np.random.Generator) -> None:
        self._rng, self._bad = rng, False
        self._leave = 1.0 / pattern.burst
        self._enter = min(1.0, pattern.fraction / (1.0 - pattern.fraction) / pattern.burst)

    def next(self) -> bool:
        """Return whether the next arrival is lost."""
        draw = float(self._rng.random())
        self._bad = draw >= self._leave if self._bad else draw < self._enter
        return self._bad


class DroppingEnv:
    """Shows the observation before again where one was lost; an `Env`. The first observation of an episode arrives.

    Args:
        env: The environment.
        pattern: Of whole observations.
    """

    def __init__(self, env: Env, pattern: DropPattern) -> None:
        self._env, self._pattern = env, pattern
        self._losses = pattern.losses(np.random.default_rng(0))
        self._obs: Obs = {}
        self.lost = 0

    @property
    def spec(self) -> RobotSpec:
        """What passes in and out: that of the environment."""
        return self._env.spec

    def reset(self, seed: int) -> Tick:
        """Start an episode; the seed decides what is lost."""
        self._losses, self.lost = self._pattern.losses(np.random.default_rng([seed, _SEED])), 0
        tick = self._env.reset(seed)
        self._obs = tick.obs
        return tick

    def step(self, action: np.ndarray) -> Tick:
        """Step the environment; what is lost is seen as it was."""
        tick = self._env.step(action)
        if self._losses.next():
            self.lost += 1
            return replace(tick, obs=self._obs)
        self._obs = tick.obs
        return tick

    def render(self) -> np.ndarray:
        """Return the picture of the moment."""
        return self._env.render()

    def close(self) -> None:
        """Release what the environment holds."""
        self._env.close()


def measured_drops(store: EpisodeStore, *, max_episodes: int = 100) -> Mapping[str, DropPattern]:
    """Return what was lost in a store's recordings, by observation; empty where all were made on a control clock.

    A gap of k median periods between two samples counts as k - 1 losses in a row.

    Args:
        store: Recordings of the cell.
        max_episodes: The newest so many are looked at.
    """
    gaps: dict[str, list[np.ndarray]] = {}
    for id in store.ids()[-max_episodes:]:
        recording = store.read(id)
        if not recording.meta.on_grid:
            for name in store.spec.obs:
                gaps.setdefault(name, []).append(_missing(recording, name))
    return {name: _pattern(np.concatenate(parts)) for name, parts in gaps.items() if sum(map(len, parts))}


def _missing(recording: Recording, name: str) -> np.ndarray:
    """Return after each sample but the last how many did not come."""
    if name not in recording.streams or len(recording.streams[name]) < 3:
        return np.zeros(0, np.int64)
    period = np.diff(recording.streams[name].stamp_ns)
    return np.asarray(np.maximum(np.rint(period / np.median(period)).astype(np.int64) - 1, 0))


def _pattern(missing: np.ndarray) -> DropPattern:
    lost, bursts = int(missing.sum()), int((missing > 0).sum())
    return DropPattern(fraction=lost / (lost + len(missing)), burst=max(1.0, lost / max(bursts, 1)))
