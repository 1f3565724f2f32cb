"""Real-time chunking (Black et al. 2025, arXiv 2506.07339): a new chunk that continues what is being executed.

The new chunk is denoised with guidance towards the promised actions Y, by pseudo-inverse guidance (their eq. 2, after
Song et al. 2023): with flow time tau (0 noise, 1 data), denoiser D and weights W over the chunk's steps,

    u' = u + min(beta, (tau^2 + (1 - tau)^2) / (tau (1 - tau))) g,     g = (dD/dx)^T W (Y - D).

Any Gaussian path x = alpha a + sigma eps is the flow's in other coordinates: tau = alpha / (alpha + sigma) and
x_flow = x / (alpha + sigma), so dD/dx_flow = (alpha + sigma) dD/dx; and u = (D - x_flow) / (1 - tau) turns a change of
u into one of the denoiser, D' = D + (1 - tau) min(...) g with 1 - tau = sigma / (alpha + sigma). That form is what is
computed here, so diffusion (VP), EDM (VE) and flow are guided by the same lines, with the deterministic solver.

Departures. The gain is bounded by 1 / (tau' - tau) as well, so that no step goes past the target: nothing changes for
the paper's even steps with beta <= n, but few-step noise grids would overshoot. Where the sampler clips D, the error is
taken from the clipped D, dD/dx from the unclipped, and the guided D is clipped again. The weights end where the promise
ends, whatever its length: missing actions are masked and never filled in. With `jacobian="identity"` dD/dx_flow is
taken for 1, as LeRobot's does (there without the factor 1 - tau, which its step has): no backward pass, so it runs on
numpy and ONNX alone, but the correction of one step's action does not spread to the steps after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np

from robot_rl.deploy.promises import ChunkSampler, Promise
from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import Array, GaussianPath
from robot_rl.specs import RobotSpec
from robot_rl.values import Obs

SCHEDULES = ("exp", "linear", "ones", "zeros")
BETA = 5.0

Guide = Callable[[Any, float], tuple[Any, Callable[[Any], Any]]]
"""Maps (x, t) to the denoiser's output D and to a function that returns (dD/dx_flow)^T e for an error e."""


def prefix_weights(horizon: int, *, delay: np.ndarray, end: np.ndarray, schedule: str = "exp") -> np.ndarray:
    """Return the weights W [B, H] with which the steps of a chunk are held to what was promised.

    1 for the `delay` steps that will have been executed, falling from there, 0 from step `end` on (the paper's H - s).

    Args:
        horizon: H.
        delay: d, int [B]; more than `end` counts as `end`.
        end: How many actions are promised, int [B]; more than H counts as H.
        schedule: After the delay: `exp` c (e^c - 1) / (e - 1) and `linear` c, with c = (end - i) / (end - d + 1);
            `ones` holds to the whole promise, `zeros` to nothing more.

    Raises:
        ConfigError: An unknown schedule.
    """
    if schedule not in SCHEDULES:
        raise ConfigError(f"`schedule` must be one of {SCHEDULES}, got {schedule!r}")
    i = np.arange(horizon)[None]  # [1, H]
    last = np.minimum(np.asarray(end), horizon)[:, None]  # [B, 1]
    d = np.minimum(np.asarray(delay)[:, None], last)
    c = np.clip((last - i) / (last - d + 1), 0.0, 1.0)
    falling = {"exp": c * np.expm1(c) / math.expm1(1), "linear": c, "ones": np.ones_like(c), "zeros": np.zeros_like(c)}
    return np.asarray(np.where(i < d, 1.0, np.where(i < last, falling[schedule], 0.0)))


def guidance_gain(path: GaussianPath, t: float, t_next: float, *, beta: float = BETA) -> float:
    """Return min(beta, (tau^2 + (1 - tau)^2) / (tau (1 - tau)), 1 / (tau' - tau)) for a step from `t` to `t_next`."""
    tau, after = _flow_time(path, t), _flow_time(path, t_next)
    inside = tau * (1 - tau)
    gain = (tau**2 + (1 - tau) ** 2) / inside if inside > 0 else math.inf
    return min(beta, gain, 1 / (after - tau))


def solve_guided(
    path: GaussianPath,
    guide: Guide,
    x: Array,
    times: Sequence[float],
    *,
    target: Array,
    weights: Array,
    beta: float = BETA,
    clip: float | None = None,
) -> Array:
    """Integrate like `robot_rl.gaussian_path.solve`, guided towards `target` where `weights` say so.

    Where the weights of a sample are all zero, nothing is changed by the guidance, bit for bit.

    Args:
        path: The path of the denoiser.
        guide: The denoiser and its pull-back.
        x: State [B, H, A] at `times[0]`.
        times: Falling times.
        target: Y [B, H, A], normalised; finite also where it does not count.
        weights: W [B, H].
        beta: Largest gain.
        clip: Bound of the denoiser's output.
    """
    for t, t_next in pairwise(times):
        denoised, pull = guide(x, t)
        denoised = denoised if clip is None else denoised.clip(-clip, clip)
        share = (1 - _flow_time(path, t)) * guidance_gain(path, t, t_next, beta=beta)
        guided = denoised + share * pull(weights[..., None] * (target - denoised))
        guided = guided if clip is None else guided.clip(-clip, clip)
        x = path.step(x, guided, t, t_next)
    return x


@runtime_checkable
class GuidedDenoiser(Protocol):
    """A denoising policy whose sampling can be guided, numpy on both sides; horizon and rows are the model's own."""

    @property
    def horizon(self) -> int:
        """H, with the rows before the newest observation."""

    @property
    def action_offset(self) -> int:
        """Control step of row 0 relative to the newest observation."""

    def normalised(self, obs: Obs, action: np.ndarray) -> np.ndarray:
        """Return physical chunks [B, H, A] as the network sees them, relative to the newest observation if it is so."""

    def physical(self, obs: Obs, normalised: np.ndarray) -> np.ndarray:
        """Undo `normalised`."""

    def sample_guided(
        self, obs: Obs, noise: np.ndarray, *, target: np.ndarray, weights: np.ndarray, beta: float
    ) -> np.ndarray:
        """Return normalised chunks [B, H, A] guided towards `target` [B, H, A] by `weights` [B, H]."""


class RealtimeChunking:
    """Real-time chunking with any denoising policy; a `ChunkSampler`.

    Without a promise, or with one that weighs nothing, it is the plain policy, bit for bit.

    Args:
        plain: The policy as it samples by itself.
        denoiser: The same policy, for guided sampling.
        schedule: See `prefix_weights`.
        beta: Largest guidance gain.

    Raises:
        ConfigError: An unknown schedule or a `beta` that is not positive.
    """

    def __init__(
        self, plain: ChunkSampler, denoiser: GuidedDenoiser, *, schedule: str = "exp", beta: float = BETA
    ) -> None:
        if schedule not in SCHEDULES:
            raise ConfigError(f"`schedule` must be one of {SCHEDULES}, got {schedule!r}")
        if not beta > 0:
            raise ConfigError(f"`beta` must be positive, got {beta}")
        self._plain, self._denoiser, self.schedule, self.beta = plain, denoiser, schedule, beta

    @property
    def spec(self) -> RobotSpec:
        """What it reads and gives."""
        return self._plain.spec

    @property
    def n_obs(self) -> int:
        """O, observation steps."""
        return self._plain.n_obs

    @property
    def n_execute(self) -> int:
        """How many actions of a chunk to execute before asking again."""
        return self._plain.n_execute

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one chunk."""
        return self._plain.noise_shape

    @property
    def action_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest action, [A] each."""
        return self._plain.action_range

    def chunks(self, obs: Obs, noise: np.ndarray, promise: Promise | None = None) -> np.ndarray:
        """Return actions [B, H, A] that continue the promise."""
        weights = None if promise is None else self.weights(promise)
        if promise is None or weights is None or not weights.any():
            return self._plain.chunks(obs, noise)
        held = np.asarray(weights.any(axis=1))
        if held.all():
            return self._guided(obs, noise, promise, weights)
        first = self._plain.chunks(_take(obs, ~held), noise[~held])
        action = np.empty((len(noise), *first.shape[1:]), dtype=first.dtype)
        action[~held] = first
        action[held] = self._guided(_take(obs, held), noise[held], promise.take(held), weights[held])
        return action

    def weights(self, promise: Promise) -> np.ndarray:
        """Return the weights [B, H] over the model's own rows; those before the newest observation are free."""
        past = -self._denoiser.action_offset
        rows = self._denoiser.horizon - past
        weights = prefix_weights(rows, delay=promise.delay, end=promise.length, schedule=self.schedule)
        return np.pad(weights, ((0, 0), (past, 0)))

    def _guided(self, obs: Obs, noise: np.ndarray, promise: Promise, weights: np.ndarray) -> np.ndarray:
        past, h = -self._denoiser.action_offset, self._denoiser.horizon
        given = promise.action[:, : h - past]
        action = np.repeat(given[:, :1], h, axis=1)  # [B, H, A], the rows that do not count are finite
        action[:, past : past + given.shape[1]] = given
        target = self._denoiser.normalised(obs, action.astype(np.float32))
        start = noise.reshape(len(noise), -1, noise.shape[-1])[:, :h]  # a sampler's step noise, if any, is not used
        normalised = self._denoiser.sample_guided(
            obs, start, target=target, weights=weights.astype(np.float32), beta=self.beta
        )
        due = self._denoiser.physical(obs, normalised)[:, past:].astype(self.spec.action.dtype)
        return np.asarray(np.clip(due, *self.action_range))


def _flow_time(path: GaussianPath, t: float) -> float:
    """Return tau = alpha / (alpha + sigma), 0 for noise and 1 for data."""
    alpha, sigma = path.coefficients(t)
    return float(alpha / (alpha + sigma))


def _take(obs: Obs, index: np.ndarray) -> Obs:
    return {name: value[index] for name, value in obs.items()}
