"""Pictures: crops, pooling, the network."""

import pytest
import torch
from torch import nn

from policies.vision import Crop, ImageEncoder, SpatialSoftmax, resnet18
from robot_rl.errors import ConfigError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec


def robot(**shapes) -> RobotSpec:
    arrays = {name: ArraySpec(name=name, shape=shape, dtype="uint8") for name, shape in shapes.items()}
    return RobotSpec(name="rig", obs=arrays, action=ActionSpec(name="action", shape=(1,)), control_hz=10)


def pictures(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def numbered(b, o, h, w):
    """Pictures whose value says row and column, the same in every sample and step."""
    grid = torch.arange(h)[:, None] * 100.0 + torch.arange(w)
    return grid.expand(b, o, 1, h, w)


def test_crop_is_the_middle_in_evaluation():
    out = Crop((10, 12), (6, 8)).eval()(numbered(1, 2, 10, 12))
    assert torch.equal(out, numbered(1, 2, 10, 12)[..., 2:8, 2:10])


def test_crop_is_random_in_training_alike_for_the_steps_of_a_sample_and_covers_every_place():
    torch.manual_seed(0)
    out = Crop((10, 12), (6, 8)).train()(numbered(200, 2, 10, 12))
    corner = out[:, :, 0, 0, 0]  # [B, O]
    assert torch.equal(corner[:, 0], corner[:, 1])
    top, left = (corner[:, 0] // 100).long(), (corner[:, 0] % 100).long()
    assert (set(top.tolist()), set(left.tolist())) == (set(range(5)), set(range(5)))
    for i in (0, 1, 2):  # a window, not a shuffle
        expected = numbered(1, 2, 10, 12)[0, :, :, top[i] : top[i] + 6, left[i] : left[i] + 8]
        assert torch.equal(out[i], expected)


def test_encoder_is_random_in_training_only_and_follows_the_seed():
    torch.manual_seed(0)
    encoder = ImageEncoder(robot(cam=(48, 48, 3)), {}, n_obs=1, crop=(40, 40), width=16)
    obs = {"cam": pictures(1, 1, 48, 48, 3)}

    def features(seed):
        torch.manual_seed(seed)
        return encoder(obs).detach()

    encoder.train()
    assert len({tuple(features(seed)[0].tolist()) for seed in range(6)}) > 1
    assert torch.equal(features(1), features(1))
    encoder.eval()
    assert len({tuple(features(seed)[0].tolist()) for seed in range(6)}) == 1


def test_spatial_softmax_points_at_the_peak():
    pool = SpatialSoftmax(1, (5, 7), 1)
    nn.init.constant_(pool.nets.weight, 1.0)
    nn.init.zeros_(pool.nets.bias)
    for row, col in ((0, 0), (4, 6), (2, 3), (1, 5)):
        x = torch.zeros(1, 1, 5, 7)
        x[0, 0, row, col] = 100.0
        torch.testing.assert_close(pool(x)[0], torch.tensor([2 * col / 6 - 1, 2 * row / 4 - 1]))
    torch.testing.assert_close(pool(torch.zeros(1, 1, 5, 7)), torch.zeros(1, 2))


def test_resnet_has_group_norm_of_sixteen_channels_and_the_known_size():
    net = resnet18(3)
    norms = [m for m in net.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 20
    assert all(m.num_channels // m.num_groups == 16 for m in norms)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert sum(p.numel() for p in net.parameters()) == 11_176_512  # torchvision's resnet18 without its classifier
    keys = set(net.state_dict())
    assert {"0.weight", "1.weight", "4.0.conv1.weight", "5.0.downsample.0.weight", "7.1.bn2.bias"} <= keys


@pytest.mark.parametrize("pool", ["spatial_softmax", "average"])
def test_own_or_shared_networks_keep_cameras_apart(pool):
    spec, obs = robot(a=(40, 40, 3), b=(40, 40, 3)), {"a": pictures(2, 2, 40, 40, 3)}
    obs["b"] = obs["a"].clone()
    torch.manual_seed(0)
    own = ImageEncoder(spec, {}, n_obs=2, width=16, pool=pool, feature_dim=8)
    shared = ImageEncoder(spec, {}, n_obs=2, width=16, pool=pool, feature_dim=8, shared=True)
    assert (len(own.nets), len(shared.nets)) == (2, 1)
    same, differ = shared.steps(obs), own.steps(obs)  # [B, O, 16]
    assert torch.equal(same[..., :8], same[..., 8:])
    assert not torch.allclose(differ[..., :8], differ[..., 8:])
    assert not torch.allclose(same[:, 0], same[:, 1])


def test_resize_makes_cameras_of_different_size_fit_one_network():
    spec = robot(a=(40, 60, 3), b=(80, 80, 3))
    encoder = ImageEncoder(spec, {}, n_obs=1, width=16, resize=(36, 36), crop=(34, 34), shared=True)
    flat = {"a": torch.full((1, 1, 40, 60, 3), 255, dtype=torch.uint8)}
    flat["b"] = torch.full((1, 1, 80, 80, 3), 255, dtype=torch.uint8)
    torch.testing.assert_close(encoder._scale(flat["a"]), torch.ones(1, 1, 3, 36, 36))
    out = encoder.eval()(flat)
    torch.testing.assert_close(out[:, :64], out[:, 64:])


def test_channels_and_rows_are_where_they_belong():
    """A uint8 [H, W, C] picture becomes [C, H, W] in [-1, 1]."""
    encoder = ImageEncoder(robot(a=(32, 48, 3)), {}, n_obs=1, width=16)
    picture = pictures(1, 1, 32, 48, 3)
    scaled = encoder._scale(picture)
    assert float(scaled[0, 0, 2, 5, 40]) == pytest.approx(float(picture[0, 0, 5, 40, 2]) / 127.5 - 1, abs=1e-6)


def test_gradient_reaches_every_parameter():
    torch.manual_seed(0)
    encoder = ImageEncoder(robot(a=(64, 64, 3)), {}, n_obs=1, width=16)
    encoder({"a": pictures(4, 1, 64, 64, 3)}).square().sum().backward()
    idle = [name for name, p in encoder.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert idle == ["nets.0.pool.nets.bias"] or idle == []  # softmax ignores a constant


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: ImageEncoder(robot(a=(32, 32, 3)), {}, n_obs=1, crop=(40, 20)), r"`crop` must fit into .*\(32, 32\)"),
        (lambda: ImageEncoder(robot(a=(32, 32, 3)), {}, n_obs=1), r"larger than 32 px .*got \(32, 32\)"),
        (
            lambda: ImageEncoder(robot(a=(32, 32, 3)), {}, n_obs=1, pool="max"),
            "`pool` must be spatial_softmax or average",
        ),
        (lambda: ImageEncoder(robot(a=(32, 32)), {}, n_obs=1), "needs a camera"),
        (lambda: ImageEncoder(robot(a=(32, 32)), {}, n_obs=1, names=["a"]), "`a` must be a picture"),
        (lambda: ImageEncoder(robot(a=(32, 32, 3), b=(40, 32, 3)), {}, n_obs=1, shared=True), "must agree in shape"),
    ],
)
def test_bad_settings_say_what_was_expected(build, text):
    with pytest.raises(ConfigError, match=text):
        build()
