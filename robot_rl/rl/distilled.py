"""A one-step actor of chunks, pulled to a frozen base and up the critic (QC-FQL: Li et al. 2025, arXiv 2507.07969).

    L(mu) = alpha |mu(s, z) - base(s, z)|^2 - mean_j Q_j(s, clip mu(s, z))

mu turns noise into a chunk in one evaluation (Park et al. 2025, FQL, arXiv 2502.02538), so the robot needs neither the
base nor N proposals. Until anything is learned the base drives, and while the critic learns alone (`pace.critic_first`)
mu learns to be the base. Departures: those of `robot_rl.rl.chunk_critic`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from robot_rl.deploy.promises import ChunkSampler
from robot_rl.errors import ConfigError, SpecError
from robot_rl.interfaces import Policy
from robot_rl.rl.actions import ActionScaler
from robot_rl.rl.algorithm import features_of, standard_normal
from robot_rl.rl.best_of_n import aggregated
from robot_rl.rl.candidates import CANDIDATE_NOISE, CANDIDATES, CandidateLabels, draw_candidates
from robot_rl.rl.chunk_critic import ChunkSettings, complete
from robot_rl.rl.critic import QEnsemble, ensemble_loss, polyak_, td_target
from robot_rl.rl.feed import Batch
from robot_rl.rl.labelling import LabelCache
from robot_rl.rl.optimise import frozen, step
from robot_rl.values import ActionChunk, Episode, PolicyInput


class ChunkActor(nn.Module):
    """Features and noise to a chunk in the agent's unit.

    Args:
        n_features: C.
        n_noise: D, numbers of noise that one chunk of the base takes.
        horizon: H.
        action_dim: A.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, n_features: int, n_noise: int, horizon: int, action_dim: int, *, hidden: Sequence[int]) -> None:
        super().__init__()
        self.n_noise, self.horizon = n_noise, horizon
        layers: list[nn.Module] = []
        width = n_features + n_noise
        for out in hidden:
            layers += [nn.Linear(width, out), nn.LayerNorm(out), nn.GELU()]
            width = out
        self.layers = nn.Sequential(*layers, nn.Linear(width, horizon * action_dim))

    def forward(self, features: Tensor, noise: Tensor) -> Tensor:
        """Return chunks [B, H, A], not held to the unit, for features [B, C] and standard normal noise [B, D]."""
        out: Tensor = self.layers(torch.cat([features, noise], dim=1))
        return out.unflatten(1, (self.horizon, -1))  # type: ignore[no-untyped-call, no-any-return]


class DistilledPolicy(nn.Module):
    """Encoder and actor as a `Policy` of chunks that can be seeded; physical units outside.

    Before the actor's first update the base drives.

    Args:
        encoder: Maps obs {name: [B, 1, ...]} to features [B, C].
        actor: Makes the chunks.
        scaler: Between physical actions and the agent's unit.
        names: Observations that the encoder reads.
        sampler: The frozen base.
    """

    updates: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        actor: ChunkActor,
        scaler: ActionScaler,
        names: Sequence[str],
        sampler: ChunkSampler,
    ) -> None:
        super().__init__()
        self.encoder, self.actor, self.sampler = encoder, actor, sampler
        self.scaler, self.names = scaler, tuple(names)
        self.register_buffer("updates", torch.zeros(1, dtype=torch.int64))
        self._rng = np.random.default_rng(0)

    @property
    def n_obs(self) -> int:
        """O of the base."""
        return self.sampler.n_obs

    @property
    def n_execute(self) -> int:
        """H: whole chunks are executed."""
        return self.actor.horizon

    def seed(self, seed: int) -> None:
        """Draw what follows from this seed alone."""
        self._rng = np.random.default_rng(seed)

    def reset(self) -> None:
        """Nothing to forget but the noise generator, which runs on over episodes."""

    @torch.no_grad()
    def act(self, policy_input: PolicyInput) -> ActionChunk:
        """Return a chunk whose row 0 is due at `policy_input.stamp_ns`; a given `noise` is not used.

        Raises:
            SpecError: An observation is missing or not as specified.
        """
        spec, given = self.sampler.spec, policy_input.obs
        spec.validate_obs({name: given[name] for name in spec.obs if name in given}, leading=1)
        noise = self._rng.standard_normal((1, 1, *self.sampler.noise_shape), dtype=np.float32)
        if int(self.updates) == 0:
            stacked = {name: np.asarray(rows)[None] for name, rows in given.items()}
            action = draw_candidates(self.sampler, stacked, noise)[0, 0, : self.n_execute]
            return ActionChunk(policy_input.stamp_ns, spec.step_ns, action.astype(spec.action.dtype))
        device = next(self.actor.parameters()).device
        if missing := [name for name in self.names if name not in given]:
            raise SpecError(f"the actor reads {list(self.names)}, but {missing} was not observed")
        obs = {name: torch.as_tensor(np.asarray(given[name])[None, -1:], device=device) for name in self.names}
        features = cast(Tensor, self.encoder(obs))
        unit = self.actor(features, torch.from_numpy(noise.reshape(1, -1)).to(device))[0].clamp(-1, 1)
        action = self.scaler.to_physical(unit.cpu().numpy()).astype(spec.action.dtype)
        return ActionChunk(policy_input.stamp_ns, spec.step_ns, action)


class DistilledAgent(nn.Module):
    """A critic of chunks with its target, and the actor.

    Args:
        critic: Values of H actions; its encoder is trained by its loss alone.
        actor: Makes chunks.
        settings: How the critic learns.
        alpha: Weight of staying with the base.

    Raises:
        ConfigError: A negative `alpha`.
    """

    def __init__(self, critic: QEnsemble, actor: ChunkActor, settings: ChunkSettings, *, alpha: float) -> None:
        super().__init__()
        if alpha < 0:
            raise ConfigError(f"`alpha`, the weight of staying with the base, must be 0 or more, got {alpha}")
        self.critic, self.actor, self.settings, self.alpha = critic, actor, settings, alpha
        self.target_members = deepcopy(critic.members).requires_grad_(False)
        self.critic_optimiser = torch.optim.Adam(critic.parameters(), lr=settings.lr, fused=True)
        self.actor_optimiser = torch.optim.Adam(actor.parameters(), lr=settings.lr, fused=True)

    def update_critic(self, batch: Batch, action: Tensor, noise: Tensor) -> dict[str, float]:
        """Take one critic step, move the target, and return what to log.

        Args:
            batch: Transitions.
            action: [B, H, A], what was executed, in the agent's unit.
            noise: Standard normal [B, D], of the next chunk.

        Raises:
            TrainingError: The loss is not finite; nothing was changed.
        """
        s = self.settings
        with torch.no_grad():
            following = self.critic.encoder(batch.next_obs)
            chunk = self.actor(following, noise).clamp(-1, 1)
            out = self.target_members(torch.cat([following, chunk.flatten(1)], dim=1))
            value = aggregated(self.critic.head.mean(out), s.aggregate)
            target = td_target(batch.reward, batch.bootstrap, value, bounds=s.bounds)
        q = self.critic.q(batch.obs, action)
        loss = ensemble_loss(q, target, complete(batch.mask) if s.complete_only else None)
        value_of = step(self.critic_optimiser, loss, self.critic.parameters(), what="critic", max_norm=s.max_grad_norm)
        polyak_(self.target_members.parameters(), self.critic.members.parameters(), s.tau)
        q = q.detach()
        return {"critic/loss": value_of, "critic/q_mean": float(q.mean()), "critic/q_max": float(q.max())}

    def update_actor(self, batch: Batch, base: Tensor, noise: Tensor, *, climb: bool = True) -> dict[str, float]:
        """Take one actor step and return what to log.

        Args:
            batch: Transitions.
            base: [B, H, A], what the base makes of the noise, in the agent's unit.
            noise: [B, D].
            climb: Follow the critic; false only stays with the base.

        Raises:
            TrainingError: The loss is not finite; nothing was changed.
        """
        with torch.no_grad():
            features = self.critic.encoder(batch.obs)
        chunk = self.actor(features, noise)
        with frozen(self.critic):
            value = self.critic.q_of_features(features, chunk.clamp(-1, 1)).mean()
        apart = (chunk - base).square().mean()
        norm = self.settings.max_grad_norm
        loss = self.alpha * apart - value if climb else apart
        step(self.actor_optimiser, loss, self.actor.parameters(), what="actor", max_norm=norm)
        return {"actor/from_base": float(apart.detach()), "actor/value": float(value.detach())}


class DistilledAlgorithm:
    """QC-FQL on a frozen base.

    Args:
        encoder: As of `robot_rl.rl.chunk_algorithms.ChunkAlgorithm`, and so are the next four.
        scaler: Between physical actions and the agent's unit.
        names: Observations that the encoder reads.
        sampler: The frozen base.
        cache: Keeps the base's answers on disk; `None` draws them again after a restart.
        settings: How the critic learns.
        alpha: Weight of staying with the base; depends on the task, as in the paper (100 is common there).
        horizon: H, actions that are judged and executed together.
        n_candidates: Answers of the base kept for each observation; each update uses one of them.
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
        alpha: float = 10.0,
        horizon: int = 5,
        n_candidates: int = 4,
        n_members: int = 2,
        hidden: Sequence[int] = (256, 256),
    ) -> None:
        a, c, d = len(scaler.half), features_of(encoder), int(np.prod(sampler.noise_shape))
        critic = QEnsemble(encoder, n_features=c, action_dim=a, horizon=horizon, n_members=n_members, hidden=hidden)
        actor = ChunkActor(c, d, horizon, a, hidden=hidden)
        self._agent = DistilledAgent(critic, actor, settings, alpha=alpha)
        self.agent: nn.Module = self._agent
        self._policy = DistilledPolicy(encoder, actor, scaler, names, sampler)
        self.policy: nn.Module = self._policy
        self.driver: Policy | None = self._policy
        self.prepare: Callable[[Episode], Episode] | None = CandidateLabels(
            sampler, n=n_candidates, horizon=horizon, cache=cache, with_noise=True
        )
        self.streams: Mapping[str, Sequence[int]] = {
            CANDIDATES: (n_candidates, horizon, a), CANDIDATE_NOISE: (n_candidates, d)
        }  # fmt: skip
        self.horizon, self.bounds, self._scaler = horizon, settings.bounds, scaler

    def update(self, batch: Batch, generator: torch.Generator, *, actor: bool) -> dict[str, float]:
        """Take a critic step, and an actor step, which only stays with the base unless asked for."""
        given = batch.extras[CANDIDATE_NOISE]  # [B, N, D]
        noise = standard_normal(given[:, 0], generator)
        values = self._agent.update_critic(batch, self._scaler.to_agent(batch.action), noise)
        rows = torch.arange(len(given), device=given.device)
        drawn = torch.randint(given.shape[1], (len(given),), generator=generator).to(given.device)
        base = self._scaler.to_agent(batch.extras[CANDIDATES][rows, drawn])
        values |= self._agent.update_actor(batch, base, given[rows, drawn], climb=actor)
        self._policy.updates += 1
        return values

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by name."""
        return {"critic": self._agent.critic_optimiser, "actor": self._agent.actor_optimiser}
