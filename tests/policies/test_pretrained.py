"""The frozen trunk against a plain ResNet-18 with batch norm, written down here with torchvision's names."""

import functools

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from policies.export import export_bundle
from policies.flow import FlowModel
from policies.mlp import ResidualMLP
from policies.pretrained import IMAGENET_MEAN, IMAGENET_STD, FrozenResNet18, conv_shapes
from policies.vision import ImageEncoder
from robot_rl.errors import ConfigError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from tests.policies.helpers import field_stats

WIDTH = 8


class Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out)
        self.conv2, self.bn2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out)
        self.downsample = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """torchvision's, of any width, up to the last feature map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        c_in = width
        for stage in range(4):
            c_out = width * 2**stage
            blocks = nn.Sequential(Block(c_in, c_out, 1 if stage == 0 else 2), Block(c_out, c_out, 1))
            setattr(self, f"layer{stage + 1}", blocks)
            c_in = c_out
        self.fc = nn.Linear(c_in, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


@pytest.fixture(scope="module")
def original() -> ResNet18:
    torch.manual_seed(0)
    net = ResNet18(WIDTH)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, std=0.2)
            m.running_mean.normal_(std=0.2)
            m.running_var.uniform_(0.5, 2.0)
    return net.eval()


@pytest.fixture(scope="module")
def file(original, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(original.state_dict(), path)
    return path


def test_it_computes_what_the_original_computes_on_imagenets_units(original, file):
    rgb = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    expected = original((rgb - mean) / std)
    got = FrozenResNet18(file)(2 * rgb - 1)
    assert got.shape == (2, 8 * WIDTH, 2, 3)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_torch_state_dict_is_the_same_as_safetensors(original, file, tmp_path):
    torch.save(original.state_dict(), tmp_path / "resnet18.pth")
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(FrozenResNet18(tmp_path / "resnet18.pth")(x), FrozenResNet18(file)(x))


def test_the_known_resnet18_has_the_known_shapes():
    weights = sum(int(np.prod(s)) for s in conv_shapes(64).values())
    norms = sum(2 * s[0] for s in conv_shapes(64).values())
    assert weights + norms == 11_176_512  # torchvision's resnet18 without its classifier
    assert len(conv_shapes(64)) == 20


SPEC = RobotSpec(
    name="rig",
    obs={name: ArraySpec(name=name, shape=(72, 72, 3), dtype="uint8") for name in ("left", "right")},
    action=ActionSpec(name="action", shape=(2,)),
    control_hz=10,
)
STATS = {"action": field_stats([-1, -1], [1, 1])}


def pictures(batch: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {n: torch.randint(0, 256, (batch, 1, 72, 72, 3), generator=g, dtype=torch.uint8) for n in SPEC.obs}


def flow(file) -> FlowModel:
    torch.manual_seed(0)
    return FlowModel(
        SPEC, STATS, encoder=functools.partial(ImageEncoder, crop=(64, 64), shared=True, pretrained=str(file)),
        denoiser=functools.partial(ResidualMLP, width=16, n_blocks=1, time_dim=16), n_obs=1, horizon=4, n_steps=2,
    )  # fmt: skip


def test_training_leaves_the_trunk_as_it_was_and_moves_the_rest(file):
    model = flow(file).train()
    trunk = model.encoder.nets[0].backbone
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    before, features = {k: v.clone() for k, v in model.state_dict().items()}, trunk(x)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        loss = model.loss(pictures(), torch.rand(3, 4, 2), torch.randn(3, 4, 2), torch.rand(3), torch.ones(3, 4).bool())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert torch.equal(trunk(x), features)
    assert all(p.grad is None and not p.requires_grad for p in trunk.parameters())
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert "encoder.nets.0.out.weight" in moved
    assert not any("backbone" in k for k in moved)


@pytest.mark.slow
def test_the_trunk_lies_in_the_exported_graph_and_in_the_checkpoint(file, tmp_path):
    model = flow(file)
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
    assert bundle.manifest.parity.max_abs_normalised < 1e-4
    assert bundle.manifest.parity.n > 0
    size = sum(p.numel() for p in model.encoder.nets[0].backbone.parameters()) * 4
    assert bundle.file(bundle.manifest.graphs["sample"].file).stat().st_size > size
    assert "encoder.nets.0.backbone.convs.conv1.weight" in bundle.weights()


def test_cameras_have_a_trunk_each_or_share_one(file):
    own = ImageEncoder(SPEC, {}, n_obs=1, pretrained=str(file), feature_dim=4)
    shared = ImageEncoder(SPEC, {}, n_obs=1, pretrained=str(file), feature_dim=4, shared=True)
    assert (len(own.nets), len(shared.nets)) == (2, 1)
    assert own.nets[0].out.in_features == 2 * 32


def test_a_file_that_does_not_fit_is_named(original, file, tmp_path):
    state = original.state_dict()

    def save(name: str, tensors: dict) -> str:
        save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / name)
        return str(tmp_path / name)

    lacking = {k: v for k, v in state.items() if k != "layer3.0.downsample.1.running_var"}
    with pytest.raises(ConfigError, match=r"1 tensors are missing \['layer3.0.downsample.1.running_var'\], 0 superf"):
        FrozenResNet18(save("a.safetensors", lacking))
    with pytest.raises(ConfigError, match=r"0 tensors are missing \[\], 1 superfluous \['layer4.2.conv1.weight'\]"):
        FrozenResNet18(save("b.safetensors", state | {"layer4.2.conv1.weight": torch.zeros(1)}))
    with pytest.raises(
        ConfigError, match=r"`layer1.0.conv1.weight` of .* must be finite, \(8, 8, 3, 3\), got \(8, 8, 1, 1\)"
    ):
        FrozenResNet18(save("c.safetensors", state | {"layer1.0.conv1.weight": torch.zeros(8, 8, 1, 1)}))
    broken = state["bn1.bias"].clone()
    broken[0] = float("nan")
    with pytest.raises(ConfigError, match=r"`bn1.bias` .* must be finite"):
        FrozenResNet18(save("d.safetensors", state | {"bn1.bias": broken}))
    with pytest.raises(ConfigError, match=r"is no ResNet-18: it lacks `conv1.weight`, it has \['fc'\]"):
        FrozenResNet18(save("e.safetensors", {"fc": torch.zeros(1)}))
    with pytest.raises(ConfigError, match=r"cannot be read from .*FileNotFoundError"):
        FrozenResNet18(tmp_path / "none.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ConfigError, match="must hold a state dict, tensors by name, got list"):
        FrozenResNet18(tmp_path / "list.pth")
    grey = RobotSpec(
        name="rig", obs={"g": ArraySpec(name="g", shape=(64, 64, 1), dtype="uint8")}, action=SPEC.action, control_hz=10
    )
    with pytest.raises(ConfigError, match="3 channels, got 1"):
        ImageEncoder(grey, {}, n_obs=1, pretrained=str(file))
