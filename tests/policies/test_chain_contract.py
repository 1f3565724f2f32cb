"""The contract kit of chains, on a chain small enough to write down: x' = 0.5 x + w + 0.3 z, three times."""

import math

import pytest
import torch
from torch import nn

from tests.contracts.chain_model import check_chain_model
from tests.policies.helpers import HORIZON, batch


class HalvingChain(nn.Module):
    """A ChainModel in closed form."""

    n_obs, horizon, action_dim, action_offset = 2, HORIZON, 2, 0

    def __init__(self, std: float = 0.3, claimed: float | None = None):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.1, -0.2]))
        self.std, self.claimed = std, std if claimed is None else claimed

    def mean(self, x, obs):
        return 0.5 * x + self.w * obs["agent_pos"][:, -1:] / 512

    def chain(self, obs, noise, step_noise):
        states = [noise]
        for k in range(step_noise.shape[1]):
            states.append(self.mean(states[-1], obs) + self.std * step_noise[:, k])
        return torch.stack(states, dim=1)

    def log_prob(self, obs, chain):
        means = torch.stack([self.mean(chain[:, k], obs) for k in range(chain.shape[1] - 1)], dim=1)
        z = (chain[:, 1:] - means) / self.claimed
        return (-0.5 * z.square() - math.log(self.claimed * math.sqrt(2 * math.pi))).flatten(2).sum(dim=-1)

    def sample(self, obs, noise):
        return self.chain(obs, noise, torch.zeros(len(noise), 3, HORIZON, 2))[:, -1]

    def loss(self, obs, target, noise, u, mask):
        error = (self.sample(obs, noise) - target).square().mean(dim=-1)
        return torch.where(mask, error, torch.zeros_like(error)).sum() / mask.sum().clamp(min=1)


def test_kit_passes_a_right_chain():
    check_chain_model(HalvingChain(), *batch(), n_steps=3)


def test_kit_finds_a_log_probability_that_is_not_of_the_chain():
    with pytest.raises(AssertionError, match="not close"):
        check_chain_model(HalvingChain(claimed=0.31), *batch(), n_steps=3)
