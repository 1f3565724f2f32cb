"""The chunk transformer: order, padding and what it refuses."""

import pytest
import torch

from policies.transformer import ChunkTransformer
from robot_rl.errors import ConfigError

H = 6


def make(**kwargs):
    torch.manual_seed(0)
    return ChunkTransformer(2, H, 8, **({"width": 16, "n_layers": 2, "n_heads": 2, "cond_tokens": 2} | kwargs)).eval()


def inputs(batch=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, H, 2, generator=g),
        torch.rand(batch, generator=g) * 100,
        torch.randn(batch, 8, generator=g),
    )


@pytest.mark.parametrize("kept", [1, 3, 5])
def test_t31_padded_actions_change_nothing_in_the_valid_ones(kept):
    net, (x, t, cond) = make(), inputs()
    valid = (torch.arange(H) < kept).expand(3, H)
    altered = torch.where(valid[..., None], x, x + 10.0)
    with torch.no_grad():
        assert torch.equal(net(x, t, cond, valid)[:, :kept], net(altered, t, cond, valid)[:, :kept])
        assert not torch.equal(net(x, t, cond)[:, :kept], net(altered, t, cond)[:, :kept])
        assert torch.isfinite(net(x, t, cond, valid)).all()


def test_all_valid_is_no_mask():
    net, (x, t, cond) = make(), inputs()
    with torch.no_grad():
        torch.testing.assert_close(net(x, t, cond, torch.ones(3, H, dtype=torch.bool)), net(x, t, cond))


def test_every_action_sees_every_other_and_both_condition_tokens():
    net, (x, t, cond) = make(), inputs(1)
    x.requires_grad_()
    cond.requires_grad_()
    for h in (0, H - 1):
        gx, gc = torch.autograd.grad(net(x, t, cond)[0, h].sum(), (x, cond))
        assert bool((gx[0] != 0).any(dim=-1).all())
        assert bool((gc != 0).all())


def test_hidden_is_what_the_head_reads():
    net, (x, t, cond) = make(), inputs()
    with torch.no_grad():
        torch.testing.assert_close(net.out(net.hidden(x, t, cond)), net(x, t, cond))
        assert net.hidden(x, t, cond).shape == (3, H, net.width)


def test_dropout_is_active_in_training_only():
    net, (x, t, cond) = make(dropout=0.5), inputs()
    with torch.no_grad():
        assert torch.equal(net(x, t, cond), net(x, t, cond))
        net.train()
        assert not torch.equal(net(x, t, cond), net(x, t, cond))


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"n_heads": 3}, "`width` must divide by n_heads 3, got 16"),
        ({"cond_tokens": 3}, "`cond_tokens` must divide the condition's width 8, got 3"),
    ],
)
def test_bad_settings_say_what_was_expected(kwargs, text):
    with pytest.raises(ConfigError, match=text):
        make(**kwargs)
