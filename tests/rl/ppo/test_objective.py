"""The clipped objective over a chain, by known answers (specs, RL-100 and DPPO: rows 6, 13, 15, 20-23, 25, 26)."""

import math

import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.rl.ppo.objective import (
    ChainClip,
    adapted_lr,
    clipped_value_loss,
    executed_rows,
    k3,
    normalised,
    surrogate,
)


def one_step(advantage, ratio, clip):
    """Return the objective at a batch of one with one element, and the gradient of its log-density."""
    new = torch.full((1, 1, 1, 1), math.log(ratio), dtype=torch.float64, requires_grad=True)
    found = surrogate(new, torch.zeros_like(new), torch.tensor([advantage], dtype=torch.float64), clip)
    found.loss.backward()
    return -float(found.loss.detach()), float(new.grad)


@pytest.mark.parametrize(
    ("advantage", "ratio", "objective", "moves"),
    [(0.5, 1.1, 0.55, True), (0.5, 1.5, 0.6, False), (-0.5, 0.5, -0.4, False), (-0.5, 1.5, -0.75, True),
     (0.5, 0.5, 0.25, True)],
)  # fmt: skip
def test_the_clip_takes_the_worse_of_both_and_stops_what_went_far_enough(advantage, ratio, objective, moves):
    value, gradient = one_step(advantage, ratio, ChainClip(epsilon=0.2))
    assert value == pytest.approx(objective)
    assert (gradient != 0.0) == moves


def test_sum_and_mean_give_one_log_density_another_ratio():
    new = torch.full((2, 1, 16, 7), 0.01, dtype=torch.float64)
    by_sum = surrogate(new, torch.zeros_like(new), torch.ones(2), ChainClip(reduction="sum"))
    by_mean = surrogate(new, torch.zeros_like(new), torch.ones(2), ChainClip(reduction="mean"))
    assert float(by_sum.ratio_max) == pytest.approx(3.064854, abs=1e-6)
    assert float(by_mean.ratio_max) == pytest.approx(1.010050, abs=1e-6)
    assert (float(by_sum.clip_fraction), float(by_mean.clip_fraction)) == (1.0, 0.0)


def test_the_divergence_is_schulmans_k3_of_each_step():
    assert k3(torch.tensor([0.1, -0.1], dtype=torch.float64)).tolist() == pytest.approx([0.00517092, 0.00483742])
    new = torch.tensor([0.1, -0.1], dtype=torch.float64).reshape(1, 2, 1, 1).repeat(3, 1, 1, 1)
    found = surrogate(new, torch.zeros_like(new), torch.ones(3), ChainClip())
    assert found.kl.tolist() == pytest.approx([0.00517092, 0.00483742])
    assert bool((k3(torch.linspace(-3, 3, 50)) >= 0).all())


def test_discounts_and_clip_ranges_grow_towards_the_last_step():
    ten = ChainClip(discount=0.99).discounts(10)
    assert (ten[0], ten[-1]) == (pytest.approx(0.913517, abs=1e-6), 1.0)
    assert ChainClip(discount=0.9).discounts(5) == pytest.approx([0.6561, 0.729, 0.81, 0.9, 1])
    schedule = ChainClip(epsilon=0.01, epsilon_base=0.001)
    assert schedule.epsilons(10) == pytest.approx(
        [0.001, 0.001187, 0.001447, 0.001810, 0.002317, 0.003025, 0.004013, 0.005391, 0.007315, 0.01], abs=1e-6
    )
    assert schedule.epsilons(5) == pytest.approx([0.001, 0.001527, 0.002642, 0.005002, 0.01], abs=1e-6)
    assert schedule.epsilons(1) == [0.01]
    assert ChainClip(epsilon=0.2).epsilons(3) == [0.2] * 3


def test_an_early_step_counts_less_by_its_discount():
    new = torch.zeros(4, 3, 2, 1, dtype=torch.float64, requires_grad=True)
    surrogate(new, torch.zeros(4, 3, 2, 1, dtype=torch.float64), torch.ones(4), ChainClip(discount=0.5)).loss.backward()
    by_step = new.grad.sum(dim=(0, 2, 3))
    assert (by_step / by_step[-1]).tolist() == pytest.approx([0.25, 0.5, 1.0])


def test_beyond_its_bounds_a_log_density_has_no_gradient():
    new = torch.tensor([-5.1, -4.9, 1.9, 2.1], dtype=torch.float64).reshape(4, 1, 1, 1).requires_grad_()
    surrogate(new, new.detach().clone(), torch.ones(4), ChainClip(log_prob_bounds=(-5.0, 2.0))).loss.backward()
    assert (new.grad.flatten() != 0).tolist() == [False, True, True, False]


def test_a_large_advantage_is_held_at_its_bound():
    clip = ChainClip(advantage_clip=3.0)
    new = torch.zeros(2, 1, 1, 1)
    assert float(surrogate(new, new, torch.tensor([10.0, -1.0]), clip).loss) == pytest.approx(-1.0)


def test_advantages_are_standardised_and_never_become_nan():
    assert normalised(torch.tensor([1.0, 2.0, 3.0])).tolist() == pytest.approx([-1.0, 0.0, 1.0])
    assert normalised(torch.full((7,), 0.1)).tolist() == [0.0] * 7
    assert normalised(torch.tensor([5.0])).tolist() == [0.0]


def test_only_rows_from_the_newest_observation_on_are_executed():
    class Chunks:
        horizon, action_offset = 16, -1

    assert executed_rows(Chunks(), 8) == slice(1, 9)
    assert executed_rows(Chunks(), 15) == slice(1, 16)
    with pytest.raises(ConfigError, match=r"`n_execute` must be in \[1, 15\] .*, got 16"):
        executed_rows(Chunks(), 16)


def test_the_clipped_value_error_is_the_larger_of_both():
    value, old = torch.tensor([2.0]), torch.tensor([1.0])
    assert float(clipped_value_loss(value, torch.tensor([0.0]), old, 0.2)) == pytest.approx(4.0)
    assert float(clipped_value_loss(value, torch.tensor([3.0]), old, 0.2)) == pytest.approx(3.24)
    assert float(clipped_value_loss(value, torch.tensor([3.0]))) == pytest.approx(1.0)


def test_the_learning_rate_follows_the_divergence_within_its_bounds():
    assert adapted_lr(3e-6, 0.05) == pytest.approx(2e-6)
    assert adapted_lr(3e-6, 0.005) == pytest.approx(4.5e-6)
    assert adapted_lr(3e-6, 0.02) == 3e-6
    assert (adapted_lr(6e-7, 1.0), adapted_lr(9e-6, 0.0)) == (5e-7, 1e-5)


def test_settings_that_make_no_sense_are_refused_by_name():
    for arguments, message in (
        ({"epsilon": 0.0}, "`epsilon` and `epsilon_base` must be above 0, got 0.0"),
        ({"discount": 1.5}, "`discount` in"),
        ({"reduction": "max"}, "`reduction` must be 'sum' or 'mean', got 'max'"),
        ({"log_prob_bounds": (2.0, -5.0)}, "`log_prob_bounds` must be"),
        ({"advantage_clip": 0.0}, "`advantage_clip` must be above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            ChainClip(**arguments)
    with pytest.raises(ConfigError, match=r"`advantage` \[B\], got \(2, 1, 1, 1\), \(2, 1, 1, 1\) and \(3,\)"):
        surrogate(torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1), torch.ones(3), ChainClip())
