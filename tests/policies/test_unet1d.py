"""The U-Net: LeRobot's names and shapes, and what it refuses."""

import pytest
import torch

from policies.unet1d import ConditionalUnet1d
from robot_rl.errors import ConfigError


def upstream_shapes(action_dim, dims, kernel, step_dim, global_dim):
    """Names and shapes of LeRobot 0.6's `diffusion.unet.` tensors, from the spec's key map."""
    shapes = {}

    def linear(name, c_in, c_out):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (c_out, c_in), (c_out,)

    def conv(name, c_in, c_out, width):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (c_out, c_in, width), (c_out,)

    def block(name, c_in, c_out):
        conv(f"{name}.block.0", c_in, c_out, kernel)
        shapes[f"{name}.block.1.weight"] = shapes[f"{name}.block.1.bias"] = (c_out,)

    def residual(name, c_in, c_out):
        block(f"{name}.conv1", c_in, c_out)
        linear(f"{name}.cond_encoder.1", step_dim + global_dim, 2 * c_out)
        block(f"{name}.conv2", c_out, c_out)
        if c_in != c_out:
            conv(f"{name}.residual_conv", c_in, c_out, 1)

    linear("diffusion_step_encoder.1", step_dim, 4 * step_dim)
    linear("diffusion_step_encoder.3", 4 * step_dim, step_dim)
    for level, (c_in, c_out) in enumerate(zip([action_dim, *dims], dims, strict=False)):
        residual(f"down_modules.{level}.0", c_in, c_out)
        residual(f"down_modules.{level}.1", c_out, c_out)
        if level < len(dims) - 1:
            conv(f"down_modules.{level}.2", c_out, c_out, 3)
    for i in (0, 1):
        residual(f"mid_modules.{i}", dims[-1], dims[-1])
    for level, (c_out, c_in) in enumerate(zip(dims[-2::-1], dims[:0:-1], strict=True)):
        residual(f"up_modules.{level}.0", 2 * c_in, c_out)
        residual(f"up_modules.{level}.1", c_out, c_out)
        shapes[f"up_modules.{level}.2.weight"], shapes[f"up_modules.{level}.2.bias"] = (c_out, c_out, 4), (c_out,)
    block("final_conv.0", dims[0], dims[0])
    conv("final_conv.1", dims[0], action_dim, 1)
    return shapes


@pytest.mark.parametrize("dims", [(16, 32, 64), (8, 24), (16,)])
def test_t47_a_state_dict_with_upstream_names_loads(dims):
    """Two observation steps of a 6-wide state and one camera of 64 features make 140 global features."""
    net = ConditionalUnet1d(2, 16, 2 * (6 + 64), down_dims=dims, time_dim=32)
    shapes = upstream_shapes(2, dims, 5, 32, 140)
    state = {name: torch.full(shape, float(i)) for i, (name, shape) in enumerate(shapes.items())}
    net.load_state_dict(state, strict=True)
    for i, name in enumerate(shapes):
        assert float(net.state_dict()[name].flatten()[0]) == i


def test_default_of_lerobot_has_about_its_documented_size():
    with torch.device("meta"):
        net = ConditionalUnet1d(2, 16, 2 * (2 + 64), down_dims=(512, 1024, 2048))
    assert 2.4e8 < sum(p.numel() for p in net.parameters()) < 2.7e8


def test_film_without_scale_only_shifts():
    net = ConditionalUnet1d(2, 8, 3, down_dims=(8, 16), film_scale=False, time_dim=16)
    assert net.mid_modules[0].cond_encoder[1].out_features == 16
    assert net(torch.randn(2, 8, 2), torch.ones(2), torch.randn(2, 3)).shape == (2, 8, 2)


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"horizon": 10}, r"`horizon` must divide by 4 \(2 \*\* \(levels - 1\), 3 levels\), got 10; use 12"),
        ({"down_dims": (12, 20, 32)}, r"must divide by n_groups 8, got \[12, 20, 32\]"),
        ({"down_dims": ()}, "every channel number"),
        ({"kernel_size": 4}, "`kernel_size` must be odd"),
    ],
)
def test_bad_settings_say_what_was_expected(kwargs, text):
    with pytest.raises(ConfigError, match=text):
        ConditionalUnet1d(**({"action_dim": 2, "horizon": 16, "cond_dim": 4} | kwargs))
