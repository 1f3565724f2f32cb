"""Decoupled chunk critics: implicit losses and masks with the known answers (specs, off-policy: rows 51-54)."""

import numpy as np
import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.rl.critic import QEnsemble, TdTarget
from robot_rl.rl.decoupled import (
    DecoupledAgent,
    DecoupledBatch,
    DecoupledSettings,
    ProbabilityHead,
    expectile_cross_entropy,
    expectile_loss,
    quantile_loss,
)
from robot_rl.rl.returns import segments
from tests.contracts.critic import check_critic
from tests.rl.reach import Newest

LOGITS = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0], dtype=torch.float64)


def root(loss_of, low, high):
    """Return where the gradient of the summed loss vanishes, by bisection."""
    for _ in range(60):
        half = (low + high) / 2
        middle = torch.tensor(half, dtype=torch.float64, requires_grad=True)
        loss_of(middle).sum().backward()
        low, high = (half, high) if middle.grad < 0 else (low, half)
    return low


def test_expectiles_weigh_what_lies_above_and_settle_at_kappa_between_0_and_1():
    two = torch.tensor([2.0, -2.0])
    assert expectile_loss(torch.zeros(2), two, 0.8).tolist() == pytest.approx([3.2, 0.8])
    for kappa in (0.5, 0.7, 0.8, 0.9):
        settled = root(lambda v, k=kappa: expectile_loss(v, torch.tensor([0.0, 1.0]), k), 0.0, 1.0)
        assert settled == pytest.approx(kappa, abs=1e-6)


@pytest.mark.parametrize(("targets", "settles"), [((0.2, 0.6), 0.52), ((0.0, 1.0), 0.8)])
def test_the_weighted_cross_entropy_is_stationary_at_the_expectile(targets, settles):
    wanted = torch.tensor(targets, dtype=torch.float64)
    logit = root(lambda v: expectile_cross_entropy(v.expand(2), wanted, 0.8), -6.0, 6.0)
    assert torch.sigmoid(torch.tensor(logit)).item() == pytest.approx(settles, abs=1e-6)


def test_quantiles_pass_through_the_logit_and_expectiles_do_not():
    q = torch.sigmoid(LOGITS)
    median = root(lambda v: quantile_loss(v.expand(5), q, 0.5), -5.0, 5.0)
    assert median == pytest.approx(0.0, abs=1e-6)
    assert q.median().item() == pytest.approx(0.5)
    of_logits = root(lambda v: expectile_loss(v, LOGITS, 0.9), -5.0, 5.0)
    of_values = root(lambda v: expectile_loss(v, q, 0.9), 0.0, 1.0)
    assert torch.sigmoid(torch.tensor(of_logits)).item() == pytest.approx(0.87248, abs=1e-5)
    assert of_values == pytest.approx(0.78403, abs=1e-5)


def test_a_saturated_target_has_a_finite_logit():
    loss = quantile_loss(torch.zeros(2), torch.tensor([0.0, 1.0]), 0.9)
    assert torch.isfinite(loss).all()
    assert loss.tolist() == pytest.approx([0.1 * np.log(1e5), 0.9 * np.log(1e5)], rel=1e-3)


def test_a_goal_inside_the_chunk_pays_and_ends_and_one_at_its_end_is_left_to_the_value():
    def first(goal):
        reward = np.zeros(40)
        reward[goal] = 1.0
        found = segments(reward[: goal + 1], n=25, gamma=0.999, terminated=True)
        return found.reward[0], float(found.bootstrap[0] > 0), found.bootstrap[0]

    assert first(2)[:2] == (pytest.approx(0.998001), 0.0)
    assert first(0)[:2] == (pytest.approx(1.0), 0.0)
    assert first(25) == (0.0, 1.0, pytest.approx(0.999**25))


def make(horizon=4, partial=2, **settings):
    torch.manual_seed(0)
    short = QEnsemble(
        Newest(), n_features=17, action_dim=1, horizon=partial, n_members=2, hidden=(32, 32), head=ProbabilityHead
    )
    chosen = DecoupledSettings(**{"lr": 3e-3, "tau": 0.05, **settings})
    return DecoupledAgent(short, n_features=17, horizon=horizon, hidden=(32, 32), settings=chosen)


def data(b=256, seed=0, bootstrap=0.0):
    """Chunks of four actions; the tail's first action decides the reward, which the short critic cannot see."""
    generator = torch.Generator().manual_seed(seed)
    action = torch.rand(b, 4, 1, generator=generator) * 2 - 1
    x = {"x": torch.zeros(b, 1, 1)}
    reward = torch.where((action[:, 0, 0] > 0) & (action[:, 2, 0] > 0), 0.9, 0.1)
    return DecoupledBatch(x, action, reward, torch.full((b,), bootstrap), x)


def test_the_short_critic_is_a_critic_of_probabilities():
    obs = {"x": torch.randn(5, 1, 1, generator=torch.Generator().manual_seed(0))}
    critic = make().partial
    check_critic(critic, obs, torch.randn(5, 2, 1, generator=torch.Generator().manual_seed(1)))
    q = critic.q(obs, 100 * torch.ones(5, 2, 1))
    assert ((q >= 0) & (q <= 1)).all()


@pytest.mark.slow
def test_the_short_critic_is_told_the_best_continuation_and_the_value_the_best_action():
    agent = make(distil=0.9, backup=0.9)
    for seed in range(700):
        agent.update(data(seed=seed))
    obs = {"x": torch.zeros(2, 1, 1)}
    good, bad = agent.partial.q(obs, torch.tensor([[[0.6], [0.0]], [[-0.6], [0.0]]])).mean(0).tolist()
    # From a good prefix half of the tails pay 0.9 and half 0.1: the 0.9-expectile is 0.82, the mean 0.5.
    assert good == pytest.approx(0.82, abs=0.06)
    assert bad == pytest.approx(0.1, abs=0.06)
    value = torch.sigmoid(agent.value(torch.cat([torch.zeros(1, 1), agent.partial.encoder(obs)[:1, 1:]], dim=1)))
    assert value.item() == pytest.approx(good, abs=0.08)


def test_a_target_bootstraps_from_the_value_and_stays_a_probability():
    agent, batch = make(), data(bootstrap=0.9)
    value = torch.sigmoid(agent.value(agent.partial.encoder(batch.next_obs)))[0, :, 0]
    assert torch.allclose(agent._target(batch), (batch.reward + 0.9 * value).clamp(0, 1))
    assert float(agent._target(data(bootstrap=50.0)).max()) == 1.0


def test_only_the_short_critic_has_a_target_and_every_part_learns():
    agent = make(implicit="expectile")
    before = {name: p.clone() for name, p in agent.named_parameters()}
    values = agent.update(data())
    assert set(values) >= {"critic/loss", "critic/distil_loss", "critic/value_loss", "critic/q_max"}
    moved = {name.split(".")[0] for name, p in agent.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"partial", "long_members", "value", "target_members"}
    assert not any(p.requires_grad for p in agent.target_members.parameters())


def test_the_heads_target_and_loss_are_those_of_probabilities():
    head, out = ProbabilityHead(2), torch.tensor([[[0.0]], [[2.0]]])
    target = head.target(out, torch.tensor([0.4]), torch.tensor([0.9]), subset=2, bounds=(-5.0, 5.0))
    assert target.mean.item() == pytest.approx(0.4 + 0.9 * 0.5)
    assert head.target(out, torch.tensor([0.9]), torch.tensor([0.9]), subset=2).mean.item() == 1.0
    loss = head.loss(torch.zeros(2, 1, 1), TdTarget(torch.tensor([0.3])))
    assert loss.item() == pytest.approx(np.log(2), abs=1e-6)
    assert head.improved(out).item() == pytest.approx((0.5 + torch.sigmoid(torch.tensor(2.0)).item()) / 2)


def test_settings_and_horizons_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"`distil` must be in \[0.5, 1\), got 1"):
        DecoupledSettings(distil=1.0)
    with pytest.raises(ConfigError, match="`implicit` must be `quantile` or `expectile`, got 'mean'"):
        DecoupledSettings(implicit="mean")
    with pytest.raises(ConfigError, match="at least 2, got 1"):
        make(horizon=1)
    plain = QEnsemble(Newest(), n_features=17, action_dim=1, n_members=2, hidden=(8,))
    with pytest.raises(ConfigError, match="`ProbabilityHead`"):
        DecoupledAgent(plain, n_features=17, horizon=1, hidden=(8,), settings=DecoupledSettings())
