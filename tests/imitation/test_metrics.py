"""Held-out metrics: known errors, masks, and no hidden randomness."""

import numpy as np
import pytest
import torch
from torch import nn

from robot_rl.errors import ConfigError
from robot_rl.imitation.metrics import HeldOut, action_unit, actions_digest
from tests.imitation.linear_flow import LinearFlow, make_windows

CPU = torch.device("cpu")


class Constant(nn.Module):
    """Always samples the same action; its loss is the mean of u."""

    n_obs, horizon, action_dim, action_offset = 2, 4, 2, 0

    def sample(self, obs, noise):
        return torch.tensor([3.0, -1.0]).expand(noise.shape)

    def loss(self, obs, target, noise, u, mask):
        return u.mean()


def held_out(windows, **changes):
    settings = {"n_windows": 1000, "batch_size": 7, "seed": 3} | changes
    return HeldOut(windows, np.array([2.0, 4.0]), **settings)


def test_action_error_is_the_mean_distance_in_both_units():
    metrics = held_out(make_windows([9, 5], constant=1.0)).evaluate(Constant(), device=CPU)
    assert metrics["val/action_error/0"] == pytest.approx(2.0)
    assert metrics["val/action_error/1"] == pytest.approx(2.0)
    assert metrics["val/action_error_normalised/0"] == pytest.approx(1.0)
    assert metrics["val/action_error_normalised/1"] == pytest.approx(0.5)
    assert metrics["val/action_error_normalised"] == pytest.approx(0.75)


def test_steps_outside_the_episode_do_not_count():
    windows = make_windows([6])
    metrics = held_out(windows).evaluate(Constant(), device=CPU)
    inside = np.concatenate([windows.gather(np.array([i])).action[0, : min(4, 6 - i)] for i in range(6)])
    assert metrics["val/action_error/0"] == pytest.approx(np.abs(inside[:, 0] - 3.0).mean(), rel=1e-6)


def test_times_are_stratified_so_that_their_mean_is_near_a_half():
    metrics = held_out(make_windows([200]), batch_size=256).evaluate(Constant(), device=CPU)
    assert metrics["val/loss"] == pytest.approx(0.5, abs=0.002)


def test_every_call_gives_the_same_numbers_whatever_the_global_generator_does():
    model, data = LinearFlow(hidden=8).eval(), held_out(make_windows([30, 20]))
    first = data.evaluate(model, device=CPU)
    torch.randn(7)
    state = torch.get_rng_state()
    assert data.evaluate(model, device=CPU) == first
    assert torch.equal(torch.get_rng_state(), state)


def test_a_few_windows_are_spread_over_the_whole_set():
    data = held_out(make_windows([101]), n_windows=5, batch_size=10)
    assert np.concatenate(data._index).tolist() == [0, 25, 50, 75, 100]


def test_one_unit_is_half_the_training_range_and_one_for_what_never_moves():
    windows = make_windows([40])
    column = windows.table._columns["action"]
    assert action_unit(windows) == pytest.approx((column.max(axis=0) - column.min(axis=0)) / 2, rel=1e-6)
    assert action_unit(make_windows([40], constant=5.0)).tolist() == [1.0, 1.0]


def test_digest_tells_data_sets_apart():
    assert actions_digest(make_windows([9, 5])) == actions_digest(make_windows([9, 5]))
    assert actions_digest(make_windows([9, 5])) != actions_digest(make_windows([9, 5], seed=1))


def test_no_held_out_window_is_refused():
    class Empty:
        def __len__(self):
            return 0

    with pytest.raises(ConfigError, match="`val` has no window; hold out at least one episode"):
        held_out(Empty())
