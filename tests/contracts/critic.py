"""What every `Critic` must hold: call `check_critic` with one and a batch it understands."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from robot_rl.interfaces import Critic


def check_critic(critic: Critic, obs: Mapping[str, Tensor], action: Tensor) -> None:
    """Assert the contract of an ensemble of action values.

    Args:
        critic: The critic.
        obs: {name: [B, O, ...]} with B >= 2 rows that differ.
        action: [B, H, A].
    """
    assert isinstance(critic, Critic)
    batch = len(action)
    assert batch >= 2, "the kit needs a batch of at least two"
    given = {name: value.clone() for name, value in obs.items()}, action.clone()
    q = critic.q(obs, action)
    assert q.shape == (critic.n_members, batch), f"q must be [E, B] = {(critic.n_members, batch)}, got {tuple(q.shape)}"
    assert q.dtype == action.dtype
    assert torch.isfinite(q).all()
    assert torch.equal(q, critic.q(obs, action)), "the same question must get the same answer"
    assert torch.equal(action, given[1]), "q must not change its inputs"
    assert all(torch.equal(obs[name], given[0][name]) for name in obs), "q must not change its inputs"
    _check_rows_are_independent(critic, obs, action, q)
    _check_gradient_reaches_the_action(critic, obs, action)


def _check_rows_are_independent(critic: Critic, obs: Mapping[str, Tensor], action: Tensor, q: Tensor) -> None:
    """A row's value depends on that row alone: reversing the batch reverses the answer, one row alone is the same."""
    reverse = {name: value.flip(0) for name, value in obs.items()}
    torch.testing.assert_close(critic.q(reverse, action.flip(0)), q.flip(1))
    first = {name: value[:1] for name, value in obs.items()}
    torch.testing.assert_close(critic.q(first, action[:1]), q[:, :1])


def _check_gradient_reaches_the_action(critic: Critic, obs: Mapping[str, Tensor], action: Tensor) -> None:
    """Policy improvement follows dQ/da, row by row and member by member."""
    wanted = action.clone().requires_grad_()
    for value in critic.q(obs, wanted)[:, 0]:
        (gradient,) = torch.autograd.grad(value, wanted, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert gradient[0].abs().sum() > 0, "the value must depend on its own action"
        assert gradient[1:].abs().sum() == 0, "the value must not depend on other rows' actions"
