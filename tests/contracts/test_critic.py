from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from tests.contracts.critic import check_critic


class QuadraticCritic:
    """Linear-quadratic ensemble: Q_e = -|u - K_e x|^2 - x'x over the chunk's first action u and the newest state x.

    Its greedy action is K_e x and its value there -x'x, in closed form.
    """

    def __init__(self, gains: Tensor) -> None:
        self.gains = gains  # [E, A, S]
        self.n_members = len(gains)

    def q(self, obs: Mapping[str, Tensor], action: Tensor) -> Tensor:
        x, u = obs["state"][:, -1], action[:, 0]
        miss = u - torch.einsum("eas,bs->eba", self.gains, x)  # [E, B, A]
        return -miss.square().sum(-1) - x.square().sum(-1)


@pytest.fixture
def batch() -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"state": torch.randn(5, 2, 3, generator=generator)}, torch.randn(5, 4, 2, generator=generator)


@pytest.fixture
def critic() -> QuadraticCritic:
    return QuadraticCritic(torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(1)))


def test_a_quadratic_critic_passes(critic, batch):
    check_critic(critic, *batch)


def test_its_greedy_action_and_value_have_closed_forms(critic, batch):
    obs, action = batch
    x = obs["state"][:, -1]
    for e in range(3):
        greedy = action.clone()
        greedy[:, 0] = x @ critic.gains[e].T
        torch.testing.assert_close(critic.q(obs, greedy)[e], -x.square().sum(-1))
        greedy.requires_grad_()
        (gradient,) = torch.autograd.grad(critic.q(obs, greedy)[e].sum(), greedy)
        assert gradient.abs().max() < 1e-5


class MeanOverBatch(QuadraticCritic):
    """Broken: normalises over the batch."""

    def q(self, obs, action):
        q = super().q(obs, action)
        return q - q.mean(1, keepdim=True)


class Transposed(QuadraticCritic):
    """Broken: [B, E]."""

    def q(self, obs, action):
        return super().q(obs, action).T


class Blind(QuadraticCritic):
    """Broken: a state value."""

    def q(self, obs, action):
        return super().q(obs, action * 0)


@pytest.mark.parametrize(
    ("broken", "message"),
    [(MeanOverBatch, "not close"), (Transposed, r"q must be \[E, B\] = \(3, 5\)"), (Blind, "depend on its own action")],
)
def test_the_kit_finds_what_is_broken(broken, message, critic, batch):
    with pytest.raises(AssertionError, match=message):
        check_critic(broken(critic.gains), *batch)
