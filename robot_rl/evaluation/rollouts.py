"""One episode: a policy drives an environment over a receding horizon, and what happened is recorded and scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from robot_rl.data.recorder import TickRecorder
from robot_rl.deploy.history import ObsHistory
from robot_rl.errors import ConfigError, SpecError
from robot_rl.interfaces import Env, Policy, Seedable
from robot_rl.values import ActionChunk, PolicyInput, Recording, RecordingMeta, Tick


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """How one episode went. Two results are equal when the episode was; time taken does not count.

    `success` is whether any step reported success; `return_` the undiscounted sum of rewards; `max_reward` the largest
    reward of any step; `seconds` wall time without rendering for people, and `inference_p50_ms` the median time of one
    policy call.
    """

    seed: int
    success: bool
    return_: float
    max_reward: float
    steps: int
    terminated: bool
    truncated: bool
    seconds: float = field(compare=False)
    inference_p50_ms: float = field(compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EpisodeResult:
        """Build from `to_dict`'s values."""
        return cls(**data)


class RecedingHorizon:
    """Turns a policy's chunks into one action per tick: execute `n_execute` actions by time stamp, then ask again.

    Args:
        policy: Who is asked.
    """

    def __init__(self, policy: Policy) -> None:
        if policy.n_execute < 1:
            raise ConfigError(f"`n_execute` must be at least 1, got {policy.n_execute}")
        self._policy = policy
        self._history = ObsHistory(policy.n_obs)
        self._chunk: ActionChunk | None = None
        self._executed = 0
        self.inference_s: list[float] = []

    def action(self, tick: Tick) -> np.ndarray:
        """Return the action [A] due at `tick`.

        Raises:
            SpecError: The policy's newest chunk has no action for this tick.
        """
        stacked = self._history.push(tick.obs)
        row = None if self._chunk is None else _row_due(self._chunk, tick.stamp_ns)
        if self._chunk is None or row is None or self._executed >= (self._chunk.n_execute or self._policy.n_execute):
            begin = time.perf_counter()
            self._chunk = self._policy.act(PolicyInput(obs=stacked, stamp_ns=tick.stamp_ns))
            self.inference_s.append(time.perf_counter() - begin)
            self._executed = 0
            row = _row_due(self._chunk, tick.stamp_ns)
        if row is None:
            first, last = self._chunk.stamp_ns[[0, -1]]
            raise SpecError(
                f"the policy was asked at {tick.stamp_ns} ns and its chunk covers {first} to {last} ns; "
                "row 0 must be due at the stamp of the newest observation"
            )
        self._executed += 1
        return np.asarray(self._chunk.action[row])


def _row_due(chunk: ActionChunk, stamp_ns: int) -> int | None:
    """Return the newest row due at or before `stamp_ns`, or None outside the chunk.

    A stamp counts as reached a thousandth of a step early: periods such as 1/30 s are not whole nanoseconds.
    """
    row = (stamp_ns - chunk.start_ns + chunk.step_ns // 1000) // chunk.step_ns
    return row if 0 <= row < len(chunk) else None


def run_episode(
    env: Env,
    policy: Policy,
    seed: int,
    *,
    record: bool = True,
    on_frame: Callable[[np.ndarray], None] | None = None,
    frame_every: int = 1,
    max_steps: int | None = None,
    meta: RecordingMeta | None = None,
) -> tuple[Recording | None, EpisodeResult]:
    """Run one seeded episode to its end.

    The policy is reset and, if it is `Seedable`, seeded with the episode's seed; it is given no noise. The outcome
    then depends on the seed alone and not on which episodes ran before, or where.

    Args:
        env: Where it happens.
        policy: Who acts.
        seed: Seed of the environment and of the policy.
        record: Whether to keep and return a Recording.
        on_frame: Called with `env.render()` at the start and then every `frame_every` steps and at the end.
        frame_every: Steps between frames.
        max_steps: Truncate after so many steps; `None` leaves the end to the environment.
        meta: What to write into the recording; outcome, end and seed are filled in. Default: source `policy`.

    Returns:
        The recording, or `None` without `record`, and the result.

    Raises:
        ConfigError: `frame_every` or `max_steps` below 1.
        SpecError: The policy's action is not what the environment's spec says, or a chunk misses its own tick.
    """
    for name, value in (("frame_every", frame_every), ("max_steps", max_steps)):
        if value is not None and value < 1:
            raise ConfigError(f"`{name}` must be at least 1, got {value}")
    begin = time.perf_counter()
    policy.reset()
    if isinstance(policy, Seedable):
        policy.seed(seed)
    horizon = RecedingHorizon(policy)
    recorder = TickRecorder(env.spec) if record else None
    tick = env.reset(seed)
    if recorder is not None:
        recorder.start(tick)
    score = EpisodeScore()
    film = None if on_frame is None else _Film(env, on_frame)
    while not score.over:
        tick = env.step(env.spec.action.validate(horizon.action(tick)))
        if score.steps + 1 == max_steps and not tick.terminated:
            tick = replace(tick, truncated=True)
        score.add(tick)
        if recorder is not None:
            recorder.add(tick)
        if film is not None and (score.over or score.steps % frame_every == 0):
            film.take()
    seconds = time.perf_counter() - begin - (0.0 if film is None else film.seconds)
    result = score.result(int(seed), seconds=seconds, inference_p50_ms=1e3 * float(np.median(horizon.inference_s)))
    recording = None if recorder is None else recorder.finish(_final_meta(meta, result))
    return recording, result


class _Film:
    """Renders for people, and keeps the time of that apart from the episode's; the first picture at once."""

    def __init__(self, env: Env, on_frame: Callable[[np.ndarray], None]) -> None:
        self._env, self._on_frame = env, on_frame
        self.seconds = 0.0
        self.take()

    def take(self) -> None:
        begin = time.perf_counter()
        self._on_frame(self._env.render())
        self.seconds += time.perf_counter() - begin


class EpisodeScore:
    """Adds up the ticks of one episode; `over` says whether it has ended."""

    def __init__(self) -> None:
        self.steps = 0
        self.success = False
        self.return_ = 0.0
        self.max_reward = -np.inf
        self.terminated = False
        self.truncated = False

    @property
    def over(self) -> bool:
        """Whether the episode has ended, by itself or cut off."""
        return self.terminated or self.truncated

    def add(self, tick: Tick) -> None:
        """Count a step's tick."""
        self.steps += 1
        self.success = self.success or tick.success
        self.return_ += tick.reward
        self.max_reward = max(self.max_reward, tick.reward)
        self.terminated, self.truncated = tick.terminated, tick.truncated

    def result(self, seed: int, *, seconds: float, inference_p50_ms: float) -> EpisodeResult:
        """Return how the episode went."""
        return EpisodeResult(
            seed=seed, success=bool(self.success), return_=float(self.return_), max_reward=float(self.max_reward),
            steps=self.steps, terminated=bool(self.terminated), truncated=bool(self.truncated),
            seconds=seconds, inference_p50_ms=inference_p50_ms,
        )  # fmt: skip


def _final_meta(meta: RecordingMeta | None, result: EpisodeResult) -> RecordingMeta:
    """Return `meta` with what only the episode could tell; the recorder fills in how it ended."""
    base = RecordingMeta(source="policy") if meta is None else meta
    return replace(base, outcome="success" if result.success else "failure", seed=result.seed)
