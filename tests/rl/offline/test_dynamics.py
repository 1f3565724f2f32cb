"""The dynamics: clamp and likelihood by hand, elites, a system that is known, and a fit that goes on."""

import dataclasses
import math

import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.rl.offline.dynamics import EnsembleDynamics, gaussian_nll, soft_clamp
from robot_rl.rl.offline.dynamics_fit import fit_dynamics
from tests.rl.offline.small import DYNAMICS, choices


def moves(n=500, seed=0):
    """Return x' = x + 0.5 a with reward x and an end beyond 1."""
    data, g = choices(n, seed), torch.Generator().manual_seed(seed)
    cond = torch.rand(n, 1, generator=g) * 2 - 1
    action = torch.rand(n, 1, 1, generator=g) * 2 - 1
    following = cond + 0.5 * action[:, 0]
    ended = following[:, 0] > 0.7
    return dataclasses.replace(
        data, cond=cond, action=action, next_cond=following, reward=cond[:, 0],
        bootstrap=torch.where(ended, 0.0, 0.9), success=torch.arange(n) // 2 % 2 == 0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted():
    return fit_dynamics(moves(), dataclasses.replace(DYNAMICS, epochs=60, patience=60), seed=0)


def test_the_soft_clamp_holds_a_value_and_keeps_its_gradient():
    x = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    y = soft_clamp(x, torch.tensor(-1e9, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64))
    assert y.item() == pytest.approx(0.499925, abs=1e-6)
    (gradient,) = torch.autograd.grad(y, x)
    assert float(gradient) > 0


def test_the_likelihood_is_the_one_worked_out_by_hand():
    nll = gaussian_nll(torch.tensor(0.1, dtype=torch.float64), torch.tensor(math.log(0.01), dtype=torch.float64))
    assert float(nll) == pytest.approx(-3.605170, abs=1e-6)


def test_the_elites_are_the_members_with_the_least_errors_and_of_equal_ones_the_first():
    model = EnsembleDynamics(1, 1, 1, hidden=(4,))
    model.choose_elites(torch.tensor([3.0, 1.0, 2.0, 2.0, 2.0, 0.5, 2.0]))
    assert model.elites.tolist() == [5, 1, 2, 3, 4]


def test_a_known_system_is_learned(fitted):
    cond, action = torch.tensor([[0.0], [0.4], [0.6]]), torch.tensor([1.0, -1.0, 1.0])[:, None, None]
    for member in fitted.elites:
        following, reward, ended = fitted.step(cond, action, member.expand(3), torch.zeros(3, 1))
        assert following[:, 0].tolist() == pytest.approx([0.5, -0.1, 1.1], abs=0.1)
        assert reward.tolist() == pytest.approx([0.0, 0.4, 0.6], abs=0.1)
        assert ended[1] < 0.1
        assert ended[2] > 0.75
    assert float(fitted.reward_explained) > 0.9


def test_every_sample_believes_the_member_it_was_given(fitted):
    a, b = fitted.elites.tolist()
    cond, action = torch.zeros(2, 1), torch.zeros(2, 1, 1)
    both = fitted.step(cond, action, torch.tensor([a, b]), torch.zeros(2, 1))[0]
    assert float(both[0]) == float(fitted.step(cond, action, torch.tensor([a, a]), torch.zeros(2, 1))[0][0])
    assert float(both[1]) == float(fitted.step(cond, action, torch.tensor([b, b]), torch.zeros(2, 1))[0][1])
    assert float(both[0]) != float(both[1])


def test_the_elites_disagree_more_where_there_are_no_data(fitted):
    near = fitted.disagreement(torch.zeros(1, 1), torch.zeros(1, 1, 1))
    far = fitted.disagreement(torch.full((1, 1), 8.0), torch.full((1, 1, 1), 8.0))
    assert float(far) > 3 * float(near)


def test_no_rollout_leaves_the_range_of_the_latents(fitted):
    following, _, _ = fitted.step(
        torch.full((1, 1), 1.4), torch.full((1, 1, 1), 5.0), fitted.elites[:1], torch.full((1, 1), 50.0)
    )
    assert float(following) <= float(moves().next_cond.max()) + 1e-6


def test_members_differ_by_what_they_were_shown():
    model = fit_dynamics(moves(60), dataclasses.replace(DYNAMICS, epochs=1), seed=0)
    out = model.predict(torch.zeros(1, 1), torch.zeros(1, 1, 1)).mean[:, 0, 0]
    assert len(out.unique()) == DYNAMICS.n_members


def test_a_fit_that_was_cut_off_ends_as_one_that_was_not(tmp_path):
    settings = dataclasses.replace(DYNAMICS, epochs=12, patience=12, checkpoint_every=4)

    def die(n, _):
        if n == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_dynamics(moves(100), settings, seed=1, folder=tmp_path, on_epoch=die)
    again = fit_dynamics(moves(100), settings, seed=1, folder=tmp_path)
    whole = fit_dynamics(moves(100), settings, seed=1)
    assert torch.equal(again.elites, whole.elites)
    for a, b in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


def test_episodes_that_cannot_be_split_are_refused():
    data = choices(2, per_episode=2)
    with pytest.raises(ConfigError, match="at least two episodes of one outcome"):
        fit_dynamics(data, DYNAMICS, seed=0)
