"""Best of N: a frozen base proposes chunks and a critic chooses the one to execute.

Q-chunking's policy (Li et al. 2025, arXiv 2507.07969, section 4.2): the base keeps chunks likely, the critic picks
among them, and nothing is trained through the base. N = 1 is the base itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from robot_rl.deploy.promises import ChunkSampler
from robot_rl.errors import ConfigError
from robot_rl.rl.actions import ActionScaler
from robot_rl.rl.candidates import draw_candidates
from robot_rl.rl.critic import QEnsemble
from robot_rl.values import ActionChunk, PolicyInput

Aggregate = Literal["mean", "min"]


def aggregated(q: Tensor, how: Aggregate) -> Tensor:
    """Return one value of the E members' [E, ...].

    Raises:
        ConfigError: An unknown way.
    """
    if how not in ("mean", "min"):
        raise ConfigError(f"`aggregate` must be `mean` or `min`, got {how!r}")
    return q.mean(0) if how == "mean" else q.amin(0)


def best_of(value: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best of N candidates and its value.

    Args:
        value: [B, N].
        candidates: [B, N, ...].

    Returns:
        The candidates [B, ...] with the largest value, and that value [B].
    """
    chosen = value.argmax(1)
    rows = torch.arange(len(value), device=value.device)
    return candidates[rows, chosen], value[rows, chosen]


def values_of(critic: QEnsemble, members: nn.Module, features: Tensor, candidates: Tensor) -> Tensor:
    """Return values [E, B, N] of candidates [B, N, H, A] at features [B, C], in one call of `members`."""
    b, n = candidates.shape[:2]
    repeated = features.repeat_interleave(n, dim=0)
    out: Tensor = members(torch.cat([repeated, candidates.reshape(b * n, -1)], dim=1))
    return critic.head.mean(out).reshape(-1, b, n)


class ChunkValue(nn.Module):
    """What an actor needs of a chunk critic to choose with: encoder and members, physical units outside.

    Args:
        critic: Values of chunks of H actions, in the agent's unit.
        scaler: Between physical actions and the agent's unit.
        names: Observations that the encoder reads.
        aggregate: One value of the members': their mean or the least.
    """

    def __init__(
        self, critic: QEnsemble, scaler: ActionScaler, names: Sequence[str], *, aggregate: Aggregate = "mean"
    ) -> None:
        super().__init__()
        aggregated(torch.zeros(1, 1), aggregate)
        self.critic, self.scaler, self.names, self.aggregate = critic, scaler, tuple(names), aggregate

    @property
    def horizon(self) -> int:
        """H, actions that are judged."""
        return self.critic.horizon

    @torch.no_grad()
    def values(self, obs: Mapping[str, np.ndarray], chunks: np.ndarray) -> np.ndarray:
        """Return values [B, N] of physical chunks [B, N, >= H, A] at observations {name: [B, 1, ...]}."""
        device = next(self.critic.members.parameters()).device
        rows = {name: torch.as_tensor(np.asarray(obs[name]), device=device) for name in self.names}
        unit = self.scaler.to_agent(torch.as_tensor(chunks[:, :, : self.horizon], device=device))
        q = values_of(self.critic, self.critic.members, cast(Tensor, self.critic.encoder(rows)), unit)
        return aggregated(q, self.aggregate).cpu().numpy()


class BestOfN:
    """The chunk with the largest value of N that the base proposes; a `Policy` that can be seeded.

    With a delay d the rows that are executed are d and after, while the first H are judged.

    Args:
        sampler: The frozen base.
        value: Judges.
        n: N.
        n_execute: Actions to execute before asking again; `None` for all that are judged.
        seed: Of the proposals, until an episode brings its own.

    Raises:
        ConfigError: N below 1, or `n_execute` outside [1, H].
    """

    def __init__(
        self, sampler: ChunkSampler, value: ChunkValue, *, n: int = 32, n_execute: int | None = None, seed: int = 0
    ) -> None:
        if n < 1:
            raise ConfigError(f"`n` candidates must be at least 1, got {n}")
        if n_execute is not None and not 1 <= n_execute <= value.horizon:
            raise ConfigError(f"`n_execute` must be in [1, {value.horizon}], the actions judged, got {n_execute}")
        self.sampler, self.value, self.n = sampler, value, n
        self._n_execute = value.horizon if n_execute is None else n_execute
        self._rng = np.random.default_rng(seed)

    @property
    def n_obs(self) -> int:
        """O of the base."""
        return self.sampler.n_obs

    @property
    def n_execute(self) -> int:
        """Actions to execute before asking again."""
        return self._n_execute

    def seed(self, seed: int) -> None:
        """Draw what follows from this seed alone."""
        self._rng = np.random.default_rng(seed)

    def reset(self) -> None:
        """Nothing to forget but the proposals' generator, which runs on over episodes."""

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        """Return the best of N chunks, row 0 due at `policy_input.stamp_ns`.

        A given `noise` is that of the first proposal; the others are drawn.

        Raises:
            ConfigError: The base's chunks are shorter than what is judged.
            SpecError: An observation is missing or not as specified, or the base answered NaN.
        """
        self.sampler.spec.validate_obs(
            {name: policy_input.obs[name] for name in self.sampler.spec.obs if name in policy_input.obs}, leading=1
        )
        noise = self._rng.standard_normal((1, self.n, *self.sampler.noise_shape), dtype=np.float32)
        if policy_input.noise is not None:
            noise[0, 0] = policy_input.noise
        obs = {name: np.asarray(rows)[None] for name, rows in policy_input.obs.items()}
        chunks = draw_candidates(self.sampler, obs, noise)
        if chunks.shape[2] < self.value.horizon:
            raise ConfigError(
                f"the critic judges {self.value.horizon} actions and the base's chunks have {chunks.shape[2]}; "
                "lower the critic's horizon"
            )
        newest = {name: rows[:, -1:] for name, rows in obs.items()}
        best = int(np.argmax(self.value.values(newest, chunks)[0]))
        spec = self.sampler.spec
        action = chunks[0, best].astype(spec.action.dtype)
        return ActionChunk(policy_input.stamp_ns, spec.step_ns, action, n_execute=self._n_execute)
