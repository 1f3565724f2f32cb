"""Implicit Q-learning: the expectile's closed forms, a tabular fixed point, targets that follow, a fit that goes on."""

import dataclasses
from dataclasses import replace

import pytest
import torch

from robot_rl.cli.finetune_offline import check_bounds
from robot_rl.errors import ConfigError, TrainingError
from robot_rl.rl.critic import polyak_
from robot_rl.rl.offline.iql import IqlCritic, IqlSettings, expectile_loss, fit_critic
from tests.rl.offline.small import BEST, IQL, choices


def expectile(values: list[float], tau: float) -> float:
    """Return the constant at which the loss has no slope, by bisection."""
    x, low, high = torch.tensor(values, dtype=torch.float64), min(values), max(values)
    for _ in range(40):
        v = torch.tensor((low + high) / 2, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(expectile_loss(x - v, tau).mean(), v)
        low, high = (low, v.item()) if slope > 0 else (v.item(), high)
    return low


def test_the_loss_weighs_what_lies_above_by_tau_and_what_lies_below_by_the_rest():
    u = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    assert expectile_loss(u, 0.7).tolist() == pytest.approx([0.7, 0.3, 2.8])


@pytest.mark.parametrize("tau", [0.5, 0.7, 0.9])
def test_the_expectile_of_nought_and_one_is_tau(tau):
    assert expectile([0.0, 1.0], tau) == pytest.approx(tau, abs=1e-6)


def test_the_expectile_of_four_numbers_is_the_one_worked_out_by_hand():
    assert expectile([0.0, 1.0, 2.0, 3.0], 0.7) == pytest.approx(1.9, abs=1e-6)


def test_one_state_with_two_final_actions_has_the_tabular_fixed_point():
    data = choices(200)
    action = torch.tensor([-1.0, 1.0]).repeat(100)
    data = dataclasses.replace(
        data, cond=torch.zeros(200, 1), action=action[:, None, None], reward=(action > 0).float()
    )
    settings = dataclasses.replace(IQL, steps=500, lr=3e-3, batch_size=200, polyak=0.05)
    critic = fit_critic(data, settings, seed=0)
    q = critic.q(torch.zeros(2, 1), torch.tensor([-1.0, 1.0])[:, None, None])
    assert q.amin(0).tolist() == pytest.approx([0.0, 1.0], abs=0.03)
    assert float(critic.v(torch.zeros(1, 1))) == pytest.approx(0.7, abs=0.05)
    advantage = critic.advantage(torch.zeros(2, 1), torch.tensor([-1.0, 1.0])[:, None, None])
    assert advantage.tolist() == pytest.approx([-0.7, 0.3], abs=0.06)


def test_a_target_that_follows_by_half_a_percent_is_there_by_two_fifths_after_a_hundred_steps():
    target, online = [torch.zeros(1, dtype=torch.float64)], [torch.ones(1, dtype=torch.float64)]
    polyak_(target, online, 0.005)
    assert float(target[0]) == pytest.approx(0.005)
    for _ in range(99):
        polyak_(target, online, 0.005)
    assert float(target[0]) == pytest.approx(0.394230, abs=1e-6)


def test_values_of_the_next_state_count_by_the_bootstrap_factor_alone():
    torch.manual_seed(0)
    critic = IqlCritic(1, 1, 1, dataclasses.replace(IQL, n_members=1))
    data = choices(4)
    ended, going_on = dataclasses.replace(data, bootstrap=torch.zeros(4)), dataclasses.replace(
        data, bootstrap=torch.full((4,), 0.81)
    )  # fmt: skip
    q = critic.q(data.cond, data.action)[0]
    expected = (q - data.reward - 0.81 * critic.v(data.next_cond)).square().mean()
    assert critic.losses(going_on)[1].item() == pytest.approx(expected.item(), rel=1e-5)
    assert critic.losses(ended)[1].item() == pytest.approx((q - data.reward).square().mean().item(), rel=1e-5)


def test_a_fitted_critic_prefers_the_better_action():
    critic = fit_critic(choices(), IQL, seed=0)
    action = torch.tensor([-0.4, 0.0, BEST])[:, None, None]
    q = critic.q(torch.zeros(3, 1), action).amin(0)
    assert q[0] < q[1] < q[2]


def test_a_fit_that_was_cut_off_ends_as_one_that_was_not(tmp_path):
    settings, data = dataclasses.replace(IQL, steps=60, checkpoint_every=20), choices(100)

    def die(n, _):
        if n == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_critic(data, settings, seed=3, folder=tmp_path, on_step=die)
    again = fit_critic(data, settings, seed=3, folder=tmp_path)
    whole = fit_critic(data, settings, seed=3)
    for a, b in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


def test_rewards_that_are_not_numbers_end_the_fit_with_an_error():
    data = choices(100)
    with pytest.raises(TrainingError, match="offline critic's loss became nan"):
        fit_critic(dataclasses.replace(data, reward=data.reward * torch.nan), IQL, seed=0)


def test_an_expectile_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"`expectile` must be in \[0.5, 1\), got 1.0"):
        IqlSettings(expectile=1.0)


def test_a_critic_of_other_features_is_not_gone_on_with(tmp_path):
    data, settings = choices(40), replace(IQL, steps=2, checkpoint_every=1)
    fit_critic(data, settings, seed=3, folder=tmp_path, belongs_to={"base": "one"})
    fit_critic(data, settings, seed=3, folder=tmp_path, belongs_to={"base": "one"})
    with pytest.raises(ConfigError, match="`base` was 'one' and is now 'other'"):
        fit_critic(data, settings, seed=3, folder=tmp_path, belongs_to={"base": "other"})


def test_rewards_beyond_the_bounds_of_the_targets_are_refused():
    data = choices(40)  # rewards of 0 and below
    check_bounds(data, None)
    check_bounds(data, (-10.0, 0.0))
    with pytest.raises(ConfigError, match=r"`algo.critic.bounds` must hold every value there can be, got \[0.0, 1.0\]"):
        check_bounds(data, (0.0, 1.0))
