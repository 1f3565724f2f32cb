"""The distance between distributions of chunks, where its value is known."""

import pytest
import torch

from policies.one_step_compare import draw_chunks, energy_distance
from tests.policies.helpers import HORIZON, batch, model


def gaussian(shift: float, n: int = 4, m: int = 400, seed: int = 0) -> torch.Tensor:
    return shift + torch.randn(n, m, 1, 1, generator=torch.Generator().manual_seed(seed))


def test_the_distance_of_one_distribution_to_itself_is_zero_on_average():
    assert abs(float(energy_distance(gaussian(0.0), gaussian(0.0, seed=1)).mean())) < 0.02


def test_the_distance_of_two_normal_laws_is_the_closed_form():
    """E|x - y| of N(0, 1) and N(d, 1) is that of |N(d, 2)|; within each it is 2 / sqrt(pi)."""
    d = 2.0
    normal = torch.distributions.Normal(0.0, 1.0)
    z = torch.tensor(d / 2**0.5)
    apart = 2**0.5 * 2 * normal.log_prob(z).exp() + d * (2 * normal.cdf(z) - 1)
    expected = 2 * float(apart) - 2 * 2 / torch.pi**0.5
    got = energy_distance(gaussian(0.0), gaussian(d, seed=1))
    assert float(got.mean()) == pytest.approx(expected, rel=0.05)


def test_a_shift_of_points_is_told_in_the_unit_of_one_action():
    at, shifted = torch.zeros(2, 3, HORIZON, 2), torch.full((2, 3, HORIZON, 2), 0.5)
    torch.testing.assert_close(energy_distance(at, shifted), torch.ones(2).double())  # 2 |x - y| / sqrt(H A)


def test_draws_are_the_models_own_chunks_observation_by_observation():
    teacher, (obs, _) = model("flow"), batch()
    noise = torch.randn(3, 2, HORIZON, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch.stack([teacher.sample_normalised(obs, noise[:, i]) for i in range(2)], dim=1)
    torch.testing.assert_close(draw_chunks(teacher, obs, noise), expected, rtol=0, atol=1e-5)
