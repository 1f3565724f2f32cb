"""Episodes under an exact inference delay: a chunk computed from what was seen at tick n is there d ticks later.

The executor is the robot's own (`robot_rl.deploy.chunks`), on a clock that counts ticks, so that promises, dropped rows
and late chunks are what they are on a robot, and nothing depends on how fast this machine computes. Many episodes go
side by side, and one batched call serves all that ask at a tick.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robot_rl.deploy.chunks import ChunkExecutor
from robot_rl.deploy.ensembling import Combine
from robot_rl.deploy.history import ObsHistory
from robot_rl.deploy.promises import ChunkSampler, Promise
from robot_rl.errors import ConfigError
from robot_rl.evaluation.drops import DropPattern
from robot_rl.evaluation.lockstep import play_lanes
from robot_rl.evaluation.rollouts import EpisodeResult, EpisodeScore
from robot_rl.hold import renew
from robot_rl.interfaces import Env, StepPolicy
from robot_rl.values import ActionChunk, Obs, PolicyInput

_LOST = 0x105E  # apart from the seed's other uses


@dataclass(frozen=True, kw_only=True)
class DelaySetting:
    """What the robot does about its delay.

    Args:
        delay_steps: Ticks from a request to its answer.
        n_execute: Ticks between requests; at most one is under way.
        combine: What happens where a new row meets a planned one.
        pause: Wait for every chunk, repeating the last action, and execute it from its first row on when it is there.
        lost_chunks: Answers that never arrive; the next is asked for when its time has come.
    """

    delay_steps: int
    n_execute: int
    combine: Combine | None = None
    pause: bool = False
    lost_chunks: DropPattern | None = None

    def __post_init__(self) -> None:
        if self.delay_steps < 0 or self.n_execute < 1:
            raise ConfigError(
                f"`delay_steps` must be 0 or more and `n_execute` 1 or more, got {self.delay_steps} and "
                f"{self.n_execute}"
            )


@dataclass(frozen=True, kw_only=True)
class DelayedResult:
    """How one episode went, and how smoothly.

    Args:
        episode: The outcome.
        jerk: Root mean square of the third difference of the commanded action per s^3, over elements and ticks.
        boundary_kink: Mean length of the second difference of the commanded action at ticks where a new chunk took
            over, in the action's unit; zero where none did.
        boundary_jump: Mean largest |new plan - old plan| at those ticks.
        held: Ticks at which the last action was repeated, because no chunk was in force or the robot waited.
        requests: Chunks asked for.
        late_chunks: Chunks that took longer than the policy was told.
    """

    episode: EpisodeResult
    jerk: float
    boundary_kink: float
    boundary_jump: float
    held: int
    requests: int
    late_chunks: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


class _Lane:
    """One environment, the episode in it, and its executor."""

    def __init__(
        self,
        env: Env,
        setting: DelaySetting,
        n_obs: int,
        rest: Callable[[Obs], np.ndarray],
        correct: StepPolicy | None,
    ) -> None:
        self.env, self._setting, self._rest, self._correct = env, setting, rest, correct
        self._step_ns = env.spec.step_ns
        self._history = ObsHistory(n_obs)

    def begin(self, seed: int) -> None:
        setting = self._setting
        self.seed, self.rng = seed, np.random.default_rng(seed)
        lost = DropPattern() if setting.lost_chunks is None else setting.lost_chunks
        self._losses = lost.losses(np.random.default_rng([seed, _LOST]))
        self._executor = ChunkExecutor(n_execute=setting.n_execute, margin_ns=0, combine=setting.combine)
        self._history.reset()
        renew(self._correct)
        tick = self.env.reset(seed)
        self.stacked = self._history.push(tick.obs)
        self._last = np.asarray(self._rest(tick.obs), dtype=self.env.spec.action.dtype)
        self._score, self._n = EpisodeScore(), 0
        self._pending: tuple[int, ActionChunk] | None = None
        self._commands: list[np.ndarray] = [self._last]
        self._boundaries: list[int] = []
        self._source: int | None = None
        self._held = self._requests = 0
        self.inference_s: list[float] = []
        self._began = time.perf_counter()

    @property
    def _now_ns(self) -> int:
        return self._n * self._step_ns

    def receive(self) -> None:
        """Take in the chunk that is due."""
        if self._pending is None or self._pending[0] > self._n:
            return
        (_, chunk), self._pending = self._pending, None
        if self._setting.pause or self._setting.delay_steps == 0:
            if self._setting.pause:
                self._executor.requested(self._now_ns)  # it executes for so long before it asks again
            self._executor.load(ActionChunk(self._now_ns, chunk.step_ns, chunk.action, chunk.n_execute))
        else:
            self._executor.offer(chunk, self._now_ns - 1)

    def ask(self) -> PolicyInput | None:
        """Return the request of this tick, if there is one."""
        if self._pending is not None or not self._executor.wants_chunk(self._now_ns):
            return None
        return self._executor.ask(self.stacked, self._now_ns)

    def answer(self, action: np.ndarray, seconds: float) -> None:
        """Note the answer [H, A], which is there after the delay."""
        self._requests += 1
        self.inference_s.append(seconds)
        if self._losses.next():
            return
        chunk = ActionChunk(self._now_ns, self._step_ns, action)
        self._pending = self._n + self._setting.delay_steps, chunk

    def step(self, max_steps: int | None) -> DelayedResult | None:
        """Command the action in force, or the last one again; return the result if that ended the episode."""
        waits = self._setting.pause and self._pending is not None
        action = None if waits else self._executor.action_at(self._now_ns)
        self._held += action is None
        if action is not None:
            if self._executor.source_ns != self._source:
                self._boundaries.append(len(self._commands))
            self._source, self._last = self._executor.source_ns, self._corrected(action)
        self._commands.append(self._last)
        tick = self.env.step(self.env.spec.action.validate(self._last))
        self.stacked = self._history.push(tick.obs)
        self._score.add(tick)
        self._n += 1
        if self._score.steps == max_steps and not self._score.over:
            self._score.truncated = True
        return self._result() if self._score.over else None

    def _corrected(self, action: np.ndarray) -> np.ndarray:
        action = action.astype(self.env.spec.action.dtype)
        if self._correct is None:
            return action
        return self._correct.act({name: rows[-1] for name, rows in self.stacked.items()}, action)

    def _result(self) -> DelayedResult:
        commands, counts = np.stack(self._commands).astype(np.float64), self._executor.counts
        kinks = np.linalg.norm(np.diff(commands, n=2, axis=0), axis=1)  # entry i is about command i + 1
        at = [i - 2 for i in self._boundaries if 2 <= i < len(commands)]
        jerk = np.diff(commands, n=3, axis=0) * self.env.spec.control_hz**3
        seconds = time.perf_counter() - self._began
        p50_ms = 1e3 * float(np.median(self.inference_s)) if self.inference_s else 0.0
        return DelayedResult(
            episode=self._score.result(self.seed, seconds=seconds, inference_p50_ms=p50_ms),
            jerk=float(np.sqrt(np.mean(jerk**2))) if jerk.size else 0.0,
            boundary_kink=float(kinks[at].mean()) if at else 0.0,
            boundary_jump=counts.boundary_jump_sum / max(counts.boundaries, 1),
            held=self._held,
            requests=self._requests,
            late_chunks=counts.late_chunks,
        )


def run_delayed(
    envs: Sequence[Env],
    sampler: ChunkSampler,
    seeds: Sequence[int],
    *,
    setting: DelaySetting,
    rest: Callable[[Obs], np.ndarray],
    max_steps: int | None = None,
    on_done: Callable[[DelayedResult], None] | None = None,
    make_correction: Callable[[], StepPolicy | None] = lambda: None,
) -> list[DelayedResult]:
    """Play one episode a seed under a delay, as many at a time as there are environments.

    Args:
        envs: Environments of one kind.
        sampler: Who is asked.
        seeds: Seeds of episodes and of their noise; each once.
        setting: Delay and what is done about it.
        rest: Gives, for an observation, the action that holds the present pose: commanded until the first chunk.
        max_steps: Truncate after so many steps; `None` leaves the end to the environment.
        on_done: Called with every result as it comes in.
        make_correction: Makes what corrects the action of each tick by the newest observation, one an environment: it
            is not late, as on the robot; it makes `None` for chunks alone.

    Returns:
        One result a seed, in the order of `seeds`.

    Raises:
        ConfigError: No environment, or a seed given twice.
    """

    def serve(lanes: Sequence[_Lane]) -> None:
        for lane in lanes:
            lane.receive()
        _serve(sampler, lanes)
        if setting.delay_steps == 0:
            for lane in lanes:
                lane.receive()

    lanes = [_Lane(env, setting, sampler.n_obs, rest, make_correction()) for env in envs]
    return play_lanes(lanes, seeds, serve=serve, max_steps=max_steps, on_done=on_done)


def _serve(sampler: ChunkSampler, lanes: Sequence[_Lane]) -> None:
    """Answer all requests of this tick by one call."""
    asked = [(lane, request) for lane in lanes if (request := lane.ask()) is not None]
    if not asked:
        return
    names = list(sampler.spec.obs)
    obs = {name: np.stack([request.obs[name] for _, request in asked]) for name in names}
    noise = np.stack([lane.rng.standard_normal(sampler.noise_shape, dtype=np.float32) for lane, _ in asked])
    promise = Promise.of([request for _, request in asked], sampler.spec.action.size)
    began = time.perf_counter()
    chunks = sampler.chunks(obs, noise, promise)
    seconds = time.perf_counter() - began
    for (lane, _), action in zip(asked, chunks, strict=True):
        lane.answer(action, seconds)
