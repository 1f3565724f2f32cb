"""Bottleneck and reconstruction: known values, and where the randomness is and is not."""

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn

from policies.bottleneck import BottleneckEncoder, standard_normal_kl
from policies.encoders import CompositeEncoder, Encoder, StateEncoder, steps_for_loss
from policies.flow import FlowModel
from policies.mlp import ResidualMLP
from policies.pointcloud import PointCloudEncoder
from policies.reconstruction import CloudReconstruction, ImageReconstruction, StateReconstruction, chamfer
from policies.vision import ImageEncoder
from robot_rl.errors import ConfigError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from tests.contracts.chunk_model import check_chunk_model, draws
from tests.policies.helpers import field_stats

P = 20
BOX = [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]
SPEC = RobotSpec(
    name="rig",
    obs={
        "joint": ArraySpec(name="joint", shape=(3,), unit="rad"),
        "point_cloud": ArraySpec(name="point_cloud", shape=(P, 3), unit="m"),
        "cam": ArraySpec(name="cam", shape=(48, 48, 3), dtype="uint8"),
    },
    action=ActionSpec(name="action", shape=(2,)),
    control_hz=10,
)
STATS = {"joint": field_stats([-2] * 3, [2] * 3), "action": field_stats([-1, -1], [1, 1])}
JOINTS = functools.partial(StateEncoder, names=["joint"])
CLOUD = functools.partial(PointCloudEncoder, box=BOX, feature_dim=16)
REBUILD_JOINTS = functools.partial(StateReconstruction, names=["joint"])
REBUILD_CLOUD = functools.partial(CloudReconstruction, box=BOX, n_points=12, channels=(32,))


def observed(batch: int = 4, n_obs: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "joint": 4 * torch.rand(batch, n_obs, 3, generator=g) - 2,
        "point_cloud": 2 * torch.rand(batch, n_obs, P, 3, generator=g) - 1,
        "cam": torch.randint(0, 256, (batch, n_obs, 48, 48, 3), generator=g, dtype=torch.uint8),
    }


def bottleneck(**settings) -> BottleneckEncoder:
    torch.manual_seed(0)
    return BottleneckEncoder(SPEC, STATS, **{"n_obs": 2, "part": JOINTS, "dim": 5} | settings)


def test_divergence_from_the_standard_normal_by_hand():
    assert float(standard_normal_kl(torch.ones(7, 4), torch.zeros(7, 4))) == pytest.approx(2.0)
    wide = standard_normal_kl(torch.zeros(3, 2, 6), torch.full((3, 2, 6), math.log(4.0)))
    assert float(wide) == pytest.approx(6 * 0.806853, abs=1e-5)
    assert float(standard_normal_kl(torch.zeros(2, 9), torch.zeros(2, 9))) == 0.0


def test_divergence_agrees_with_torch_distributions():
    mu, log_var = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.linspace(-2, 2, 15).reshape(5, 3)
    normal = torch.distributions.Normal
    per_feature = torch.distributions.kl_divergence(normal(mu, (0.5 * log_var).exp()), normal(0.0, 1.0))
    torch.testing.assert_close(standard_normal_kl(mu, log_var), per_feature.sum(-1).mean())


def test_chamfer_by_hand_sums_both_ways_and_forgets_the_order():
    zero, one = torch.zeros(1, 1, 3), torch.tensor([[[1.0, 0.0, 0.0]]])
    assert float(chamfer(zero, one)) == 2.0
    a = torch.tensor([[[0.0, 0, 0], [2, 0, 0]]])
    b = torch.tensor([[[0.0, 1, 0], [2, 0, 0], [2, 0, 3]]])
    assert float(chamfer(a, b)) == pytest.approx((1 + 0) / 2 + (1 + 0 + 9) / 3)
    assert float(chamfer(b, a)) == pytest.approx(float(chamfer(a, b)))
    cloud = observed()["point_cloud"][:, 0]
    shuffled = cloud[:, torch.randperm(P, generator=torch.Generator().manual_seed(1))]
    assert float(chamfer(cloud, shuffled)) == 0.0


def test_chamfer_has_the_gradient_of_its_definition():
    a = observed()["point_cloud"][:2, 0].double().requires_grad_()
    b = observed(seed=1)["point_cloud"][:2, 1, :7].double()
    (mine,) = torch.autograd.grad(chamfer(a, b), a)
    gaps = (a[:, :, None] - b[:, None]).square().sum(-1)
    (whole,) = torch.autograd.grad(gaps.amin(2).mean() + gaps.amin(1).mean(), a)
    torch.testing.assert_close(mine, whole, rtol=1e-5, atol=1e-7)


def test_features_are_random_in_a_training_loss_only_with_the_spread_of_sigma():
    net, obs = bottleneck(), observed()
    nn.init.zeros_(net.log_var.weight)
    nn.init.constant_(net.log_var.bias, 2 * math.log(0.3))
    mean = net.steps(obs).detach()
    net.train()
    torch.manual_seed(1)
    first, _ = net.steps_for_loss(obs)
    torch.manual_seed(1)
    assert torch.equal(net.steps_for_loss(obs)[0], first)
    drawn = torch.stack([net.steps_for_loss(obs)[0] for _ in range(400)])
    assert float((drawn.detach() - mean).std()) == pytest.approx(0.3, rel=0.02)
    assert torch.equal(net.steps(obs), mean)
    assert torch.equal(net(obs), mean.flatten(1))
    net.eval()
    assert torch.equal(net.steps_for_loss(obs)[0], mean)


def test_cost_is_the_weighted_sum_of_divergence_and_errors():
    obs = observed()
    net = bottleneck(kl_weight=0.5, reconstruct=[REBUILD_JOINTS], reconstruct_weight=3.0).eval()
    features, cost = net.steps_for_loss(obs)
    inner = net.part.steps(obs)
    divergence = standard_normal_kl(net.mu(inner), net.log_var(inner))
    error = (net.reconstruct[0].decoder(features) - obs["joint"] / 2).square().mean()
    torch.testing.assert_close(cost, 0.5 * divergence + 3.0 * error)
    alone = bottleneck(kl_weight=None, dim=None, reconstruct=[REBUILD_JOINTS]).eval()
    assert torch.equal(alone.steps(obs), alone.part.steps(obs))
    torch.testing.assert_close(alone.steps_for_loss(obs)[1], 0.5 * alone.reconstruct[0](inner, obs))


def test_a_mixture_adds_up_the_costs_of_its_parts_and_others_cost_nothing():
    obs = observed()
    part = functools.partial(BottleneckEncoder, part=CLOUD)
    torch.manual_seed(0)
    mixture = CompositeEncoder(SPEC, STATS, n_obs=2, parts=[part, JOINTS, part]).eval()
    features, cost = steps_for_loss(mixture, obs)
    torch.testing.assert_close(features, mixture.steps(obs))
    costs = [steps_for_loss(part, obs)[1].detach() for part in mixture.parts]
    torch.testing.assert_close(cost.detach(), sum(costs))
    assert float(costs[1]) == 0.0
    assert min(float(costs[0]), float(costs[2])) > 0.0


def rebuilding(kind: str) -> Encoder:
    torch.manual_seed(0)
    part, head = {
        "state": (JOINTS, REBUILD_JOINTS),
        "cloud": (CLOUD, REBUILD_CLOUD),
        "image": (
            functools.partial(ImageEncoder, width=16, feature_dim=32),
            functools.partial(ImageReconstruction, name="cam", size=(16, 24), channels=16),
        ),
    }[kind]
    return BottleneckEncoder(SPEC, STATS, n_obs=2, part=part, kl_weight=1e-5, reconstruct=[head])


@pytest.mark.parametrize("kind", ["state", "cloud", "image"])
def test_learning_to_reconstruct_brings_the_error_down(kind):
    net, obs = rebuilding(kind).train(), observed(batch=3)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    errors = []
    for _ in range(60):
        _, cost = net.steps_for_loss(obs)
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
        errors.append(float(cost.detach()))
    assert np.mean(errors[-5:]) < 0.75 * errors[0]
    idle = [name for name, p in net.named_parameters() if p.grad is None]
    assert idle == []


def cloud_flow(**settings) -> FlowModel:
    torch.manual_seed(0)
    parts = [functools.partial(BottleneckEncoder, part=CLOUD, reconstruct=[REBUILD_CLOUD], **settings), JOINTS]
    return FlowModel(
        SPEC, STATS, encoder=functools.partial(CompositeEncoder, parts=parts),
        denoiser=functools.partial(ResidualMLP, width=32, n_blocks=1, time_dim=16), n_obs=2, horizon=4, n_steps=3,
    )  # fmt: skip


def test_a_policy_holds_the_contract_and_its_loss_has_the_encoders_cost_in_it():
    obs, target = observed(), torch.rand(4, 4, 2)
    check_chunk_model(cloud_flow(), obs, target)
    model = cloud_flow(kl_weight=1e-2).eval()
    noise, u = draws(model, 4)
    mask = torch.ones(4, 4, dtype=torch.bool)
    whole = model.loss(obs, target, noise, u, mask)
    free = cloud_flow(kl_weight=0.0, reconstruct_weight=0.0).eval()
    bare = free.loss(obs, target, noise, u, mask)
    torch.testing.assert_close(whole - bare, steps_for_loss(model.encoder, obs)[1])


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: bottleneck(kl_weight=-1.0), "must be 0 or more, got -1.0 and 0.5"),
        (lambda: bottleneck(kl_weight=None), "there is no bottleneck"),
        (lambda: ImageReconstruction(SPEC, {}, n_obs=1, in_dim=4, name="cam", size=(20, 16)), "multiples of 8"),
        (lambda: ImageReconstruction(SPEC, {}, n_obs=1, in_dim=4, name="cam", size=(16, 64)), "multiples of 8 within"),
        (lambda: ImageReconstruction(SPEC, {}, n_obs=1, in_dim=4, name="joint"), "`joint` must be a picture"),
    ],
)
def test_bad_settings_say_what_was_expected(build, text):
    with pytest.raises(ConfigError, match=text):
        build()
