"""Advantages of executed chunks: generalised advantage estimation where a step is a chunk.

    delta_t = R_t + b_t V(s_{t+1}) - V(s_t),   A_t = delta_t + lambda b_t A_{t+1},   target_t = A_t + V(s_t)

(Schulman et al. 2016, arXiv 1506.02438; in chunks as RL-100, arXiv 2510.14830.) R_t is the discounted sum of the
rewards of the steps that were really executed and b_t = gamma^n for those n steps, 0 where the task ended there.

Departure from DPPO's released code, which lets a trace run on over a reset when time ran out: here an episode that was
cut off is bootstrapped at the observation after its last action, and the trace ends there. Its discount is per chunk;
ours is per control step, so that another chunk length does not change how far the agent looks.
"""

from __future__ import annotations

import numpy as np

from robot_rl.errors import ConfigError
from robot_rl.rl.returns import Segments


def chunk_segments(
    reward: np.ndarray, start: np.ndarray, *, gamma: float, terminated: bool, has_final_obs: bool = True
) -> Segments:
    """Return one segment a chunk of an episode, each up to where the next chunk begins.

    Args:
        reward: [N], reward of each control step.
        start: First step of each chunk, rising int64 [M]; a chunk that was cut short is shorter than others.
        gamma: Discount per control step, in (0, 1].
        terminated: The task itself ended after the last step.
        has_final_obs: The observation after the last action was recorded. Without it, a last chunk that would bootstrap
            there is left out.

    Raises:
        ConfigError: `gamma` outside (0, 1], or starts that do not rise within the episode.
    """
    if not 0 < gamma <= 1:
        raise ConfigError(f"`gamma` must be in (0, 1], got {gamma}")
    reward, start, total = np.asarray(reward, np.float64), np.asarray(start, np.int64), len(reward)
    if len(start) == 0 or start[0] < 0 or start[-1] >= total or bool((np.diff(start) <= 0).any()):
        raise ConfigError(f"`start` must rise within the {total} steps of the episode, got {start[:8].tolist()}")
    end = np.append(start[1:], total)
    summed = [float(reward[a:b] @ gamma ** np.arange(b - a)) for a, b in zip(start, end, strict=True)]
    bootstrap = np.where((end == total) & terminated, 0.0, gamma ** (end - start).astype(np.float64))
    kept = (end < total) | terminated | has_final_obs
    return Segments(start, end - start, np.array(summed), bootstrap).where(kept)


def gae(
    reward: np.ndarray,
    bootstrap: np.ndarray,
    value: np.ndarray,
    next_value: np.ndarray,
    continues: np.ndarray,
    *,
    lam: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return advantages and value targets, of the shape of `reward`.

    Args:
        reward: [M, ...], discounted reward within each chunk; the first axis is time, others are environments. Episodes
            may follow one another along time.
        bootstrap: [M, ...], what the value after the chunk is multiplied by.
        value: [M, ...], V before the chunk.
        next_value: [M, ...], V after it: of the next chunk's observation, or of an episode's final one.
        continues: [M, ...] bool, whether the next row is the next chunk of the same episode.
        lam: Lambda, in [0, 1]: 0 for one-chunk differences, 1 for the whole return.

    Raises:
        ConfigError: `lam` outside [0, 1], shapes that differ, or a last row that continues.
    """
    if not 0 <= lam <= 1:
        raise ConfigError(f"`lam` must be in [0, 1], got {lam}")
    shapes = {np.shape(array) for array in (reward, bootstrap, value, next_value, continues)}
    if len(shapes) != 1 or bool(np.any(np.asarray(continues)[-1:])):
        raise ConfigError(f"need arrays of one shape whose last row does not continue, got shapes {sorted(shapes)}")
    delta = np.asarray(reward, np.float64) + bootstrap * next_value - value
    trace = np.where(continues, lam * np.asarray(bootstrap, np.float64), 0.0)
    advantage, following = np.empty_like(delta), np.zeros(delta.shape[1:])
    for t in range(len(delta) - 1, -1, -1):
        following = delta[t] + trace[t] * following
        advantage[t] = following
    return advantage, advantage + value


def explained_variance(value: np.ndarray, target: np.ndarray) -> float:
    """Return the share of the targets' variance that the values explain, 1 at best; NaN where the targets are equal."""
    spread = float(np.var(target))
    return float("nan") if spread == 0.0 else 1.0 - float(np.var(np.asarray(target) - value)) / spread
