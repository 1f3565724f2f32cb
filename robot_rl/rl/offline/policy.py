"""A chain model as the offline stage sees it: drawn and scored by one and the same law of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from robot_rl.rl.ppo.objective import executed_rows
from robot_rl.rl.ppo.tunable import TunableChain


class Chain(TunableChain, Protocol):
    """What the offline stage needs of `policies.chain.DenoisingChain`."""

    n_steps: int
    """K."""

    @property
    def std(self) -> list[float]:
        """Std of each of the K steps."""

    def normalised(self, obs: Mapping[str, Tensor], action: Tensor) -> Tensor:
        """Return physical chunks [B, H, A] as the network sees them."""


class OfflinePolicy:
    """Draws chains and densities of the executed rows from conditions.

    The law of every step is the chain's `mean_std`, which the deployed policy samples by too; so are the noise of the
    last step and the start. What deployment adds, holding actions to the range of the training data, is left out here.

    Args:
        chain: The model.
        n_execute: n, actions executed of a chunk.
    """

    def __init__(self, chain: Chain, n_execute: int) -> None:
        self.chain, self.n_execute = chain, n_execute
        self.rows = executed_rows(chain, n_execute)

    def draw(self, cond: Tensor, generator: torch.Generator) -> Tensor:
        """Return chains [B, K' + 1, H, A] under conditions [B, C], without gradient."""
        shape = (self.chain.horizon, self.chain.action_dim)
        noise = torch.randn(len(cond), *shape, generator=generator)
        fresh = torch.randn(len(cond), self.chain.n_steps, *shape, generator=generator)
        with torch.no_grad():
            return self.chain.states(cond, noise, fresh)

    def executed(self, states: Tensor) -> Tensor:
        """Return the executed rows [B, n, A] of the chunks that chains end in."""
        return states[:, -1, self.rows]

    def act(self, cond: Tensor, generator: torch.Generator) -> Tensor:
        """Return executed actions [B, n, A]."""
        return self.executed(self.draw(cond, generator))

    def log_prob(self, cond: Tensor, states: Tensor) -> Tensor:
        """Return the log-density of each element of the executed rows of each tuned step, [B, K', n, A]."""
        return self.chain.transition_log_prob(cond, states)[:, :, self.rows]
