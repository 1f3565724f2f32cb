"""Exploration of step policies: noise within its bounds, correlated as asked, anew in each episode."""

import numpy as np
import pytest
import torch
from torch import nn

from robot_rl.errors import ConfigError
from robot_rl.rl.actions import ActionScaler
from robot_rl.rl.residual import ResidualActor
from robot_rl.rl.steps import ResidualStep

SCALER = ActionScaler(np.zeros(2), np.ones(2))
OBS = {"x": np.zeros(3, np.float32)}
BASE = np.zeros(2, np.float32)


class Newest(nn.Module):
    def forward(self, obs):
        return obs["x"][:, -1]


def step(**arguments):
    return ResidualStep(Newest(), ResidualActor(3, 2, alpha=0.1), SCALER, ["x"], **arguments)


def draws(policy, n, seed=0, how="explore"):
    rng = np.random.default_rng(seed)
    policy.reset()
    return np.array([getattr(policy, how)(OBS, BASE, rng) for _ in range(n)])


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_exploration_has_the_spread_and_the_correlation_asked_for(correlation):
    noise = draws(step(noise=0.1, correlation=correlation), 20_000)[:, 0]
    assert noise.std() == pytest.approx(0.1, rel=0.06)
    assert np.corrcoef(noise[1:], noise[:-1])[0, 1] == pytest.approx(correlation, abs=0.02)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_warm_up_is_uniform_within_its_half_width_whatever_the_correlation(correlation):
    noise = draws(step(warm_up_noise=0.2, correlation=correlation), 20_000, how="warm_up")
    assert np.abs(noise).max() <= 0.2
    assert np.quantile(noise, [0.25, 0.5, 0.75]) == pytest.approx([-0.1, 0.0, 0.1], abs=0.012)


def test_an_episode_draws_nothing_from_the_one_before():
    policy = step(noise=0.1, correlation=0.9)
    first = draws(policy, 5)
    draws(policy, 3, seed=1)
    assert np.array_equal(draws(policy, 5), first)


def test_a_correlation_of_one_which_would_never_change_is_refused():
    with pytest.raises(ConfigError, match="correlation"):
        step(correlation=1.0)


def test_a_correction_lasts_with_its_noise_and_follows_the_base():
    policy, rng = step(noise=0.1, warm_up_noise=0.2, hold=4), np.random.default_rng(0)
    for how in ("explore", "warm_up"):
        policy.reset()
        moved = np.array([getattr(policy, how)(OBS, BASE + 0.1 * t, rng) - 0.1 * t for t in range(8)])
        assert np.allclose(moved[:4], moved[0], atol=1e-6)
        assert np.allclose(moved[4:], moved[4], atol=1e-6)
        assert np.abs(moved[4] - moved[0]).max() > 1e-3
    policy.reset()
    assert policy.held == 0


def test_a_kept_correction_never_takes_the_total_out_of_the_unit():
    policy = step(warm_up_noise=0.2, hold=4)
    rng = np.random.default_rng(0)
    policy.reset()
    for base in (BASE + 5, BASE, BASE + 0.99, BASE - 5):
        total = policy.warm_up(OBS, base, rng)
        assert np.abs(total).max() <= 1
        assert np.abs(total - np.clip(base, -1, 1)).max() <= 0.2 + 1e-6


def test_wide_elements_explore_in_proportion_to_their_bound():
    actor = ResidualActor(3, 2, alpha=0.1, wide=[-1], wide_alpha=0.5)
    noise = draws(ResidualStep(Newest(), actor, SCALER, ["x"], noise=0.02), 4000)
    assert noise.std(0) == pytest.approx([0.02, 0.1], rel=0.1)


def test_the_average_acts_and_the_learning_actor_explores():
    learning, average = ResidualActor(3, 2, alpha=0.1), ResidualActor(3, 2, alpha=0.1)
    with torch.no_grad():
        learning.layers[-1].bias.fill_(9.0)
    policy = ResidualStep(Newest(), learning, SCALER, ["x"], noise=0.0, average=average)
    assert policy.act(OBS, BASE).tolist() == [0.0, 0.0]
    assert policy.explore(OBS, BASE, np.random.default_rng(0)).tolist() == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize("hold", [0, -1])
def test_a_hold_below_one_tick_is_refused(hold):
    with pytest.raises(ConfigError, match="`hold` must be at least 1 tick"):
        step(hold=hold)


def test_the_deterministic_action_takes_no_noise():
    policy = step(noise=0.1)
    assert torch.equal(torch.from_numpy(policy.act(OBS, BASE)), torch.zeros(2))
