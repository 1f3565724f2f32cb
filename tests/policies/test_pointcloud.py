"""The point-cloud encoder: what it must not see (order, copies), what it normalises, what it exports."""

import functools

import numpy as np
import pytest
import torch

from policies.encoders import CompositeEncoder, StateEncoder
from policies.export import export_bundle
from policies.flow import FlowModel
from policies.mlp import ResidualMLP
from policies.pointcloud import PointCloudEncoder
from policies.torch_policy import TorchPolicy
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.errors import ConfigError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import PolicyInput
from tests.contracts.chunk_model import check_chunk_model
from tests.policies.helpers import field_stats

P = 24
BOX = [[0.0, -1.0, 0.0], [2.0, 1.0, 0.5]]


def robot(width: int = 3, **more) -> RobotSpec:
    arrays = {"point_cloud": ArraySpec(name="point_cloud", shape=(P, width), unit="m")} | more
    return RobotSpec(name="rig", obs=arrays, action=ActionSpec(name="action", shape=(2,)), control_hz=10)


def clouds(*lead: int, width: int = 3, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    scale, low = torch.tensor([2.0, 2.0, 0.5, 1, 1, 1])[:width], torch.tensor([0.0, -1.0, 0, 0, 0, 0])[:width]
    return torch.rand(*lead, P, width, generator=g) * scale + low


def encoder(**settings) -> PointCloudEncoder:
    torch.manual_seed(0)
    return PointCloudEncoder(robot(), {}, **{"n_obs": 2, "box": BOX} | settings)


def test_neither_order_nor_copies_of_points_change_the_features():
    net, cloud = encoder().eval(), clouds(3, 2)
    order = torch.randperm(P, generator=torch.Generator().manual_seed(1))
    once = net({"point_cloud": cloud})
    assert torch.equal(net({"point_cloud": cloud[:, :, order]}), once)
    half = cloud[:, :, : P // 2]
    repeated = half.repeat(1, 1, 2, 1)
    with_other = torch.cat([half, half[:, :, :1].expand(-1, -1, P - P // 2, -1)], dim=2)
    assert torch.equal(net({"point_cloud": repeated}), net({"point_cloud": with_other}))
    assert not torch.allclose(net({"point_cloud": repeated}), once)


def test_it_is_the_size_of_dp3s_encoder():
    assert sum(p.numel() for p in encoder().parameters()) == 59_072
    assert (encoder().step_dim, encoder().out_dim) == (64, 128)


def test_box_and_colours_are_mapped_to_plus_minus_one():
    net = PointCloudEncoder(robot(6), {}, n_obs=1, box=BOX)
    corners = torch.tensor(
        [[0.0, -1.0, 0.0, 0.0, 0.0, 0.0], [2.0, 1.0, 0.5, 1.0, 1.0, 1.0], [1.0, 0, 0.25, 0.5, 0.5, 0.5]]
    )
    torch.testing.assert_close(net.normalizer(corners), torch.tensor([-1.0, 1.0, 0.0])[:, None].expand(3, 6))


def test_without_a_box_the_extent_of_all_points_together_is_used():
    low, high = np.zeros((P, 3)), np.ones((P, 3))
    low[3, 0], high[7, 2] = -3.0, 5.0
    net = PointCloudEncoder(robot(), {"point_cloud": field_stats(low, high)}, n_obs=1)
    ends = torch.tensor([[-3.0, 0.0, 0.0], [1.0, 1.0, 5.0]])
    torch.testing.assert_close(net.normalizer(ends), torch.tensor([[-1.0] * 3, [1.0] * 3]))


def test_augmentation_acts_in_training_only_alike_over_the_steps_and_follows_the_seed():
    net = encoder(jitter_m=0.01, dropout=0.5)
    same = clouds(4, 1).expand(4, 2, P, 3)

    def features(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return net.steps({"point_cloud": same}).detach()

    net.train()
    assert torch.equal(features(1), features(1))
    assert not torch.equal(features(1), features(2))
    torch.testing.assert_close(features(1)[:, 0], features(1)[:, 1])
    net.eval()
    assert torch.equal(features(1), features(2))


def test_jitter_has_its_spread_and_dropout_leaves_copies_of_the_first_point():
    torch.manual_seed(0)
    cloud = clouds(200, 1)
    shifted = encoder(jitter_m=0.02)._augment(cloud)
    assert float((shifted - cloud).std()) == pytest.approx(0.02, rel=0.03)
    thinned = encoder(dropout=0.5)._augment(cloud)
    kept = (thinned == cloud).all(dim=-1)
    copies = (thinned == cloud[:, :, :1]).all(dim=-1)
    assert bool((kept | copies).all())
    share = 1 - kept.float().mean(dim=(1, 2))
    assert float(share.mean()) == pytest.approx(0.25, abs=0.03)
    assert 0.4 < float(share.max()) < 0.75


SPEC = robot(joint=ArraySpec(name="joint", shape=(2,), unit="rad"))
STATS = {
    "joint": field_stats([-1, -1], [1, 1]), "action": field_stats([-1, -1], [1, 1]),
    "point_cloud": field_stats(np.broadcast_to([0.0, -1, 0], (P, 3)), np.broadcast_to([2.0, 1, 0.5], (P, 3))),
}  # fmt: skip


def cloud_flow() -> FlowModel:
    torch.manual_seed(0)
    parts = [functools.partial(StateEncoder, names=["joint"]), functools.partial(PointCloudEncoder, dropout=0.3)]
    return FlowModel(
        SPEC, STATS, encoder=functools.partial(CompositeEncoder, parts=parts),
        denoiser=functools.partial(ResidualMLP, width=32, n_blocks=1, time_dim=16), n_obs=2, horizon=4, n_steps=3,
    )  # fmt: skip


def test_a_policy_that_sees_a_cloud_holds_the_contract():
    obs = {"point_cloud": clouds(3, 2), "joint": torch.rand(3, 2, 2)}
    check_chunk_model(cloud_flow(), obs, torch.rand(3, 4, 2))


@pytest.mark.slow
def test_the_exported_policy_is_the_torch_policy(tmp_path):
    model = cloud_flow()
    bundle = export_bundle(
        model,
        tmp_path / "bundle",
        spec=SPEC,
        stats=STATS,
        n_execute=2,
        config={},
        data_digest="d",
        created="2026-01-01",
    )
    obs = {"point_cloud": clouds(2).numpy(), "joint": np.zeros((2, 2), np.float32)}
    given = PolicyInput(obs=obs, stamp_ns=0, noise=np.ones((4, 2), np.float32))
    mine, theirs = OnnxPolicy(bundle).act(given), TorchPolicy(model, SPEC, n_execute=2).act(given)
    np.testing.assert_allclose(mine.action, theirs.action, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (
            lambda: PointCloudEncoder(robot(4), {}, n_obs=1, box=BOX),
            r"float \(P, 3\) or \(P, 6\), got float32\(24, 4\)",
        ),
        (lambda: PointCloudEncoder(robot(), {}, n_obs=1), "needs a `box` or statistics"),
        (lambda: encoder(box=[[0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]), "low < high"),
        (lambda: encoder(dropout=1.0), r"`dropout` in \[0, 1\)"),
        (lambda: encoder(jitter_m=-1.0), "`jitter_m` >= 0"),
        (lambda: encoder(name="cloud"), "needs the observation `cloud`"),
    ],
)
def test_bad_settings_say_what_was_expected(build, text):
    with pytest.raises(ConfigError, match=text):
        build()
