"""Stds and means of stochastic steps against the numbers and identities of RL-100's and DDPM's papers."""

import math
from itertools import pairwise

import numpy as np
import pytest

from robot_rl.chain_step import ChainNoise, step_mean
from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import GaussianPath
from robot_rl.schedules import flow_times

VP = GaussianPath.vp("squaredcos_cap_v2", 100, "epsilon")
RL100_TIMES = [*map(float, range(91, 0, -10)), 0.0]
"""RL-100's ten steps: leading spacing, offset 1, the last one to k = 0 and not to data."""
FREE = {"std_min": 0.0, "std_max": math.inf}


def final_std(noise: ChainNoise, *, data_std: float = 0.2, on_the_way: bool = True) -> float:
    """Std of what a perfect denoiser of N(0, data_std^2) ends at: every step is linear in x."""
    variance = 1.0
    for t, after in pairwise(RL100_TIMES):
        alpha, sigma = VP.coefficients(t)
        denoised = alpha * data_std**2 / (alpha**2 * data_std**2 + sigma**2)  # of x = 1
        slope = step_mean(VP, 1.0, denoised, t, after, noise.natural(VP, t, after))
        variance = slope**2 * variance + on_the_way * noise.clipped(VP, t, after) ** 2
    return math.sqrt(variance)


def test_stds_of_ten_ancestral_steps_are_those_of_rl100():
    natural, _ = ChainNoise(**FREE).table(VP, RL100_TIMES)
    expected = [0.865243, 0.712639, 0.598022, 0.504877, 0.422407, 0.343270, 0.260776, 0.165933, 0.040894, 0.020087]
    np.testing.assert_allclose(natural, expected, atol=1e-6)


def test_no_step_takes_more_noise_than_there_is():
    natural, _ = ChainNoise(**FREE).table(VP, RL100_TIMES)
    left = [VP.coefficients(after)[1] ** 2 - std**2 for std, after in zip(natural, RL100_TIMES[1:], strict=True)]
    assert min(left) == pytest.approx(7.5e-5, abs=1e-6)


@pytest.mark.parametrize(("std_min", "std_max", "changed"), [(0.01, 0.8, 1), (0.0067, 0.1, 8)])
def test_clipping_changes_as_many_steps_as_in_the_paper_and_in_the_released_scripts(std_min, std_max, changed):
    natural, clipped = ChainNoise(std_min=std_min, std_max=std_max).table(VP, RL100_TIMES)
    assert sum(a != b for a, b in zip(natural, clipped, strict=True)) == changed


@pytest.mark.parametrize(
    ("noise", "on_the_way", "std"),
    [
        (ChainNoise(eta=0.0, std_min=0.0), True, 0.158565),
        (ChainNoise(**FREE), True, 0.133373),
        (ChainNoise(std_min=0.0, std_max=0.1), True, 0.074313),
        (ChainNoise(**FREE), False, 0.005127),
        (ChainNoise(std_min=0.1, std_max=math.inf), True, 0.187833),
    ],
)
def test_a_perfect_denoiser_ends_with_the_spread_that_the_noise_law_leaves(noise, on_the_way, std):
    assert final_std(noise, on_the_way=on_the_way) == pytest.approx(std, abs=5e-6)


def test_adjacent_step_is_the_posterior_of_ddpm():
    x, denoised = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    mean = step_mean(VP, x, denoised, 50.0, 49.0, ChainNoise(**FREE).natural(VP, 50.0, 49.0))
    np.testing.assert_allclose(mean, [0.9547153, 0.0424907], atol=1e-6)


def test_without_noise_a_step_is_the_deterministic_one():
    x, denoised = np.array([0.7]), np.array([0.2])
    for path, t, after in ((VP, 51.0, 41.0), (GaussianPath.flow(), 1.0, 0.9), (GaussianPath.ve(), 2.0, 1.0)):
        np.testing.assert_allclose(
            step_mean(path, x, denoised, t, after, 0.0), path.step(x, denoised, t, after), rtol=1e-12
        )


def test_coefficient_preserving_step_has_the_published_numbers():
    noise = ChainNoise(law="cps", eta=0.7, **FREE)
    std = noise.natural(GaussianPath.flow(), 0.6, 0.5)
    assert std == pytest.approx(0.445503, abs=1e-6)
    coefficient = step_mean(GaussianPath.flow(), 0.6, 0.0, 0.6, 0.5, std)  # eps_hat = 1
    assert coefficient == pytest.approx(0.226995, abs=1e-6)
    assert std**2 + coefficient**2 == pytest.approx(0.25)


def test_ancestral_and_coefficient_preserving_agree_from_pure_noise():
    flow, (first, second, *_) = GaussianPath.flow(), flow_times(10)
    assert ChainNoise(**FREE).natural(flow, first, second) == pytest.approx(second)
    assert ChainNoise(law="cps", **FREE).natural(flow, first, second) == pytest.approx(second)


@pytest.mark.parametrize(
    "bad", [{"eta": 1.5}, {"std_min": -0.1}, {"std_min": 0.2, "std_max": 0.1}, {"law": "brownian"}]
)
def test_noise_out_of_range_is_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        ChainNoise(**bad)
