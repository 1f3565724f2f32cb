"""What a bundle would do on recorded observations: limits, speed, jerk, rotation, difference, latency. Nothing moves.

The first rung of the ladder (specs: promotion ladder). A policy that fails here fails for less than an episode costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robot_rl.deploy.latency import LatencyHistogram
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.errors import ConfigError, SafetyStop
from robot_rl.evaluation.rungs import Check, RungResult
from robot_rl.hold import renew
from robot_rl.interfaces import StepPolicy
from robot_rl.specs import RobotSpec
from robot_rl.values import Episode, Obs, PolicyInput

_SEED = 0x5EED


@dataclass(frozen=True, kw_only=True)
class ReplayLimits:
    """What a bundle may do on recorded observations; `None` leaves a check out.

    Args:
        ticks: Recorded ticks that it is asked at, spread evenly over the episodes.
        outside: Largest share of actions outside the robot's range (elements within 1e-6 count as inside).
        speed: Largest share of action steps faster than the robot's speed limits.
        jerk: Largest ratio of its root mean square jerk within chunks to that of the recorded actions.
        rotation_deg: Largest geodesic rotation from one action to the next, where actions are poses.
        difference: Largest median difference to the recorded action on any axis, as a share of that axis' range in the
            recorded ones (1st to 99th percentile).
        incumbent: The same to the incumbent's action, same observation and noise.
        latency: Largest p99 of one inference, and of one correction where there is one, in control periods.

    Raises:
        ConfigError: Fewer than ten ticks, or a negative limit.
    """

    ticks: int = 200
    outside: float | None = 0.0
    speed: float | None = 0.01
    jerk: float | None = 20.0
    rotation_deg: float | None = 12.0
    difference: float | None = 0.25
    incumbent: float | None = None
    latency: float | None = 1.0

    def __post_init__(self) -> None:
        if self.ticks < 10:
            raise ConfigError(f"`ticks` must be at least 10, got {self.ticks}")
        for name, value in asdict(self).items():
            if value is not None and not value >= 0:
                raise ConfigError(f"`{name}` must be 0 or more, or null, got {value}")


@dataclass(frozen=True)
class Replayed:
    """Answers at recorded ticks.

    Args:
        chunks: Executed rows of each answer, [N, n, A], action's unit.
        recorded: The recorded actions of the same ticks, [N, n, A]; the last one of an episode stands for what follows.
        incumbent: The incumbent's answers, [N, n, A], if there is one.
        latency: Of each call of the bundle.
        correction: Of each correction of a row; `None` without.
    """

    chunks: np.ndarray
    recorded: np.ndarray
    incumbent: np.ndarray | None
    latency: LatencyHistogram
    correction: LatencyHistogram | None = None


def replay(
    policy: OnnxPolicy, episodes: Sequence[Episode], *, ticks: int, incumbent: OnnxPolicy | None = None,
    step: StepPolicy | None = None, incumbent_step: StepPolicy | None = None,
    on_tick: Callable[[], None] = lambda: None,
) -> Replayed:  # fmt: skip
    """Ask a policy, and its incumbent, at recorded ticks.

    Args:
        policy: The candidate, warmed up.
        episodes: Recorded by the robot it is for.
        ticks: How many ticks in all.
        incumbent: Asked with the same observations, each with noise of the same seed.
        step: Corrects each row by the observation recorded at its tick, the last one of an episode for what follows.
        incumbent_step: The same of the incumbent.
        on_tick: Called after each.

    Raises:
        ConfigError: No step has been recorded.
        SafetyStop: An answer is not finite.
    """
    places = [(e, n) for e in range(len(episodes)) for n in range(len(episodes[e]))]
    if not places:
        raise ConfigError("the store holds no step to replay; record an episode of this robot first")
    chosen = [places[i] for i in np.unique(np.linspace(0, len(places) - 1, min(ticks, len(places))).astype(int))]
    rows = policy.n_execute
    theirs = None if incumbent is None else min(rows, incumbent.n_execute)
    found, recorded, others, latency, correction = [], [], [], LatencyHistogram(), LatencyHistogram()
    for e, n in chosen:
        episode = episodes[e]
        began = time.perf_counter_ns()
        chunk = _answer(policy, episode, n)[:rows]
        latency.record(time.perf_counter_ns() - began)
        found.append(_corrected(step, chunk, episode, n, correction))
        recorded.append(np.asarray(episode.action)[np.minimum(np.arange(n, n + rows), len(episode) - 1)])
        if incumbent is not None:
            others.append(_corrected(incumbent_step, _answer(incumbent, episode, n)[:theirs], episode, n))
        on_tick()
    theirs_too = np.stack(others) if others else None
    return Replayed(np.stack(found), np.stack(recorded), theirs_too, latency, None if step is None else correction)


def _corrected(
    step: StepPolicy | None, chunk: np.ndarray, episode: Episode, n: int, took: LatencyHistogram | None = None
) -> np.ndarray:
    """Return the rows of a chunk [n, A] as they would be commanded from tick `n` on."""
    if step is None:
        return chunk
    renew(step)
    rows = []
    for i, row in enumerate(chunk):
        at = min(n + i, len(episode) - 1)
        began = time.perf_counter_ns()
        rows.append(step.act({name: values[at] for name, values in episode.obs.items()}, row))
        if took is not None:
            took.record(time.perf_counter_ns() - began)
    return np.stack(rows)


def _answer(policy: OnnxPolicy, episode: Episode, n: int) -> np.ndarray:
    policy.seed(_SEED + n)
    steps = np.maximum(np.arange(n - policy.n_obs + 1, n + 1), 0)
    obs: Obs = {name: np.stack([episode.obs[name][int(i)] for i in steps]) for name in policy.spec.obs}
    return policy.act(PolicyInput(obs=obs, stamp_ns=int(episode.stamp_ns[n]))).action


def judge_replay(
    replayed: Replayed, robot: RobotSpec, limits: ReplayLimits, *, velocity: np.ndarray | None = None,
    switches: Sequence[int] = (),
) -> RungResult:  # fmt: skip
    """Hold the answers against the limits.

    Args:
        replayed: The answers.
        robot: The robot that they are for: action range, kind and rate.
        limits: What is allowed.
        velocity: Its speed limits [A], action's unit per second; infinite where there is none, `None` where not known.
        switches: Elements that open and close. They jump by nature, in demonstrations too, so that neither their speed
            nor their jerk says anything; what the hand is sent is slowed by the safety layer.
    """
    dt, period_ms = 1.0 / robot.control_hz, 1e3 / robot.control_hz
    chunks = replayed.chunks.astype(np.float64)
    checks = [_outside(chunks, robot, limits.outside)]
    moving = np.delete(np.arange(chunks.shape[-1]), list(switches))
    if velocity is not None and chunks.shape[1] > 1:
        fast = (np.abs(np.diff(chunks, axis=1)) > velocity * dt * (1 + 1e-6))[..., moving].any(-1)
        checks.append(
            Check.at_most("speed", float(fast.mean()), limits.speed, "share of steps beyond the speed limits")
        )
    if chunks.shape[1] > 3:
        mine, theirs = (_jerk(rows[..., moving], dt) for rows in (chunks, replayed.recorded.astype(np.float64)))
        ratio = mine / theirs if theirs > 0 else (0.0 if mine == 0 else float("inf"))
        checks.append(Check.at_most("jerk", ratio, limits.jerk, "times the recorded actions' jerk"))
    if robot.action.kind == "pose_rot6d" and chunks.shape[1] > 1:
        turn = float(np.degrees(rotation_steps(chunks[..., 3:9])).max())
        checks.append(Check.at_most("rotation", turn, limits.rotation_deg, "deg from one action to the next"))
    checks.append(_difference("difference", chunks, replayed.recorded, replayed.recorded, limits.difference))
    if replayed.incumbent is not None:
        same = chunks[:, : replayed.incumbent.shape[1]]
        checks.append(_difference("incumbent", same, replayed.incumbent, replayed.recorded, limits.incumbent))
    p99 = replayed.latency.percentile_ns(99) / 1e6
    checks.append(Check.at_most("latency", p99 / period_ms, limits.latency, f"control periods at p99 ({p99:.2f} ms)"))
    if replayed.correction is not None:
        ms = replayed.correction.percentile_ns(99) / 1e6
        checks.append(
            Check.at_most("correction", ms / period_ms, limits.latency, f"control periods at p99 ({ms:.2f} ms)")
        )
    figures: dict[str, Any] = {
        "ticks": len(chunks), "inference_p50_ms": replayed.latency.percentile_ns(50) / 1e6, "inference_p99_ms": p99,
        "control_hz": robot.control_hz, "difference_per_axis": _per_axis(chunks, replayed.recorded).tolist(),
    }  # fmt: skip
    return RungResult.of("replay", checks, figures)


def rotation_steps(rot6d: np.ndarray) -> np.ndarray:
    """Return the geodesic angle [rad] between consecutive rotations, [..., n - 1], of rot6d [..., n, 6] (Zhou 2019).

    Raises:
        SafetyStop: A rot6d whose columns are zero or parallel is no rotation.
    """
    a, b = rot6d[..., :3], rot6d[..., 3:]
    x = a / np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1e-12)
    y = b - (x * b).sum(-1, keepdims=True) * x
    length = np.linalg.norm(y, axis=-1, keepdims=True)
    if (length < 1e-6).any() or (np.linalg.norm(a, axis=-1) < 1e-6).any():
        raise SafetyStop("a rot6d of the policy is no rotation: its columns are zero or parallel; train it further")
    y = y / length
    frames = np.stack([x, y, np.cross(x, y)], axis=-1)  # [..., n, 3, 3], columns
    trace = np.einsum("...ij,...ij->...", frames[..., 1:, :, :], frames[..., :-1, :, :])
    return np.asarray(np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0)))


def _outside(chunks: np.ndarray, robot: RobotSpec, limit: float | None) -> Check:
    low = -np.inf if robot.action.low is None else np.asarray(robot.action.low)
    high = np.inf if robot.action.high is None else np.asarray(robot.action.high)
    outside = ((chunks < low - 1e-6) | (chunks > high + 1e-6)).any(-1)
    return Check.at_most("range", float(outside.mean()), limit, "share of actions outside the robot's range")


def _jerk(chunks: np.ndarray, dt: float) -> float:
    return float(np.sqrt(np.mean((np.diff(chunks, n=3, axis=1) / dt**3) ** 2)))


def _per_axis(chunks: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return np.asarray(np.median(np.abs(chunks - reference), axis=(0, 1)))


def _difference(name: str, chunks: np.ndarray, reference: np.ndarray, scale: np.ndarray, limit: float | None) -> Check:
    low, high = np.percentile(scale.reshape(-1, scale.shape[-1]), (1, 99), axis=0)
    moved = high - low > 1e-9  # an axis that never moved has no range to compare with
    share = np.where(moved, _per_axis(chunks, reference.astype(np.float64)) / np.where(moved, high - low, 1.0), 0.0)
    axis = int(share.argmax())
    what = "recorded" if name == "difference" else "incumbent's"
    return Check.at_most(name, float(share[axis]), limit, f"of axis {axis}'s range, median, from the {what} action")
