"""What has been promised while a new chunk is computed, and the policies that answer with it in mind, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from robot_rl.errors import SafetyStop, SpecError
from robot_rl.specs import RobotSpec
from robot_rl.values import ActionChunk, Obs, PolicyInput


@dataclass(frozen=True)
class Promise:
    """Actions that B robots will execute, or would if no new chunk came; row 0 is due at the newest observation.

    Args:
        action: [B, P, A] in physical units; rows from `length` on mean nothing.
        length: How many rows each has, int [B]; 0 for none.
        delay: How many of them will have been executed when the answer arrives, int [B].

    Raises:
        SpecError: Shapes that do not belong together, or actions that are not finite.
    """

    action: np.ndarray
    length: np.ndarray
    delay: np.ndarray

    def __post_init__(self) -> None:
        b = (len(self.action),)
        if self.action.ndim != 3 or self.length.shape != b or self.delay.shape != b:
            raise SpecError(
                f"a promise needs actions [B, P, A], lengths [B] and delays [B], got {self.action.shape}, "
                f"{self.length.shape} and {self.delay.shape}"
            )
        if not np.isfinite(self.action).all():
            raise SpecError("promised actions must be finite, got NaN or infinity; the plan they came from is broken")

    @classmethod
    def of(cls, inputs: Sequence[PolicyInput], width: int) -> Promise | None:
        """Return what several requests promise, or `None` if none does.

        Args:
            inputs: The requests.
            width: A.
        """
        prefixes = [np.zeros((0, width)) if given.prefix is None else given.prefix for given in inputs]
        longest = max(map(len, prefixes))
        if longest == 0:
            return None
        action = np.zeros((len(prefixes), longest, width), dtype=np.float32)
        for row, prefix in zip(action, prefixes, strict=True):
            row[: len(prefix)] = prefix
        return cls(action, np.array([len(p) for p in prefixes]), np.array([given.delay_steps for given in inputs]))

    def take(self, index: np.ndarray) -> Promise:
        """Return the promises of some of the robots, by index or mask."""
        return Promise(self.action[index], self.length[index], self.delay[index])

    def repeated(self, n: int) -> Promise:
        """Return every promise `n` times in a row."""
        return Promise(*(np.repeat(array, n, axis=0) for array in (self.action, self.length, self.delay)))


@runtime_checkable
class ChunkSampler(Protocol):
    """A policy's arithmetic, batched: no clock, no state, noise as an argument."""

    @property
    def spec(self) -> RobotSpec:
        """What it reads and gives."""

    @property
    def n_obs(self) -> int:
        """O, how many observation steps it needs (oldest first)."""

    @property
    def n_execute(self) -> int:
        """How many actions of a chunk to execute before asking again, if nothing else decides."""

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the standard normal noise of one chunk."""

    @property
    def action_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest action it gives, [A] each, in the action's dtype."""

    def chunks(self, obs: Obs, noise: np.ndarray, promise: Promise | None = None) -> np.ndarray:
        """Return physical actions [B, H, A] within the trained range; row 0 is due at the newest observation.

        `obs` is {name: [B, O, ...]}, `noise` [B, *noise_shape] float32.
        """


class SampledPolicy:
    """Drives a robot with a `ChunkSampler`; a `robot_rl.interfaces.Policy`.

    Args:
        sampler: Gives the chunks.
        seed: Seed of the noise drawn when a `PolicyInput` brings none; `None` takes entropy from the machine.
    """

    def __init__(self, sampler: ChunkSampler, *, seed: int | None = None) -> None:
        self.sampler = sampler
        self._rng = np.random.default_rng(seed)

    @property
    def n_obs(self) -> int:
        """O, how many observation steps `act` needs."""
        return self.sampler.n_obs

    @property
    def n_execute(self) -> int:
        """How many actions of a chunk to execute before asking again."""
        return self.sampler.n_execute

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise one call takes."""
        return self.sampler.noise_shape

    def seed(self, seed: int) -> None:
        """Start the noise over, so that what follows depends on this seed alone."""
        self._rng = np.random.default_rng(seed)

    def reset(self) -> None:
        """Forget the last episode; nothing is kept between calls but the noise generator."""

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        """Return a chunk whose row 0 is due at `policy_input.stamp_ns`.

        Raises:
            SpecError: An observation, the noise or the prefix is not what it should be.
            SafetyStop: The network answered NaN or infinity.
        """
        spec = self.sampler.spec
        spec.validate_obs(policy_input.obs, leading=1)
        if short := [name for name in spec.obs if len(policy_input.obs[name]) != self.n_obs]:
            raise SpecError(f"`{short[0]}` must hold {self.n_obs} observation steps, got other numbers in {short}")
        obs = {name: np.asarray(policy_input.obs[name])[None] for name in spec.obs}
        action = self.sampler.chunks(obs, self._noise(policy_input.noise)[None], _promise(policy_input, spec))[0]
        if not np.isfinite(action).all():
            raise SafetyStop("the policy answered NaN or infinity; its action was not used")
        return ActionChunk(policy_input.stamp_ns, spec.step_ns, action)

    def warm_up(self, calls: int = 3) -> None:
        """Answer plain requests, with a promise and without, so that the first real call allocates nothing."""
        spec, shape = self.sampler.spec, self.noise_shape
        obs = {name: rows[None] for name, rows in plain_rows(spec, self.n_obs).items()}
        noise = np.zeros((1, *shape), dtype=np.float32)
        for _ in range(calls):
            chunk = self.sampler.chunks(obs, noise)
            self.sampler.chunks(obs, noise, Promise(chunk, np.array([chunk.shape[1] - 1]), np.array([1])))

    def _noise(self, given: np.ndarray | None) -> np.ndarray:
        if given is None:
            return self._rng.standard_normal(self.noise_shape, dtype=np.float32)
        noise = np.asarray(given)
        if noise.shape != self.noise_shape or noise.dtype.kind != "f" or not np.isfinite(noise).all():
            raise SpecError(f"`noise` must be finite float{self.noise_shape}, got {noise.dtype}{noise.shape}")
        return noise.astype(np.float32, copy=False)


def plain_rows(spec: RobotSpec, n_obs: int) -> Obs:
    """Return a stacked observation [O, ...] in the middle of each spec's bounds, zero where it has none."""
    obs: Obs = {}
    for name, item in spec.obs.items():
        bounded = item.low is not None and item.high is not None
        middle = (np.asarray(item.low) + np.asarray(item.high)) / 2 if bounded else np.zeros(())
        middle = middle.reshape(item.shape) if middle.ndim else middle
        obs[name] = np.broadcast_to(middle, (n_obs, *item.shape)).astype(item.dtype)
    return obs


def _promise(policy_input: PolicyInput, spec: RobotSpec) -> Promise | None:
    """Return what one request promises.

    Raises:
        SpecError: The prefix is not [P, A], or the delay is negative.
    """
    prefix, width = policy_input.prefix, spec.action.size
    if prefix is not None and (prefix.ndim != 2 or prefix.shape[1] != width):
        raise SpecError(f"`prefix` must be [P, {width}] in physical units, got shape {prefix.shape}")
    if policy_input.delay_steps < 0:
        raise SpecError(f"`delay_steps` must be 0 or more, got {policy_input.delay_steps}")
    return Promise.of([policy_input], width)
