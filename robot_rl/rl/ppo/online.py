"""Proximal policy optimisation of a denoising chain from whole episodes: one update, and all that it changes.

DPPO (Ren et al. 2024, arXiv 2409.00588) and RL-100's online stage (Lei et al. 2025, arXiv 2510.14830) are two settings
of it (`robot_rl.rl.ppo.objective`). Log-densities of the policy that acted are not recorded but computed again from the
recorded chain, by the code that computes the new ones and in the minibatches of the first pass, so that the first ratio
is 1 to the bit.

Departures: one optimiser step for all tuned steps together, where RL-100's code takes one for each; the policy stops at
a bound of the divergence; rewards are scaled by a constant, where DPPO divides by a running deviation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from robot_rl.data.windows import WindowBatch
from robot_rl.errors import TrainingError
from robot_rl.imitation.metrics import to_tensors
from robot_rl.rl.actor import Played
from robot_rl.rl.optimise import descend
from robot_rl.rl.ppo.companion import Companion
from robot_rl.rl.ppo.decisions import Decisions, decisions
from robot_rl.rl.ppo.gae import explained_variance, gae
from robot_rl.rl.ppo.objective import (
    adapted_lr,
    clipped_value_loss,
    executed_rows,
    normalised,
    surrogate,
)
from robot_rl.rl.ppo.rollouts import Player
from robot_rl.rl.ppo.settings import PpoSettings
from robot_rl.rl.ppo.tally import Tally
from robot_rl.rl.ppo.tunable import TunableChain
from robot_rl.rl.ppo.value import StateValue
from robot_rl.values import Episode


@dataclass(frozen=True)
class _Known:
    """What an update knows of its decisions before it begins.

    Args:
        cond: [M, C], or `None` while the encoder learns too.
        old: [M, T, n, A], log-densities of the policy that acted; zero for decisions that a person took.
        advantage: [M], normalised.
        target: [M], what the critic is to say.
        value: [M], what it said.
    """

    cond: Tensor | None
    old: Tensor
    advantage: Tensor
    target: Tensor
    value: Tensor


class PpoOnline:
    """Chain, critic and their optimisers. `collect` plays, `update` learns; nothing else is kept between the two.

    Args:
        chain: Is tuned in place: its denoiser, and its encoder if asked. It is in evaluation mode throughout.
        critic: Is trained in place.
        settings: How.
        seed: Of minibatches and of the imitation term's noise.
        companion: A one-step head that follows the policy, a step a minibatch; `None` for none.
    """

    def __init__(
        self,
        chain: TunableChain,
        critic: StateValue,
        settings: PpoSettings,
        *,
        seed: int = 0,
        companion: Companion | None = None,
    ) -> None:
        chain.eval()
        self.companion = companion
        self.chain, self.critic, self.settings = chain, critic, settings
        self.rows = executed_rows(chain, settings.n_execute)
        for parameter in chain.parameters():
            parameter.requires_grad_(False)
        self._tuned = [*chain.denoiser.parameters(), *(chain.encoder.parameters() if settings.train_encoder else ())]
        for parameter in self._tuned:
            parameter.requires_grad_(True)
        self._critical = [p for p in critic.parameters() if p.requires_grad]
        self.actor_optimiser = torch.optim.Adam(self._tuned, lr=settings.actor_lr)
        self.critic_optimiser = torch.optim.Adam(self._critical, lr=settings.critic_lr)
        self.generator = torch.Generator().manual_seed(seed)
        self.updates, self.warm, self.lr = 0, False, settings.actor_lr

    def collect(
        self,
        player: Player,
        seeds: Sequence[int],
        episode_of: Callable[[str], Episode],
        *,
        version: str = "",
        on_done: Callable[[Played], None] | None = None,
    ) -> Decisions:
        """Play one episode a seed with the chain as it is and return the decisions taken.

        Args:
            player: Of the same chain.
            seeds: Of the episodes.
            episode_of: Opens an episode that the player's sink took, by its id.
            version: Name of the weights, for the recording.
            on_done: Called after each episode.
        """
        played = player.play(seeds, version, self.updates, on_done=on_done)
        return self.decisions([episode_of(one.id) for one in played], player)

    def decisions(self, episodes: Sequence[Episode], player: Player) -> Decisions:
        """Return the decisions of episodes that were played already."""
        s, n_obs = self.settings, self.chain.n_obs
        return decisions(episodes, player.spec, n_obs=n_obs, n_execute=s.n_execute, gamma=s.gamma)

    def update(
        self, batch: Decisions, *, share: float = 0.0, demonstrations: Iterator[WindowBatch] | None = None
    ) -> dict[str, float]:
        """Learn from decisions that the chain as it is took, and return what to log.

        Args:
            batch: The decisions; no older ones.
            share: How much of the run is over, in [0, 1], for the linear schedule.
            demonstrations: Batches for the imitation term.

        Raises:
            TrainingError: A loss or gradient is not finite. Weights and optimisers are those of before the update.
        """
        weights = copy.deepcopy(self.modules().state_dict())
        states = {name: copy.deepcopy(o.state_dict()) for name, o in self.optimisers().items()}
        try:
            values = self._update(batch, share, demonstrations)
        except TrainingError:
            self.modules().load_state_dict(weights)
            for name, optimiser in self.optimisers().items():
                optimiser.load_state_dict(states[name])
            raise
        self.updates += 1
        return values

    def modules(self) -> nn.ModuleDict:
        """Return chain, critic and, if there is one, head as one module, as a checkpoint holds them."""
        parts = {"chain": cast(nn.Module, self.chain), "critic": self.critic}
        return nn.ModuleDict(parts if self.companion is None else {**parts, "head": self.companion.head})

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by name."""
        ours: dict[str, torch.optim.Optimizer] = {"actor": self.actor_optimiser, "critic": self.critic_optimiser}
        return ours if self.companion is None else {**ours, "head": self.companion.optimiser}

    def state(self) -> dict[str, Any]:
        """Return the numbers that a checkpoint holds beside weights and optimisers, as plain JSON."""
        return {"updates": self.updates, "warm": self.warm, "lr": self.lr}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take what `state` returned."""
        self.updates, self.warm, self.lr = int(state["updates"]), bool(state["warm"]), float(state["lr"])

    def _update(self, batch: Decisions, share: float, demonstrations: Iterator[WindowBatch] | None) -> dict[str, float]:
        s = self.settings
        first = self._minibatches(len(batch))
        known = self._know(batch, first)
        explained = explained_variance(known.value.numpy(), known.target.numpy())
        self.warm = self.warm or explained > s.warm_up_variance or self.updates >= s.warm_up_updates
        self._set_lr(share)
        tally, moving = Tally(), self.warm
        noise = torch.Generator().manual_seed(self.updates)  # the head's own: the policy learns the same
        for epoch in range(s.epochs):
            tally.begin()
            for index in first if epoch == 0 else self._minibatches(len(batch)):
                self._critic_step(batch, known, index, tally)
                moving = moving and self._actor_step(batch, known, index, demonstrations, tally)
                if self.companion is not None:
                    row = torch.as_tensor(batch.row)[index]
                    tally.add(self.companion.follow(_seen(batch, row, self.chain.action_low.device), noise))
        if s.lr_schedule == "kl" and (kl := tally.last("ppo/kl")) is not None:
            low, high = s.lr_bounds
            self.lr = adapted_lr(self.lr, kl, target=s.kl_target, low=low, high=high)
        return {
            **tally.means(), "critic/explained_variance": explained, "critic/value": float(known.value.mean()),
            "critic/target": float(known.target.mean()), "ppo/lr": self.actor_optimiser.param_groups[0]["lr"],
            "ppo/warm": float(self.warm), "ppo/decisions": float(len(batch)),
        }  # fmt: skip

    def _minibatches(self, n: int) -> list[Tensor]:
        return list(torch.split(torch.randperm(n, generator=self.generator), self.settings.minibatch))

    def _set_lr(self, share: float) -> None:
        lr = self.lr * max(0.0, 1.0 - share) if self.settings.lr_schedule == "linear" else self.lr
        for group in self.actor_optimiser.param_groups:
            group["lr"] = lr

    @torch.no_grad()
    def _know(self, batch: Decisions, minibatches: Sequence[Tensor]) -> _Known:
        s, row = self.settings, torch.as_tensor(batch.row)
        said = self.critic.values(batch.obs)
        value, after = said[row], said[row + 1]
        advantage, target = gae(
            batch.reward * s.reward_scale, batch.bootstrap, value.double().numpy(), after.double().numpy(),
            batch.continues, lam=s.lam,
        )  # fmt: skip
        ours = torch.as_tensor(batch.by_policy)
        standard = torch.zeros(len(batch))
        standard[ours] = normalised(torch.as_tensor(advantage[batch.by_policy], dtype=torch.float32))
        cond = (
            None
            if s.train_encoder
            else torch.cat([self._encode(batch, part) for part in torch.split(row, s.minibatch)])
        )
        shape = (len(batch), self.chain.n_tuned, s.n_execute, self.chain.action_dim)
        known = _Known(cond, torch.zeros(shape), standard, torch.as_tensor(target, dtype=torch.float32), value)
        for index in minibatches:
            if len(mine := index[ours[index]]):
                known.old[mine] = self._log_prob(batch, known, mine).cpu()
        return known

    def _encode(self, batch: Decisions, row: Tensor) -> Tensor:
        return self.chain.encode(_seen(batch, row, self.chain.action_low.device))

    def _log_prob(self, batch: Decisions, known: _Known, index: Tensor) -> Tensor:
        """Return the log-densities [B, T, n, A] of the decisions at `index` under the chain as it is."""
        row = torch.as_tensor(batch.row)[index]
        cond = self._encode(batch, row) if known.cond is None else known.cond[index]
        return self.chain.transition_log_prob(cond, batch.chain[index].to(cond.device))[:, :, self.rows]

    def _critic_step(self, batch: Decisions, known: _Known, index: Tensor, tally: Tally) -> None:
        device, s = next(self.critic.parameters()).device, self.settings
        value = self.critic(_seen(batch, torch.as_tensor(batch.row)[index], device))
        target, old = known.target[index].to(device), known.value[index].to(device)
        clipped = () if s.value_clip is None else (old, s.value_clip)
        loss = clipped_value_loss(value, target, *clipped)
        norm = descend(self.critic_optimiser, loss, self._critical, s.grad_norm, what="critic")
        tally.add({"critic/loss": float(loss.detach()), "critic/grad_norm": norm})

    def _actor_step(
        self, batch: Decisions, known: _Known, index: Tensor, demonstrations: Iterator[WindowBatch] | None, tally: Tally
    ) -> bool:
        """Take a step of the policy; return false where it has gone far enough and none was taken."""
        s = self.settings
        index = index[torch.as_tensor(batch.by_policy)[index]]
        if len(index) == 0:
            return True
        new = self._log_prob(batch, known, index)
        old = known.old[index].to(new.device)
        executed = batch.executed[index].to(new.device)[:, None, :, None]
        found = surrogate(torch.where(executed, new, old), old, known.advantage[index].to(new.device), s.clip)
        kl = float(found.kl.mean())
        tally.add({"ppo/kl": kl, "ppo/kl_noisiest": float(found.kl[0]), "ppo/kl_last": float(found.kl[-1])})
        tally.add({"ppo/clip_fraction": float(found.clip_fraction), "ppo/ratio_max": float(found.ratio_max)})
        tally.once("ppo/first_ratio_max", float(found.ratio_max))
        if kl > s.kl_stop:
            tally.once("ppo/stopped_at_epoch", float(tally.epoch))
            return False
        loss = found.loss
        if s.bc_weight > 0 and demonstrations is not None:
            imitation = self._imitation(next(demonstrations), new.device)
            loss = loss + s.bc_weight * imitation
            tally.add({"ppo/imitation": float(imitation.detach())})
        norm = descend(self.actor_optimiser, loss, self._tuned, s.grad_norm, what="policy")
        tally.add({"ppo/loss": float(found.loss.detach()), "ppo/grad_norm": norm})
        return True

    def _imitation(self, batch: WindowBatch, device: torch.device) -> Tensor:
        obs, target, mask = to_tensors(batch, device)
        noise = torch.randn(target.shape, generator=self.generator).to(device)
        return self.chain.loss(obs, target, noise, torch.rand(len(target), generator=self.generator).to(device), mask)


def _seen(batch: Decisions, row: Tensor, device: torch.device) -> dict[str, Tensor]:
    """Return the observations {name: [B, O, ...]} of rows of a batch."""
    return {name: values[row].to(device) for name, values in batch.obs.items()}
