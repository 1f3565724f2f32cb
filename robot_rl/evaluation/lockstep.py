"""Many episodes side by side in one process: each waits for its chunk, and one batched policy call serves all of them.

For evaluations of hundreds of seeds, where a batch of 50 costs a network little more than a single sample. Episodes
are seeded as `rollouts.run_episode` seeds them; the two agree but for the rounding of batched arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from robot_rl.deploy.history import ObsHistory
from robot_rl.errors import ConfigError, SpecError
from robot_rl.evaluation.rollouts import EpisodeResult, EpisodeScore
from robot_rl.interfaces import Env
from robot_rl.values import Obs


@dataclass(frozen=True)
class BatchChunks:
    """Chunks of several episodes.

    Args:
        action: Actions [B, H, A] in physical units; row 0 is due at the newest observation.
        n_execute: How many rows of each to execute, int [B]; `None` leaves it to the policy's `n_execute`.
    """

    action: np.ndarray
    n_execute: np.ndarray | None = None


@runtime_checkable
class BatchPolicy(Protocol):
    """Answers several episodes at once. It keeps no state between calls."""

    @property
    def n_obs(self) -> int:
        """O, how many observation steps `act_batch` needs (oldest first)."""

    @property
    def n_execute(self) -> int:
        """How many actions of a chunk to execute, where the chunks do not say."""

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the standard normal noise of one sample."""

    def act_batch(self, obs: Obs, noise: np.ndarray) -> BatchChunks:
        """Return chunks for obs {name: [B, O, ...]} and noise [B, *noise_shape], float32."""


R = TypeVar("R", covariant=True)


class Lane(Protocol[R]):
    """One environment and the episode it is in."""

    seed: int

    def begin(self, seed: int) -> None:
        """Start the episode of a seed."""

    def step(self, max_steps: int | None) -> R | None:
        """Play one step; return the result if that ended the episode."""


class _Lane:
    """One environment and the episode it is in."""

    def __init__(self, env: Env, policy: BatchPolicy) -> None:
        self.env, self._history = env, ObsHistory(policy.n_obs)
        self.score: EpisodeScore | None = None

    def begin(self, seed: int) -> None:
        self.seed, self.rng = seed, np.random.default_rng(seed)
        self._history.reset()
        self.stacked = self._history.push(self.env.reset(seed).obs)
        self.score = EpisodeScore()
        self.rows: list[np.ndarray] = []
        self.inference_s: list[float] = []
        self._began = time.perf_counter()

    def step(self, max_steps: int | None) -> EpisodeResult | None:
        """Execute the next row; return the result if that ended the episode."""
        assert self.score is not None
        tick = self.env.step(self.env.spec.action.validate(self.rows.pop(0)))
        self.stacked = self._history.push(tick.obs)
        self.score.add(tick)
        if self.score.steps == max_steps and not self.score.over:
            self.score.truncated = True
        if not self.score.over:
            return None
        seconds, p50 = time.perf_counter() - self._began, 1e3 * float(np.median(self.inference_s))
        return self.score.result(self.seed, seconds=seconds, inference_p50_ms=p50)


def run_lockstep(
    envs: Sequence[Env],
    policy: BatchPolicy,
    seeds: Sequence[int],
    *,
    max_steps: int | None = None,
    on_done: Callable[[EpisodeResult], None] | None = None,
) -> list[EpisodeResult]:
    """Play one episode a seed, as many at a time as there are environments.

    Args:
        envs: Environments of one kind.
        policy: Who acts in all of them.
        seeds: Seeds of episodes and of their noise.
        max_steps: Truncate after so many steps; `None` leaves the end to the environment.
        on_done: Called with every result as it comes in.

    Returns:
        One result a seed, in the order of `seeds`. `seconds` is the time an episode took beside the others and
        `inference_p50_ms` the median time of the batched calls it took part in.

    Raises:
        ConfigError: No environment, a seed given twice, or `max_steps` below 1.
        SpecError: The policy's chunks are not [B, H, A], or its actions not what the environment's spec says.
    """
    if max_steps is not None and max_steps < 1:
        raise ConfigError(f"`max_steps` must be at least 1, got {max_steps}")

    def serve(lanes: Sequence[_Lane]) -> None:
        _ask(policy, [lane for lane in lanes if not lane.rows])

    return play_lanes([_Lane(env, policy) for env in envs], seeds, serve=serve, max_steps=max_steps, on_done=on_done)


def play_lanes(
    lanes: Sequence[Lane[R]],
    seeds: Sequence[int],
    *,
    serve: Callable[[Sequence[Any]], None],
    max_steps: int | None,
    on_done: Callable[[R], None] | None,
) -> list[R]:
    """Play one episode a seed; a lane whose episode ended begins the next one that waits.

    Args:
        lanes: An environment each.
        seeds: Seeds of the episodes.
        serve: Called before every step with the lanes that play, to give them what they need for it.
        max_steps: As of `run_lockstep`.
        on_done: Called with every result as it comes in.

    Returns:
        One result a seed, in the order of `seeds`.

    Raises:
        ConfigError: No lane, or a seed given twice.
    """
    if not lanes or len(set(seeds)) != len(seeds):
        raise ConfigError(f"need an environment and each seed once, got {len(lanes)} and {len(seeds)} seeds")
    waiting, done = iter([int(seed) for seed in seeds]), {}
    playing = [lane for lane in lanes if _next(lane, waiting)]
    while playing:
        serve(playing)
        for lane in list(playing):
            seed, result = lane.seed, lane.step(max_steps)
            if result is None:
                continue
            done[seed] = result
            if on_done is not None:
                on_done(result)
            if not _next(lane, waiting):
                playing.remove(lane)
    return [done[int(seed)] for seed in seeds]


def _next(lane: Lane[Any], waiting: Iterator[int]) -> bool:
    """Begin the next waiting seed's episode in a lane; return false when there is none left."""
    seed = next(waiting, None)
    if seed is not None:
        lane.begin(seed)
    return seed is not None


def _ask(policy: BatchPolicy, lanes: Sequence[_Lane]) -> None:
    """Give each of the lanes the rows of a new chunk."""
    if not lanes:
        return
    obs = {name: np.stack([lane.stacked[name] for lane in lanes]) for name in lanes[0].stacked}
    noise = np.stack([lane.rng.standard_normal(policy.noise_shape, dtype=np.float32) for lane in lanes])
    begin = time.perf_counter()
    chunks = policy.act_batch(obs, noise)
    seconds = time.perf_counter() - begin
    if chunks.action.ndim != 3 or len(chunks.action) != len(lanes):
        raise SpecError(f"`action` of a batch must be [{len(lanes)}, H, A], got shape {chunks.action.shape}")
    for i, lane in enumerate(lanes):
        n = policy.n_execute if chunks.n_execute is None else int(chunks.n_execute[i])
        if not 1 <= n <= chunks.action.shape[1]:
            raise SpecError(f"`n_execute` must be in [1, {chunks.action.shape[1]}], got {n}")
        lane.rows = list(chunks.action[i, :n])
        lane.inference_s.append(seconds)
