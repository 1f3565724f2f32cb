"""Bidirectional decoding (Liu et al. 2024, arXiv 2408.17355): of many sampled chunks, execute the most coherent one.

Backward coherence L_B = sum_i rho^i |a_i - y_i| compares a candidate with the promised actions y over their overlap;
forward contrast L_F = mean distance to the n_keep most coherent candidates of the strong policy, minus that to the
n_keep most coherent ones of a weak policy (an early checkpoint). The candidate with the smallest L_B + L_F is executed.

Departures: distances are measured in half widths of the action range, so that metres and radians weigh alike, and the
distance of two chunks is the mean over their steps.
"""

from __future__ import annotations

import numpy as np

from robot_rl.deploy.promises import ChunkSampler, Promise
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec
from robot_rl.values import Obs

MIN_HALF_WIDTH = 1e-6


def backward_loss(candidates: np.ndarray, promise: Promise, *, rho: float = 0.5) -> np.ndarray:
    """Return L_B [B, N] of candidates [B, N, H, A]; zero where nothing is promised."""
    overlap = min(candidates.shape[2], promise.action.shape[1])
    difference = candidates[:, :, :overlap] - promise.action[:, None, :overlap]
    known = np.arange(overlap) < promise.length[:, None]  # [B, P]
    discount = np.where(known, rho ** np.arange(overlap), 0.0)
    return np.asarray((np.linalg.norm(difference, axis=-1) * discount[:, None]).sum(axis=-1))


def forward_loss(candidates: np.ndarray, strong: np.ndarray, weak: np.ndarray) -> np.ndarray:
    """Return L_F [B, N] of candidates [B, N, H, A] against the kept chunks [B, n_keep, H, A] of both policies."""
    return np.asarray(_mean_distance(candidates, strong) - _mean_distance(candidates, weak))


class Bidirectional:
    """Bidirectional decoding with any chunk sampler; a `ChunkSampler` itself. All candidates take one batched call.

    With one candidate it is the plain policy. Without a promise and without a weak policy the first candidate is taken.

    Args:
        strong: The policy.
        weak: An earlier checkpoint of it for the forward contrast; none leaves that term out.
        n_candidates: N, chunks drawn from each.
        n_keep: Chunks of each that the forward contrast compares with.
        rho: Discount of later steps in the backward loss.

    Raises:
        ConfigError: A number out of range, or a weak policy that reads or gives something else.
    """

    def __init__(
        self,
        strong: ChunkSampler,
        *,
        weak: ChunkSampler | None = None,
        n_candidates: int = 15,
        n_keep: int = 3,
        rho: float = 0.5,
    ) -> None:
        if not 1 <= n_keep <= n_candidates and weak is not None:
            raise ConfigError(f"`n_keep` must be in [1, n_candidates = {n_candidates}], got {n_keep}")
        if n_candidates < 1 or not 0 <= rho <= 1:
            raise ConfigError(f"`n_candidates` must be 1 or more and `rho` in [0, 1], got {n_candidates} and {rho}")
        if weak is not None and (weak.noise_shape != strong.noise_shape or weak.n_obs != strong.n_obs):
            raise ConfigError(
                f"the weak policy must read and draw what the strong one does, got n_obs {weak.n_obs}, noise "
                f"{weak.noise_shape} beside {strong.n_obs}, {strong.noise_shape}; take a checkpoint of the same run"
            )
        self._strong, self._weak = strong, weak
        self.n_candidates, self.n_keep, self.rho = n_candidates, n_keep, rho

    @property
    def spec(self) -> RobotSpec:
        """What it reads and gives."""
        return self._strong.spec

    @property
    def n_obs(self) -> int:
        """O, observation steps."""
        return self._strong.n_obs

    @property
    def n_execute(self) -> int:
        """How many actions of a chunk to execute before asking again."""
        return self._strong.n_execute

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape [N, ...] of the noise of one call, [2 N, ...] with a weak policy."""
        return self.n_candidates * (1 if self._weak is None else 2), *self._strong.noise_shape

    @property
    def action_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest action, [A] each."""
        return self._strong.action_range

    def chunks(self, obs: Obs, noise: np.ndarray, promise: Promise | None = None) -> np.ndarray:
        """Return the most coherent of the candidate chunks, [B, H, A]."""
        n = self.n_candidates
        candidates = self._draw(self._strong, obs, noise[:, :n])
        loss = self._backward(candidates, promise)
        if self._weak is not None:
            weak = self._draw(self._weak, obs, noise[:, n:])
            kept = [
                _best(chunks, self._backward(chunks, promise), self.n_keep) / self._half_width
                for chunks in (candidates, weak)
            ]
            loss = loss + forward_loss(candidates / self._half_width, *kept)
        return _best(candidates, loss, 1)[:, 0]

    def _draw(self, sampler: ChunkSampler, obs: Obs, noise: np.ndarray) -> np.ndarray:
        """Return candidates [B, N, H, A]."""
        b, n = noise.shape[:2]
        many = {name: np.repeat(value, n, axis=0) for name, value in obs.items()}
        action = sampler.chunks(many, noise.reshape(b * n, *noise.shape[2:]))
        return action.reshape(b, n, *action.shape[1:])

    def _backward(self, candidates: np.ndarray, promise: Promise | None) -> np.ndarray:
        if promise is None:
            return np.zeros(candidates.shape[:2])
        scaled = Promise(promise.action / self._half_width, promise.length, promise.delay)
        return backward_loss(candidates / self._half_width, scaled, rho=self.rho)

    @property
    def _half_width(self) -> np.ndarray:
        low, high = (np.asarray(end, dtype=np.float64) for end in self.action_range)
        half: np.ndarray = (high - low) / 2
        return np.where(half < MIN_HALF_WIDTH, 1.0, half)


def _best(candidates: np.ndarray, loss: np.ndarray, n: int) -> np.ndarray:
    """Return the n candidates of smallest loss, [B, n, H, A]; the first drawn of equal ones."""
    order = np.argsort(loss, axis=1, kind="stable")[:, :n]
    return np.asarray(np.take_along_axis(candidates, order[:, :, None, None], axis=1))


def _mean_distance(candidates: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the mean distance [B, N] of each candidate to the others [B, M, H, A]."""
    rows = min(candidates.shape[2], others.shape[2])
    difference = candidates[:, :, None, :rows] - others[:, None, :, :rows]
    return np.asarray(np.linalg.norm(difference, axis=-1).mean(axis=(2, 3)))
