"""Decay law (known answers T9) and averaging."""

import diffusers.training_utils
import pytest
import torch
from torch import nn

from robot_rl.imitation.ema import Ema, ema_decay


@pytest.mark.parametrize(("t", "decay"), [(0, 0.0), (10, 0.834440), (1000, 0.994381), (10_000, 0.999000)])
def test_warm_up_law_has_the_known_values(t, decay):
    assert ema_decay(t, max_decay=0.9999, power=0.75) == pytest.approx(decay, abs=5e-7)


def test_decay_reaches_its_cap_where_the_paper_says():
    assert ema_decay(215_440, max_decay=0.9999, power=0.75) < 0.9999
    assert ema_decay(215_443, max_decay=0.9999, power=0.75) == 0.9999
    assert ema_decay(10_000, max_decay=0.99, power=0.75) == 0.99


def test_constant_decay_does_not_warm_up():
    assert [ema_decay(t, max_decay=0.999, power=None) for t in (0, 5, 10**6)] == [0.999] * 3


def test_law_is_diffusers_law_shifted_by_its_second_zero():
    theirs = diffusers.training_utils.EMAModel(
        nn.Linear(1, 1).parameters(), decay=0.9999, use_ema_warmup=True, power=0.75
    )
    for updates in (0, 1, 7, 5000):
        assert theirs.get_decay(updates + 1) == pytest.approx(ema_decay(updates, max_decay=0.9999, power=0.75))


def test_average_follows_the_closed_form():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    ema = Ema(model, max_decay=0.9, power=None)
    nn.init.constant_(model.weight, 1.0)
    for n in range(1, 6):
        ema.update()
        assert ema.model.weight.item() == pytest.approx(1 - 0.9**n, rel=1e-6)
    assert ema.updates == 5


def test_first_update_of_a_warm_up_takes_the_weights_whole():
    model = nn.Linear(2, 2)
    ema = Ema(model, max_decay=0.9999, power=0.75)
    with torch.no_grad():
        model.weight += 3.0
    ema.update()
    assert torch.equal(ema.model.weight, model.weight)


def test_frozen_weights_and_buffers_are_copied_and_never_averaged():
    model = nn.BatchNorm1d(2)
    model.bias.requires_grad_(False)
    ema = Ema(model, max_decay=0.5, power=None)
    with torch.no_grad():
        model.bias += 4.0
        model.weight += 4.0
        model.running_mean += 4.0
    ema.update()
    ema.sync()
    assert ema.model.weight.tolist() == [3.0, 3.0]
    assert ema.model.bias.tolist() == [4.0, 4.0]
    assert ema.model.running_mean.tolist() == [4.0, 4.0]
