"""Off-policy evaluation: a system worked out by hand, ends that stay ended, starts that are spread, pairs."""

import dataclasses

import pytest
import torch
from torch import nn

from robot_rl.rl.offline.dynamics import EnsembleDynamics
from robot_rl.rl.offline.dynamics_fit import fit_dynamics
from robot_rl.rl.offline.gate import GateSettings
from robot_rl.rl.offline.iql import IqlCritic, fit_critic
from robot_rl.rl.offline.ope import PHASES, Rollouts, choose_starts
from robot_rl.rl.offline.policy import OfflinePolicy
from tests.rl.offline.small import DYNAMICS, IQL, chain, choices


class Added(EnsembleDynamics):
    """s' = s + a with reward 1, ending with a chance that is given."""

    def __init__(self, ended: float) -> None:
        super().__init__(1, 1, 1, n_members=2, n_elites=2, hidden=(4,))
        self.ended = ended

    def step(self, cond, action, member, noise):
        return cond + action[:, 0], torch.ones(len(cond)), torch.full((len(cond),), self.ended)


class Squared(IqlCritic):
    """Q = -s^2."""

    def __init__(self) -> None:
        super().__init__(1, 1, 1, IQL)

    def q(self, cond, action):
        return -cond.square()[:, 0].expand(2, -1)


class Proportional(OfflinePolicy):
    """a = -gain s."""

    def __init__(self, gain: float) -> None:
        super().__init__(chain(), n_execute=1)
        self.gain = gain

    def act(self, cond, generator):
        return -self.gain * cond[:, None]


def rollouts(ended=0.0, horizon=3, n=4):
    starts = dataclasses.replace(choices(n), cond=torch.full((n, 1), 2.0))
    return Rollouts(starts, Added(ended), Squared(), horizon=horizon, gamma=0.9, seed=0)


@pytest.mark.parametrize(
    ("gain", "score", "accepted"), [(0.5, -5.25, False), (0.6, -4.7424, True), (0.52, -5.133937, False)]
)
def test_the_sum_of_action_values_of_a_known_system_and_what_a_margin_of_a_twentieth_makes_of_it(gain, score, accepted):
    found = rollouts().score(Proportional(gain)).of("am_q")
    assert found.tolist() == pytest.approx([score] * 4, abs=1e-5)
    margin = GateSettings(absolute=1e-6).margin(-5.25)
    assert -5.25 + margin == pytest.approx(-4.9875)
    assert (float(found.mean()) - -5.25 >= margin) == accepted


def test_the_value_is_discounted_rewards_and_what_the_critic_expects_of_the_last_state():
    value = rollouts().score(Proportional(0.5)).of("value")
    assert value.tolist() == pytest.approx([1 + 0.9 + 0.81 - 0.9**3 * 0.25**2] * 4)


def test_a_rollout_that_has_ended_adds_nothing_more_and_is_not_dropped():
    scores = rollouts(ended=1.0).score(Proportional(0.5))
    assert scores.of("value").tolist() == [1.0] * 4
    assert scores.of("am_q").tolist() == [-4.0] * 4


def test_a_chance_to_have_ended_weighs_what_follows():
    scores = rollouts(ended=0.5, horizon=2).score(Proportional(0.5))
    assert scores.of("value").tolist() == pytest.approx([1 + 0.9 * 0.5 + 0.81 * 0.25 * -0.25] * 4)
    assert scores.of("am_q").tolist() == pytest.approx([-4 + 0.5 * -1] * 4)


def test_starts_are_spread_over_outcomes_and_phases():
    data = choices(600)
    rare = (torch.arange(600) // 2) < 20  # 20 episodes of 300 succeeded
    data = dataclasses.replace(data, success=rare, phase=torch.rand(600, generator=torch.Generator().manual_seed(0)))
    starts = choose_starts(data, 64, seed=0)
    counts = [int(((starts.phase * PHASES).long() == p).logical_and(starts.success == won).sum())
              for won in (True, False) for p in range(PHASES)]  # fmt: skip
    assert sum(counts) == len(starts) == 64
    assert max(counts) - min(counts) <= 2, counts
    assert len(choose_starts(data, 10_000, seed=0)) == 600, "all there are"


@pytest.fixture(scope="module")
def fitted():
    data = choices(200)
    dynamics = fit_dynamics(data, dataclasses.replace(DYNAMICS, epochs=3), seed=0)
    critic = fit_critic(data, dataclasses.replace(IQL, steps=50), seed=1)
    return data, dynamics, critic


def test_the_same_policy_scores_the_same_to_the_last_bit_and_members_are_shared_out_evenly(fitted):
    data, dynamics, critic = fitted
    made = Rollouts(data, dynamics, critic, horizon=2, gamma=0.9, seed=0, batch_size=64)
    one = made.score(OfflinePolicy(chain(), 1))
    two = made.score(OfflinePolicy(chain(), 1))
    assert torch.equal(one.value, two.value)
    assert torch.equal(one.am_q, two.am_q)
    counts = torch.bincount(made.member)
    assert set(made.member.tolist()) == set(dynamics.elites.tolist())
    assert int(counts.max()) == 100
    other = Rollouts(data, dynamics, critic, horizon=2, gamma=0.9, seed=1).score(OfflinePolicy(chain(), 1))
    assert not torch.equal(one.value, other.value)


def test_what_is_evaluated_is_what_is_deployed():
    model = chain()
    policy, cond = OfflinePolicy(model, 1), torch.randn(5, 1, generator=torch.Generator().manual_seed(3))
    drawn = policy.act(cond, torch.Generator().manual_seed(4))
    g = torch.Generator().manual_seed(4)
    noise, fresh = torch.randn(5, 1, 1, generator=g), torch.randn(5, 3, 1, 1, generator=g)
    packed = torch.cat([noise, fresh.flatten(1, 2)], dim=1)
    with torch.no_grad():
        assert torch.equal(drawn, model.sample_normalised({"x": cond[:, None]}, packed))


def test_densities_of_the_policy_that_drew_have_ratio_one():
    policy = OfflinePolicy(chain(horizon=2), 1)
    cond = torch.randn(5, 1, generator=torch.Generator().manual_seed(3))
    states = policy.draw(cond, torch.Generator().manual_seed(4))
    first, again = policy.log_prob(cond, states), policy.log_prob(cond, states)
    assert first.shape == (5, 3, 1, 1), "the executed row alone"
    assert torch.equal(first, again)
    assert isinstance(policy.chain, nn.Module)
