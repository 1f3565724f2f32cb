"""Time laws of the flow policy."""

import numpy as np
import pytest
import torch
from scipy import stats

from policies.flow import TIME_LAWS

U = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("uniform", stats.uniform()),
        ("beta", stats.beta(1.5, 1, loc=0.001, scale=0.999)),
        ("logit_normal", None),
    ],
)
def test_law_is_the_inverse_of_its_distribution_function(name, law):
    t = TIME_LAWS[name](U).numpy()
    back = stats.norm.cdf(np.log(t / (1 - t))) if law is None else law.cdf(t)
    np.testing.assert_allclose(back, U.numpy(), atol=1e-9)


@pytest.mark.parametrize("name", list(TIME_LAWS))
def test_ends_of_the_unit_interval_are_finite_and_in_range(name):
    t = TIME_LAWS[name](torch.tensor([0.0, 1 - 2**-24]))
    assert torch.isfinite(t).all()
    assert bool((t >= 0).all() and (t <= 1).all())


def test_mean_of_the_beta_law_is_on_the_noisy_side():
    assert float(TIME_LAWS["beta"](U).mean()) == pytest.approx(0.001 + 0.999 * 0.6, abs=1e-4)
