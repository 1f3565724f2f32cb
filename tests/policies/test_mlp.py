"""The residual MLP."""

import pytest
import torch

from policies.mlp import ResidualMLP
from policies.time_embedding import SinusoidalTime
from robot_rl.errors import ConfigError


@pytest.mark.parametrize("conditioning", ["film", "concat"])
def test_default_has_about_two_million_parameters_on_a_small_task(conditioning):
    net = ResidualMLP(2, 16, 12, conditioning=conditioning)
    assert 1.6e6 < sum(p.numel() for p in net.parameters()) < 2.4e6


@pytest.mark.parametrize("conditioning", ["film", "concat"])
def test_output_depends_on_chunk_time_and_condition(conditioning):
    torch.manual_seed(0)
    net = ResidualMLP(2, 4, 3, width=32, n_blocks=1, conditioning=conditioning)
    x, t, cond = torch.randn(1, 4, 2), torch.tensor([5.0]), torch.randn(1, 3)
    base = net(x, t, cond)
    for other in (net(x + 1, t, cond), net(x, t + 1, cond), net(x, t, cond + 1)):
        assert (other - base).abs().max() > 1e-4


def test_rows_of_the_chunk_keep_their_order():
    """The last layer's output i belongs to step i // A, element i % A."""
    net = ResidualMLP(2, 4, 3, width=32, n_blocks=1)
    with torch.no_grad():
        net.out.weight.zero_()
        net.out.bias.copy_(torch.arange(8))
        out = net(torch.randn(1, 4, 2), torch.zeros(1), torch.randn(1, 3))
    assert out[0].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_time_embedding_is_sines_then_cosines_from_one_to_a_ten_thousandth():
    out = SinusoidalTime(6)(torch.tensor([0.0, 2.0]))
    rates = torch.tensor([1.0, 1e-2, 1e-4])
    torch.testing.assert_close(out[1], torch.cat([(2 * rates).sin(), (2 * rates).cos()]))
    assert out[0].tolist() == [0, 0, 0, 1, 1, 1]


def test_time_embedding_agrees_with_diffusers():
    from diffusers.models.embeddings import get_timestep_embedding

    t = torch.tensor([0.0, 7.0, 93.0])
    theirs = get_timestep_embedding(t, 16, downscale_freq_shift=1)
    torch.testing.assert_close(SinusoidalTime(16)(t), theirs, rtol=1e-5, atol=1e-5)


def test_bad_settings_say_what_was_expected():
    with pytest.raises(ConfigError, match="`conditioning` must be film or concat, got 'cross'"):
        ResidualMLP(2, 4, 3, conditioning="cross")
    with pytest.raises(ConfigError, match="`time_dim` must be even and at least 4, got 5"):
        SinusoidalTime(5)
