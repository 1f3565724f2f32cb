"""The batched ensemble is E critics, and its targets have the known answers (specs, off-policy: rows 4, 6-8, 12)."""

import itertools
import math

import pytest
import torch
from torch import nn

from robot_rl.errors import ConfigError
from robot_rl.rl.critic import QEnsemble, ensemble_loss, polyak_, subset_least, subset_min, td_target
from robot_rl.rl.ensemble import EnsembleMLP
from tests.contracts.critic import check_critic


class NewestState(nn.Module):
    """Features that are the newest state itself."""

    def forward(self, obs):
        return obs["state"][:, -1]


def make(n_members=5, horizon=1, **more):
    torch.manual_seed(0)
    return QEnsemble(
        NewestState(), n_features=3, action_dim=2, horizon=horizon, n_members=n_members, hidden=(16, 16), **more
    )


@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("layer_norm", [True, False])
def test_it_is_a_critic(horizon, layer_norm):
    generator = torch.Generator().manual_seed(1)
    obs = {"state": torch.randn(6, 2, 3, generator=generator)}
    check_critic(make(horizon=horizon, layer_norm=layer_norm), obs, torch.randn(6, horizon, 2, generator=generator))


def test_each_member_is_the_network_its_own_weights_make():
    ensemble = EnsembleMLP(3, 4, 2, hidden=(8, 8))
    x = torch.randn(5, 4)
    got = ensemble(x)
    for e in range(3):
        layers = []
        for layer in ensemble.layers:
            if isinstance(layer, nn.ReLU):
                layers.append(layer)
                continue
            weight, bias = layer.weight[e].detach(), layer.bias[e, 0].detach()
            if weight.shape[0] == 1:
                one = nn.LayerNorm(weight.shape[-1])
                one.weight.data, one.bias.data = weight[0], bias
            else:
                one = nn.Linear(*weight.shape)
                one.weight.data, one.bias.data = weight.T, bias
            layers.append(one)
        torch.testing.assert_close(nn.Sequential(*layers)(x), got[e])


def test_members_learn_apart_from_each_other():
    ensemble = EnsembleMLP(4, 3, 1, hidden=(8,))
    x = torch.randn(10, 3)
    ensemble(x)[2].sum().backward()
    for p in ensemble.parameters():
        touched = p.grad.flatten(1).abs().sum(1) > 0
        assert not touched[[0, 1, 3]].any()


def test_layer_norm_bounds_what_is_said_of_unseen_actions():
    critic, obs = make(), {"state": torch.zeros(1, 1, 3)}
    far = max(float(critic.q(obs, scale * torch.randn(1, 1, 2)).detach().abs().max()) for scale in (1e2, 1e4, 1e6))
    head = critic.members.layers[-1]
    bound = head.weight.detach().norm(dim=1).max() * math.sqrt(16) + head.bias.detach().abs().max()
    assert far <= float(bound)


def test_the_least_of_a_random_pair_has_the_known_mean():
    q = torch.tensor([5.0, 3.0, 4.0, 9.0])[:, None]
    assert float(q.mean()) == 5.25
    pairs = [min(a, b) for a, b in itertools.combinations(q[:, 0].tolist(), 2)]
    assert sum(pairs) / 6 == pytest.approx(11 / 3)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([subset_min(q, 2, generator) for _ in range(6000)])
    assert set(drawn.flatten().tolist()) == set(pairs)
    assert float(drawn.mean()) == pytest.approx(11 / 3, abs=0.03)
    assert subset_min(q, 4).item() == 3
    assert subset_least(q, 4).item() == 1
    kept = {int(subset_least(q, 2, generator)) for _ in range(200)}
    assert kept == {0, 1, 2}, "the largest of four is never the least of a pair"
    with pytest.raises(ConfigError, match=r"must be in \[1, 4\], got 5"):
        subset_min(q, 5)


def test_the_loss_is_the_mean_of_squares_and_leaves_members_alone():
    q = torch.tensor([[1.0], [3.0]], requires_grad=True)
    loss = ensemble_loss(q, torch.zeros(1))
    loss.backward()
    assert loss.item() == 5
    assert q.grad.flatten().tolist() == [1.0, 3.0]


def test_polyak_averages_move_by_the_known_amount():
    target, online = [torch.zeros(2)], [torch.ones(2)]
    for _ in range(3):
        polyak_(target, online, 0.005)
    assert target[0].tolist() == pytest.approx([0.014925125] * 2, rel=1e-5)


def test_targets_are_clipped_to_what_a_value_can_be():
    y = td_target(torch.tensor([0.0, 1.0]), torch.tensor([0.9, 0.0]), torch.tensor([5.0, 5.0]), bounds=(0.0, 1.0))
    assert y.tolist() == [1.0, 1.0]
    assert td_target(torch.tensor([0.0]), torch.tensor([0.9]), torch.tensor([5.0])).item() == pytest.approx(4.5)
