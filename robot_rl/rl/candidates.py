"""Chunks that a frozen base might execute next: N of them at every observation of an episode, drawn once and kept.

A chunk critic's target needs candidates at the next state of every item of a batch. Q-chunking (Li et al. 2025, arXiv
2507.07969) draws them anew at each update; here the base is frozen, so they are drawn once an observation, from a seed
that the episode's id gives, and come with the batch. That is one draw a step in place of one an update and item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from robot_rl.deploy.promises import ChunkSampler
from robot_rl.errors import ConfigError, SpecError
from robot_rl.rl.labelling import LabelCache
from robot_rl.rl.replay import FINAL
from robot_rl.values import Episode, Obs

CANDIDATES, CANDIDATE_NOISE = "candidates", "candidate_noise"
"""Names of the extras."""
_ROWS = 512  # chunks drawn in one call


def draw_candidates(sampler: ChunkSampler, obs: Mapping[str, np.ndarray], noise: np.ndarray) -> np.ndarray:
    """Return N chunks for each of B observations, [B, N, H, A] float32, in one call of the base.

    Args:
        sampler: The frozen base.
        obs: {name: [B, O, ...]}, at least those it reads.
        noise: Standard normal [B, N, *noise_shape].

    Raises:
        SpecError: An observation is missing, or the base answered NaN.
    """
    if missing := sorted(set(sampler.spec.obs) - set(obs)):
        raise SpecError(f"the base reads {sorted(sampler.spec.obs)}, but {missing} was not observed")
    b, n = noise.shape[:2]
    repeated = {name: np.repeat(np.asarray(obs[name]), n, axis=0) for name in sampler.spec.obs}
    chunks = sampler.chunks(repeated, noise.reshape(b * n, *noise.shape[2:]).astype(np.float32, copy=False))
    if not np.isfinite(chunks).all():
        raise SpecError("the base answered NaN or infinity; look for NaN in the observations, or train it anew")
    return chunks.reshape(b, n, *chunks.shape[1:]).astype(np.float32)


class CandidateLabels:
    """Adds the extra `candidates` [N, H, A] to episodes, at their final observation too.

    Args:
        sampler: The frozen base.
        n: N, chunks at each observation.
        horizon: H, how many actions of a chunk are kept.
        cache: Keeps those of an episode on disk; `None` draws them again each time.
        with_noise: Add the noise that each was made of, too: `candidate_noise` [N, D], flat.

    Raises:
        ConfigError: N below 1, or more actions than a chunk has.
    """

    def __init__(
        self,
        sampler: ChunkSampler,
        *,
        n: int,
        horizon: int,
        cache: LabelCache | None = None,
        with_noise: bool = False,
    ) -> None:
        if n < 1:
            raise ConfigError(f"`n` candidates must be at least 1, got {n}")
        self.sampler, self.n, self.horizon = sampler, n, horizon
        self._cache, self._with_noise = cache, with_noise

    def __call__(self, episode: Episode) -> Episode:
        """Return the episode with its candidates; one that has them is returned as it is.

        Raises:
            ConfigError: The base's chunks are shorter than `horizon`.
            SpecError: An observation that the base reads is missing.
            StoreError: What was kept on disk does not fit.
        """
        if CANDIDATES in episode.extras:
            return episode
        row = (self.n, self.horizon, *episode.action.shape[1:])
        labels = self._drawn(episode) if self._cache is None else self._cache.get(episode, self._drawn, row=row)
        rows = {CANDIDATES: labels}
        if self._with_noise:
            noise = self._noise(episode)
            rows[CANDIDATE_NOISE] = noise.reshape(*noise.shape[:2], -1)
        final = {**episode.meta.extra.get(FINAL, {}), **{name: values[-1] for name, values in rows.items()}}
        meta = replace(episode.meta, extra={**episode.meta.extra, FINAL: final})
        extras = {**episode.extras, **{name: values[: len(episode)] for name, values in rows.items()}}
        return replace(episode, extras=extras, meta=meta)

    def _noise(self, episode: Episode) -> np.ndarray:
        """Return standard normal numbers [N+1, n, *noise_shape] that the episode's id decides."""
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(episode.id.encode()).digest()[:8], "big"))
        return rng.standard_normal((len(episode) + 1, self.n, *self.sampler.noise_shape), dtype=np.float32)

    def _drawn(self, episode: Episode) -> np.ndarray:
        """Return candidates [N+1, n, H, A]; where no final observation was recorded, the last row repeats."""
        stacked = _stacked(episode, self.sampler)
        n_rows = len(episode) + (episode.final_obs is not None)
        noise = self._noise(episode)
        step, parts = max(1, _ROWS // self.n), []
        for start in range(0, n_rows, step):
            rows = {name: values[start : start + step] for name, values in stacked.items()}
            chunks = draw_candidates(self.sampler, rows, noise[start : min(start + step, n_rows)])
            if chunks.shape[2] < self.horizon:
                raise ConfigError(
                    f"a critic of {self.horizon} actions needs chunks of as many, the base's have {chunks.shape[2]}; "
                    "lower the critic's horizon"
                )
            parts.append(chunks[:, :, : self.horizon])
        drawn = np.concatenate(parts)
        return drawn if n_rows > len(episode) else np.concatenate([drawn, drawn[-1:]])


def _stacked(episode: Episode, sampler: ChunkSampler) -> Obs:
    """Return {name: [N+1, O, ...]}, or [N, O, ...] without a final observation; the first one is repeated before it.

    Raises:
        SpecError: The episode lacks an observation.
    """
    stacked: Obs = {}
    for name in sampler.spec.obs:
        if name not in episode.obs:
            raise SpecError(f"the base reads `{name}`, which episode {episode.id} does not hold")
        rows = np.asarray(episode.obs[name][:])
        if episode.final_obs is not None:
            rows = np.concatenate([rows, np.asarray(episode.final_obs[name])[None]])
        index = np.arange(len(rows))[:, None] + np.arange(1 - sampler.n_obs, 1)
        stacked[name] = rows[np.maximum(index, 0)]
    return stacked
