"""The head that learns how returns are spread: known answers (specs, off-policy: row 56) and what it learns."""

from functools import partial

import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.rl.critic import QEnsemble, TdTarget
from robot_rl.rl.distributional import GaussianHead, clipped_return, item_weight
from robot_rl.rl.sac import GaussianActor, SacAgent, SacBatch, SacSettings
from tests.contracts.critic import check_critic
from tests.rl.test_critic import NewestState

EXACT = partial(GaussianHead, rate=1.0)


def raw(mean, std):
    """Return outputs [E, B, 2] that stand for the given means and standard deviations [E, B]."""
    std = torch.as_tensor(std)
    return torch.stack([torch.as_tensor(mean), std + torch.log(-torch.expm1(-std))], dim=-1)


def critic(**more):
    torch.manual_seed(0)
    return QEnsemble(NewestState(), n_features=3, action_dim=2, n_members=2, hidden=(16, 16), head=EXACT, **more)


def test_it_is_a_critic():
    obs = {"state": torch.randn(6, 1, 3, generator=torch.Generator().manual_seed(1))}
    check_critic(critic(), obs, torch.randn(6, 1, 2, generator=torch.Generator().manual_seed(2)))


def test_a_spread_item_counts_less_within_bounds():
    got = item_weight(torch.tensor([2.0, 1.0, 10.0]), torch.tensor([1.0, 10.0, 0.1]))
    assert got.tolist() == pytest.approx([3.636364, 0.1, 10.0], rel=1e-6)


def test_a_drawn_target_far_away_is_held_to_three_spreads():
    assert clipped_return(torch.tensor(20.0), torch.tensor(5.0), torch.tensor(2.0)).item() == 11
    assert clipped_return(torch.tensor(-20.0), torch.tensor(5.0), torch.tensor(2.0)).item() == -1
    assert clipped_return(torch.tensor(6.0), torch.tensor(5.0), torch.tensor(2.0)).item() == 6


@pytest.mark.parametrize(("calibrated", "settles"), [(False, 0.7071), (True, 1.0)])
def test_the_standard_deviation_settles_where_its_gradient_vanishes(calibrated, settles):
    z = torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    head = GaussianHead(1, calibrated=calibrated)
    head.spread += 1e4  # no clip

    def slope(std):
        width = torch.full((1, len(z)), std, requires_grad=True)
        out = torch.stack([torch.zeros(1, len(z)), width + torch.log(-torch.expm1(-width))], dim=-1)
        head.loss(out, TdTarget(torch.zeros(len(z)), z)).backward()
        return float(width.grad.sum())

    low, high = 0.3, 2.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    assert low == pytest.approx(settles, abs=0.005)


def test_the_mean_learns_from_the_expected_target_and_the_spread_from_the_drawn_one():
    out = raw(torch.zeros(1, 1), torch.ones(1, 1)).requires_grad_()
    head = GaussianHead(1, rate=1.0)
    head.loss(out, TdTarget(torch.tensor([0.5]), torch.tensor([2.0]))).backward()
    weight = float(item_weight(torch.tensor(1.0), torch.tensor(1.0)))
    assert out.grad[0, 0, 0].item() == pytest.approx(weight * -0.5)  # 2.0 plays no part
    by_std = weight * (1 - 4) / 1.1  # (sigma^2 - error^2) / (sigma + 0.1)
    assert out.grad[0, 0, 1].item() == pytest.approx(by_std * float(torch.sigmoid(out.detach()[0, 0, 1])), rel=1e-5)


def test_the_next_distribution_is_the_one_with_the_smaller_mean_and_its_own_sample():
    out = raw(torch.tensor([[5.0, 1.0], [3.0, 2.0]]), torch.tensor([[1.0, 2.0], [0.5, 4.0]]))
    target = GaussianHead(2).target(
        out, torch.tensor([1.0, 0.0]), torch.tensor([0.9, 0.5]), subset=2, noise=torch.tensor([2.0, -50.0])
    )
    assert target.mean.tolist() == pytest.approx([1 + 0.9 * 3, 0.5 * 1])
    assert target.sample.tolist() == pytest.approx([1 + 0.9 * (3 + 2 * 0.5), 0.5 * (1 - 3 * 2)])  # noise held to 3
    with pytest.raises(ConfigError, match="`noise` must be standard normal"):
        GaussianHead(2).target(out, torch.zeros(2), torch.zeros(2), subset=2)


def test_the_running_spread_starts_at_the_first_batch_and_then_moves_slowly():
    head = GaussianHead(2, rate=0.25)
    for std in (2.0, 4.0):
        head.loss(raw(torch.zeros(2, 3), torch.full((2, 3), std)), TdTarget(torch.zeros(3), torch.zeros(3)))
    assert head.spread.tolist() == pytest.approx([2.5, 2.5])
    with pytest.raises(ConfigError, match=r"must be in \(0, 1\], got 0"):
        GaussianHead(2, rate=0)


def test_it_learns_the_mean_and_the_spread_of_a_noisy_reward():
    head = partial(GaussianHead, rate=0.05)
    torch.manual_seed(0)
    model = QEnsemble(NewestState(), n_features=3, action_dim=2, n_members=2, hidden=(16, 16), head=head)
    agent = SacAgent(model, GaussianActor(3, 2, hidden=(16, 16)), SacSettings(lr=3e-3))
    generator = torch.Generator().manual_seed(0)
    for _ in range(600):
        state = torch.randn(256, 1, 3, generator=generator)
        reward = 2.0 + 0.5 * torch.randn(256, generator=generator)
        batch = SacBatch({"state": state}, torch.zeros(256, 2), reward, torch.zeros(256), {"state": state})
        agent.update_critic(batch, torch.zeros(256, 2), torch.zeros(256))
    out = model.out_of_features(state[:, -1], torch.zeros(256, 1, 2))
    assert model.head.mean(out).mean().item() == pytest.approx(2.0, abs=0.05)
    assert model.head.std(out).mean().item() == pytest.approx(0.5, abs=0.05)


def test_the_actor_climbs_the_least_mean_of_the_members():
    out = raw(torch.tensor([[5.0, 1.0], [3.0, 2.0]]), torch.ones(2, 2))
    assert GaussianHead(2).improved(out).tolist() == [3.0, 1.0]
