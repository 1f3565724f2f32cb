"""A demonstrator that is not good: it misjudges where the thing is, always to the same side, now more and now less."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from robot_rl.errors import ConfigError, SpecError
from robot_rl.interfaces import Policy
from robot_rl.values import ActionChunk, PolicyInput

_MISJUDGED = {"lift": "cube_pose", "insert": "hole_pose"}
SPREAD_M: Mapping[str, Mapping[float, float]] = {
    "lift": {1.0: 0.0, 0.9: 0.018, 0.5: 0.045, 0.2: 0.12},  # 0.5 and 0.2: reckoned from a tolerance of 30 mm
    "insert": {1.0: 0.0, 0.9: 0.0018, 0.54: 0.0055, 0.35: 0.008, 0.23: 0.014, 0.19: 0.018},
}
"""Spread of the error that gives each measured success rate, by task; see docs/simulation.md."""


def spread_for(task: str, quality: float) -> float:
    """Return the spread [m] at which a task's expert succeeds in a share `quality` of episodes.

    Between the measured rates it is interpolated linearly.

    Raises:
        ConfigError: A task without measurements, or a quality outside of them.
    """
    if task not in SPREAD_M:
        raise ConfigError(f"`task` must be one of {sorted(SPREAD_M)}, whose experts were measured; got {task!r}")
    rates = sorted(SPREAD_M[task])
    if not rates[0] <= quality <= 1.0:
        raise ConfigError(f"`quality` must be from {rates[0]:g} to 1, the rates measured for `{task}`; got {quality}")
    return float(np.interp(quality, rates, [SPREAD_M[task][rate] for rate in rates]))


class MisjudgingExpert:
    """A `Policy` that shows an expert the object, cube or hole, in the wrong place.

    The error is horizontal, its side is fixed by `seed`, and its size is drawn once an episode: |N(0, spread)|. Errors
    to one side do not average out over many demonstrations, as a person's habits do not. The size follows from `seed`
    and the first observation after `reset`, so an episode looks the same whatever was played before it.

    Args:
        expert: Who acts; it must need no more than the observations it is given.
        task: `lift` or `insert`: which observation is misjudged.
        quality: Share of episodes that it succeeds in, from the measured spreads; 1 is the expert itself.
        spread_m: The spread itself, in place of `quality`.
        seed: Of side and size.

    Raises:
        ConfigError: No such task, a quality that was not measured, or a negative spread.
    """

    def __init__(
        self, expert: Policy, *, task: str, quality: float = 1.0, spread_m: float | None = None, seed: int = 0
    ) -> None:
        if task not in _MISJUDGED:
            raise ConfigError(f"`task` must be one of {sorted(_MISJUDGED)}, got {task!r}")
        self.spread_m = spread_for(task, quality) if spread_m is None else spread_m
        if not self.spread_m >= 0:
            raise ConfigError(f"`spread_m` must not be negative, got {self.spread_m}")
        self._expert, self._name, self._seed = expert, _MISJUDGED[task], seed
        side = np.random.default_rng([seed, 0]).uniform(-np.pi, np.pi)
        self._side = np.array([np.cos(side), np.sin(side), 0.0])
        self._error: np.ndarray | None = None

    @property
    def n_obs(self) -> int:
        """Of the expert."""
        return self._expert.n_obs

    @property
    def n_execute(self) -> int:
        """Of the expert."""
        return self._expert.n_execute

    def reset(self) -> None:
        """Forget the last episode."""
        self._expert.reset()
        self._error = None

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        """Return what the expert does where it believes the object to be.

        Raises:
            SpecError: The object is not observed, or the expert refuses the observations.
        """
        if self._name not in policy_input.obs:
            raise SpecError(f"a misjudging expert needs `{self._name}`; got {sorted(policy_input.obs)}")
        seen = np.asarray(policy_input.obs[self._name])
        if self._error is None:
            rng = np.random.default_rng([self._seed, 1, zlib.crc32(seen[-1].tobytes())])
            self._error = self.spread_m * abs(rng.standard_normal()) * self._side
        believed = seen.copy()
        believed[..., :3] += self._error.astype(seen.dtype)
        return self._expert.act(replace(policy_input, obs={**policy_input.obs, self._name: believed}))
