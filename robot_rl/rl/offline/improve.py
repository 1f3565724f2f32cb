"""The offline loop: clipped policy-gradient steps on chains drawn from the incumbent, and a gate every so many of them.

States come from the data; chains, old densities and the actions that the critic values come from the incumbent pi_i
(RL-100, arXiv 2510.14830, section on offline RL):

    A = standardised min Q(s, a) - V(s) of the executed chunk,  loss = `robot_rl.rl.ppo.objective.surrogate`

every `gate_every` updates the gate decides: accepted, the policy becomes pi_i; rejected, weights and optimiser go back.
Departures: one optimiser step takes all denoising steps together, where the released code makes one for each; the
learning rate stays, but for the halvings after rejections; a pull to imitation, if wanted, is the divergence from the
policy that the stage began with, on the chains at hand.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from robot_rl.errors import ConfigError, TrainingError
from robot_rl.rl.offline.data import OfflineData
from robot_rl.rl.offline.gate import Gate, GateDecision, Incumbent
from robot_rl.rl.offline.iql import IqlCritic
from robot_rl.rl.offline.policy import OfflinePolicy
from robot_rl.rl.offline.stage import Stage
from robot_rl.rl.optimise import step
from robot_rl.rl.ppo.objective import ChainClip, k3, normalised, surrogate

Status = Literal["finished", "stopped"]
OnUpdate = Callable[[int, dict[str, float]], None]
OnGate = Callable[[GateDecision], None]


@dataclass(frozen=True, kw_only=True)
class ImproveSettings:
    """The loop's numbers.

    Args:
        updates: At most so many.
        gate_every: Updates between two decisions.
        batch_size: States of an update.
        lr: Learning rate at the start.
        max_norm: Bound of the gradient's norm.
        imitation: Weight of the divergence from the policy that the stage began with; 0 for none.
        advantage_sign: 1; -1 climbs down, a control that a gate must hold back.
    """

    updates: int = 2000
    gate_every: int = 50
    batch_size: int = 256
    lr: float = 1e-6
    max_norm: float = 0.5
    imitation: float = 0.0
    advantage_sign: int = 1

    def __post_init__(self) -> None:
        for name in ("updates", "gate_every", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if not self.lr > 0 or not self.max_norm > 0 or self.imitation < 0:
            raise ConfigError(
                f"need `lr` and `max_norm` above 0 and `imitation` 0 or more, got {self.lr}, {self.max_norm}, "
                f"{self.imitation}"
            )
        if self.advantage_sign not in (1, -1):
            raise ConfigError(f"`advantage_sign` must be 1 or -1, got {self.advantage_sign}")


class Improver:
    """One run of the loop; goes on from the last checkpoint in `folder`.

    The policy's weights are the incumbent's whenever `run` is not inside it, whatever ended it.

    Args:
        policy: The policy, whose denoiser is trained; its encoder is not.
        data: Where states come from.
        critic: Gives the advantages; not the gate's.
        gate: Decides.
        settings: The loop's numbers.
        clip: The objective's.
        seed: Of states and noise.
        folder: For checkpoints, after every decision; `None` for none.
        constants: What else must be the same when it goes on, plain JSON.
    """

    def __init__(
        self,
        policy: OfflinePolicy,
        data: OfflineData,
        critic: IqlCritic,
        gate: Gate,
        *,
        settings: ImproveSettings,
        clip: ChainClip,
        seed: int = 0,
        folder: str | Path | None = None,
        constants: Mapping[str, Any] | None = None,
    ) -> None:
        self.policy, self.data, self.critic, self.gate = policy, data, critic, gate
        self.settings, self.clip = settings, clip
        self.updates, self.rejected_in_a_row = 0, 0
        self._module = cast(nn.Module, policy.chain)
        self._module.requires_grad_(False)
        policy.chain.denoiser.requires_grad_(True)
        self._trained = list(policy.chain.denoiser.parameters())
        self._optimiser = torch.optim.AdamW(self._trained, lr=settings.lr, weight_decay=0.0)
        self._generator = torch.Generator().manual_seed(seed)
        self._first = OfflinePolicy(copy.deepcopy(policy.chain), policy.n_execute)
        bounds = None if clip.log_prob_bounds is None else list(clip.log_prob_bounds)
        fixed = {
            "settings": {k: v for k, v in asdict(settings).items() if k != "updates"},
            "clip": {**asdict(clip), "log_prob_bounds": bounds}, "gate": asdict(gate.settings), "seed": seed,
            "transitions": len(data), **({} if constants is None else constants),
        }  # fmt: skip
        self._stage = Stage(folder, self._module, self._optimiser, self._generator, constants=fixed)
        if (found := self._stage.restore()) is not None:
            self.updates, self.rejected_in_a_row = found[0], int(found[1]["rejected_in_a_row"])
        else:
            self._save()
        gate.go_on_after(self.updates)
        self._incumbent = Incumbent(self._module, self._optimiser)
        self._old = OfflinePolicy(copy.deepcopy(policy.chain), policy.n_execute)

    @property
    def status(self) -> Status | None:
        """How it ended; `None` while it has not."""
        if self.rejected_in_a_row >= self.gate.settings.stop_after:
            return "stopped"
        return "finished" if self.updates >= self.settings.updates else None

    @property
    def lr(self) -> float:
        """The learning rate as it is."""
        return float(self._optimiser.param_groups[0]["lr"])

    def run(self, on_update: OnUpdate | None = None, on_gate: OnGate | None = None) -> Status:
        """Improve until the updates are made or the gate stops it.

        Raises:
            TrainingError: A loss or an advantage is not finite; the policy is the incumbent again.
        """
        while (status := self.status) is None:
            try:
                values = self.update()
                if on_update is not None:
                    on_update(self.updates, values)
                if self.updates % self.settings.gate_every == 0 or self.updates >= self.settings.updates:
                    decision = self.decide()
                    if on_gate is not None:
                        on_gate(decision)
            except BaseException:
                self._incumbent.revert()
                raise
        return status

    def update(self) -> dict[str, float]:
        """Take one step and return what to log."""
        index = torch.randint(len(self.data), (self.settings.batch_size,), generator=self._generator)
        cond = self.data.cond[index]
        states = self._old.draw(cond, self._generator)
        with torch.no_grad():
            advantage = self._advantage(cond, self._old.executed(states))
            old = self._old.log_prob(cond, states)
        new = self.policy.log_prob(cond, states)
        found = surrogate(new, old, normalised(advantage), self.clip)
        loss = found.loss
        if self.settings.imitation > 0:
            loss = loss + self.settings.imitation * self._divergence(cond, states, new)
        value = step(self._optimiser, loss, self._trained, what="offline policy", max_norm=self.settings.max_norm)
        self.updates += 1
        return {
            "policy/loss": value, "policy/kl": float(found.kl.mean()), "policy/ratio_max": float(found.ratio_max),
            "policy/clip_fraction": float(found.clip_fraction), "policy/advantage_std": float(advantage.std()),
            "policy/advantage_positive": float((advantage > 0).float().mean()), "policy/lr": self.lr,
        }  # fmt: skip

    def _advantage(self, cond: Tensor, action: Tensor) -> Tensor:
        advantage = self.settings.advantage_sign * self.critic.advantage(cond, action)
        if not bool(torch.isfinite(advantage).all()):
            raise TrainingError(
                "the critic's advantages are not finite, so nothing can be learned from them and nothing was changed; "
                "look for NaN in observations and rewards, or lower the critic's learning rate, and fit it anew"
            )
        return advantage

    def _divergence(self, cond: Tensor, states: Tensor, new: Tensor) -> Tensor:
        """Return how far the policy is from the one that the stage began with, per step."""
        with torch.no_grad():
            first = self._first.log_prob(cond, states)
        return k3((first - new).flatten(2).sum(dim=-1)).mean()

    def decide(self) -> GateDecision:
        """Ask the gate, accept or go back, and save."""
        decision = self.gate.judge(self.policy, self._old, update=self.updates)
        if decision.accepted:
            self.rejected_in_a_row = 0
            self._incumbent.keep()
            cast(nn.Module, self._old.chain).load_state_dict(self._module.state_dict())
        else:
            self.rejected_in_a_row += 1
            self._incumbent.revert()
            if self.rejected_in_a_row % self.gate.settings.halve_after == 0:
                for group in self._optimiser.param_groups:
                    group["lr"] /= 2
                self._incumbent.keep()  # the same weights and state, the new learning rate
        self._save()
        return decision

    def _save(self) -> None:
        self._stage.save(self.updates, rejected_in_a_row=self.rejected_in_a_row)
