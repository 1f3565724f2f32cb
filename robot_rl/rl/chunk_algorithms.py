"""The algorithms whose critics judge chunks that a frozen base proposes: `qc` and `dqc` over the learner's loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from robot_rl.deploy.promises import ChunkSampler
from robot_rl.interfaces import Policy
from robot_rl.rl.actions import ActionScaler
from robot_rl.rl.algorithm import features_of
from robot_rl.rl.best_of_n import BestOfN, ChunkValue
from robot_rl.rl.candidates import CANDIDATES, CandidateLabels
from robot_rl.rl.chunk_critic import ChunkAgent, ChunkBatch, ChunkSettings
from robot_rl.rl.critic import QEnsemble
from robot_rl.rl.decoupled import DecoupledAgent, DecoupledBatch, DecoupledSettings, ProbabilityHead
from robot_rl.rl.feed import Batch
from robot_rl.rl.labelling import LabelCache
from robot_rl.values import Episode


class ChunkAlgorithm:
    """Q-chunking on a frozen base: one critic of chunks, best of N.

    Args:
        encoder: Maps obs {name: [B, 1, ...]} to features [B, out_dim].
        scaler: Between physical actions and the agent's unit.
        names: Observations that the encoder reads.
        sampler: The frozen base.
        cache: Keeps the base's proposals on disk; `None` draws them again after a restart.
        settings: How it learns.
        horizon: H, actions that are judged and executed together.
        n_candidates: N, proposals among which a target takes the best.
        n_choose: Proposals among which the robot takes the best.
        n_members: Critics.
        hidden: Widths of the hidden layers.
    """

    def __init__(
        self,
        encoder: nn.Module,
        scaler: ActionScaler,
        names: Sequence[str],
        sampler: ChunkSampler,
        cache: LabelCache | None = None,
        *,
        settings: ChunkSettings,
        horizon: int = 5,
        n_candidates: int = 16,
        n_choose: int = 32,
        n_members: int = 2,
        hidden: Sequence[int] = (256, 256),
    ) -> None:
        a = len(scaler.half)
        critic = QEnsemble(
            encoder, n_features=features_of(encoder), action_dim=a, horizon=horizon, n_members=n_members, hidden=hidden
        )
        self._agent = ChunkAgent(critic, settings)
        self.agent: nn.Module = self._agent
        value = ChunkValue(critic, scaler, names, aggregate=settings.aggregate)
        self.policy: nn.Module = value
        self.driver: Policy | None = BestOfN(sampler, value, n=n_choose)
        self.prepare: Callable[[Episode], Episode] | None = CandidateLabels(
            sampler, n=n_candidates, horizon=horizon, cache=cache
        )
        self.streams: Mapping[str, Sequence[int]] = {CANDIDATES: (n_candidates, horizon, a)}
        self.horizon, self.bounds = horizon, settings.bounds
        self._scaler = scaler

    def update(self, batch: Batch, generator: torch.Generator, *, actor: bool) -> dict[str, float]:
        """Take a critic step; there is no actor to train, and nothing random."""
        return self._agent.update(
            ChunkBatch(
                obs=batch.obs,
                action=self._scaler.to_agent(batch.action),
                mask=batch.mask,
                reward=batch.reward,
                bootstrap=batch.bootstrap,
                next_obs=batch.next_obs,
                candidates=self._scaler.to_agent(batch.next_extras[CANDIDATES]),
            )
        )

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by name."""
        return {"critic": self._agent.optimiser}


class DecoupledAlgorithm:
    """Decoupled Q-chunking on a frozen base: rewards travel H steps at a time, the robot executes h at a time.

    Args:
        encoder: As of `ChunkAlgorithm`.
        scaler: As of `ChunkAlgorithm`.
        names: As of `ChunkAlgorithm`.
        sampler: As of `ChunkAlgorithm`.
        cache: Not used: no proposals are needed for learning.
        settings: How it learns.
        horizon: H, actions of the long critic.
        n_execute: h, actions of the short critic, executed together.
        n_choose: Proposals among which the robot takes the best.
        n_members: Critics of each kind.
        hidden: Widths of the hidden layers.
    """

    prepare: Callable[[Episode], Episode] | None = None

    def __init__(
        self,
        encoder: nn.Module,
        scaler: ActionScaler,
        names: Sequence[str],
        sampler: ChunkSampler,
        cache: LabelCache | None = None,
        *,
        settings: DecoupledSettings,
        horizon: int = 25,
        n_execute: int = 5,
        n_choose: int = 32,
        n_members: int = 2,
        hidden: Sequence[int] = (256, 256),
    ) -> None:
        c, a = features_of(encoder), len(scaler.half)
        partial = QEnsemble(
            encoder, n_features=c, action_dim=a, horizon=n_execute, n_members=n_members, hidden=hidden,
            head=ProbabilityHead,
        )  # fmt: skip
        self._agent = DecoupledAgent(partial, n_features=c, horizon=horizon, hidden=hidden, settings=settings)
        self.agent: nn.Module = self._agent
        value = ChunkValue(partial, scaler, names, aggregate=settings.aggregate)
        self.policy: nn.Module = value
        self.driver: Policy | None = BestOfN(sampler, value, n=n_choose)
        self.streams: Mapping[str, Sequence[int]] = {}
        self.horizon = horizon
        self.bounds: tuple[float, float] | None = (0.0, 1.0)
        self._scaler = scaler

    def update(self, batch: Batch, generator: torch.Generator, *, actor: bool) -> dict[str, float]:
        """Take a joint step of both critics and the value; there is no actor to train, and nothing random."""
        return self._agent.update(
            DecoupledBatch(
                obs=batch.obs,
                action=self._scaler.to_agent(batch.action),
                reward=batch.reward,
                bootstrap=batch.bootstrap,
                next_obs=batch.next_obs,
            )
        )

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by name."""
        return {"critic": self._agent.optimiser}
