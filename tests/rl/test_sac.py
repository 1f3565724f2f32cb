"""Known answers of soft actor-critic (specs, off-policy: rows 48, 49), and that it learns a bandit."""

import math

import pytest
import torch
from torch import nn

from robot_rl.errors import ConfigError, TrainingError
from robot_rl.rl.critic import QEnsemble
from robot_rl.rl.sac import GaussianActor, SacAgent, SacBatch, SacSettings, tanh_gaussian_log_prob


class Newest(nn.Module):
    def forward(self, obs):
        return obs["x"][:, -1]


def make(n_members=2, **settings):
    torch.manual_seed(0)
    critic = QEnsemble(Newest(), n_features=2, action_dim=1, n_members=n_members, hidden=(64, 64))
    return SacAgent(critic, GaussianActor(2, 1, hidden=(64, 64)), SacSettings(**settings))


def batch(b=64, reward=None):
    g = torch.Generator().manual_seed(1)
    x, action = torch.rand(b, 1, 2, generator=g) * 2 - 1, torch.rand(b, 1, generator=g) * 2 - 1
    given = -(action[:, 0] - x[:, 0, 0]).square() if reward is None else torch.full((b,), reward)
    return SacBatch(obs={"x": x}, action=action, reward=given, bootstrap=torch.zeros(b), next_obs={"x": x})


def test_log_probabilities_of_the_squashed_gaussian():
    zero, u = torch.zeros(1, 1, dtype=torch.float64), torch.tensor([[0.5]], dtype=torch.float64)
    assert float(tanh_gaussian_log_prob(u, zero, zero)) == pytest.approx(-0.80370952, abs=1e-8)
    assert float(tanh_gaussian_log_prob(zero, zero, zero)) == pytest.approx(-0.91893853, abs=1e-8)
    far = torch.tensor([[20.0]], dtype=torch.float64)
    correction = float(tanh_gaussian_log_prob(far, far, zero)) + 0.5 * math.log(2 * math.pi)
    assert correction == pytest.approx(38.61370564, abs=1e-7)


def test_log_probabilities_integrate_to_one():
    action = torch.linspace(-0.9999, 0.9999, 200_001, dtype=torch.float64)
    u = torch.atanh(action)[:, None]
    density = tanh_gaussian_log_prob(u, torch.full_like(u, 0.3), torch.full_like(u, -0.5)).exp()
    assert float(torch.trapezoid(density, action)) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize(("target", "sign"), [(5.0, 1.0), (-5.0, -1.0)])
def test_the_temperature_rises_when_entropy_is_below_its_target_and_falls_above_it(target, sign):
    agent, data = make(target_entropy=target, lr=0.1), batch()  # a squashed action's entropy is at most log 2
    agent.update_actor(data, torch.randn(64, 1, generator=torch.Generator().manual_seed(2)))
    moved = float(agent.log_temperature.detach())
    assert moved == pytest.approx(0.1 * sign, rel=1e-3)  # Adam's first step is the learning rate


def test_entropy_enters_the_target_only_when_asked_for():
    noise = torch.randn(64, 1, generator=torch.Generator().manual_seed(2))
    data = batch()
    data = SacBatch(data.obs, data.action, data.reward, torch.full((64,), 0.9), data.next_obs)
    plain = make()._target(data, noise).mean
    with_entropy = make(backup_entropy=True)._target(data, noise).mean
    agent = make()
    _, log_prob = agent.actor.sample(agent.critic.encoder(data.next_obs), noise)
    torch.testing.assert_close(with_entropy - plain, -0.9 * log_prob.detach())


def test_it_learns_which_action_pays():
    torch.manual_seed(0)
    agent = make(n_members=4, lr=3e-3, temperature=0.05)
    data = batch(512)
    for _ in range(400):
        agent.update_critic(data, torch.randn(512, 1))
        agent.update_actor(data, torch.randn(512, 1))
    miss = (agent.act(data.obs)[:, 0] - data.obs["x"][:, 0, 0]).abs().mean()
    assert float(miss) < 0.1  # a random action misses by 0.67


def test_a_loss_that_is_not_finite_stops_before_anything_changes():
    agent = make()
    before = [p.clone() for p in agent.parameters()]
    with pytest.raises(TrainingError, match="the critic's loss became nan"):
        agent.update_critic(batch(reward=float("nan")), torch.randn(64, 1))
    assert all(torch.equal(a, b) for a, b in zip(before, agent.parameters(), strict=True))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match=r"`subset` must be in \[1, 2\], got 3"):
        make(subset=3)
    with pytest.raises(ConfigError, match="`temperature` must be positive"):
        make(temperature=0.0)
