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
    noise = draws(step(noise=0.1, correlation=correlation), 4000)
    assert noise.std() == pytest.approx(0.1, rel=0.1)
    before, after = noise[:-1].ravel(), noise[1:].ravel()
    assert np.corrcoef(before, after)[0, 1] == pytest.approx(correlation, abs=0.04)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_warm_up_is_uniform_within_its_half_width_whatever_the_correlation(correlation):
    noise = draws(step(warm_up_noise=0.2, correlation=correlation), 4000, how="warm_up")
    assert np.abs(noise).max() <= 0.2
    assert np.quantile(noise, [0.25, 0.5, 0.75]) == pytest.approx([-0.1, 0.0, 0.1], abs=0.025)


def test_an_episode_draws_nothing_from_the_one_before():
    policy = step(noise=0.1, correlation=0.9)
    first = draws(policy, 5)
    draws(policy, 3, seed=1)
    assert np.array_equal(draws(policy, 5), first)


def test_a_correlation_of_one_which_would_never_change_is_refused():
    with pytest.raises(ConfigError, match="correlation"):
        step(correlation=1.0)


def test_the_deterministic_action_takes_no_noise():
    policy = step(noise=0.1)
    assert torch.equal(torch.from_numpy(policy.act(OBS, BASE)), torch.zeros(2))
