"""T35 to T40 of the specs, numpy and torch by the same lines, and the guidance in the coordinates of every path."""

import itertools
import math

import numpy as np
import pytest
import torch

from robot_rl.deploy.promises import Promise
from robot_rl.deploy.realtime_chunking import guidance_gain, prefix_weights, solve_guided
from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import GaussianPath, solve
from robot_rl.schedules import flow_times, vp_times

FLOW = GaussianPath.flow()


def weights(horizon: int, delay: int, s: int, schedule: str) -> np.ndarray:
    return prefix_weights(horizon, delay=np.array([delay]), end=np.array([horizon - s]), schedule=schedule)[0]


def test_t35_weight_tables():
    np.testing.assert_allclose(weights(8, 2, 3, "exp"), [1, 1, 0.48755, 0.18877, 0.04132, 0, 0, 0], atol=5e-6)
    np.testing.assert_allclose(weights(10, 2, 4, "linear"), [1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0])
    np.testing.assert_allclose(weights(8, 0, 4, "exp"), [0.5706, 0.2871, 0.1145, 0.0258, 0, 0, 0, 0], atol=5e-5)
    assert weights(6, 2, 2, "ones").tolist() == [1, 1, 1, 1, 0, 0]
    assert weights(6, 2, 2, "zeros").tolist() == [1, 1, 0, 0, 0, 0]
    assert not weights(8, 0, 8, "exp").any()


def test_weights_end_where_the_promise_ends_for_each_robot_of_a_batch():
    got = prefix_weights(5, delay=np.array([1, 4, 0]), end=np.array([3, 2, 9]), schedule="linear")
    np.testing.assert_allclose(got[0], [1, 2 / 3, 1 / 3, 0, 0])
    np.testing.assert_allclose(got[1], [1, 1, 0, 0, 0])  # a delay longer than the promise holds to all of it
    np.testing.assert_allclose(got[2], np.array([5, 4, 3, 2, 1]) / 6)
    with pytest.raises(ConfigError, match=r"`schedule` must be one of .*, got 'cosine'"):
        prefix_weights(5, delay=np.array([0]), end=np.array([1]), schedule="cosine")


def test_t36_guidance_coefficients():
    def gains(n: int, beta: float) -> list[float]:
        times = flow_times(n)
        return [guidance_gain(FLOW, times[i], times[i + 1], beta=beta) for i in range(n)]

    np.testing.assert_allclose(gains(5, 5.0), [5, 4.25, 2.1667, 2.1667, 4.25], atol=5e-5)
    expected = [10, 9.111, 4.25, 2.762, 2.167, 2, 2.167, 2.762, 4.25, 9.111]
    np.testing.assert_allclose(gains(10, 10.0), expected, atol=5e-4)


def test_the_gain_never_carries_a_step_past_its_target():
    sigma_e = [80.0, 1.0, 0.005, 0.0]  # three steps of an EDM grid
    ve = GaussianPath.ve()
    for now, later in itertools.pairwise(sigma_e):
        move = 1 / (1 + later) - 1 / (1 + now)
        assert guidance_gain(ve, now, later, beta=1e9) * move <= 1 + 1e-12


def affine_guide(x: torch.Tensor, t: float):
    """u(x) = (.5 + x2, .1 + .5 x1), tau = 1 - t; D = x + (1 - tau) u."""
    at = x.detach().requires_grad_(True)
    u = torch.stack([0.5 + at[..., 1], 0.1 + 0.5 * at[..., 0]], dim=-1)
    denoised = at + t * u
    return denoised.detach(), lambda error: torch.autograd.grad(denoised, at, error)[0]


def test_t38_one_step_of_an_affine_field_by_hand():
    x = torch.tensor([[[0.2, -0.1]]], dtype=torch.float64)  # one step of two elements, so that W = (1, 0) is a mask
    target = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    held = torch.ones(1, 1, dtype=torch.float64)
    denoised, pull = affine_guide(x, 0.5)
    torch.testing.assert_close(denoised, torch.tensor([[[0.4, 0.0]]], dtype=torch.float64))
    torch.testing.assert_close(pull(held[..., None] * (target - denoised)), torch.tensor([[[0.6, 0.3]]]).double())
    after = solve_guided(FLOW, affine_guide, x, [0.5, 0.3], target=target, weights=held, beta=5.0)
    torch.testing.assert_close(after, torch.tensor([[[0.52, 0.06]]], dtype=torch.float64))


def test_t38_the_same_step_in_numpy_with_the_jacobian_written_out():
    def guide(x: np.ndarray, t: float):
        denoised = x + t * np.stack([0.5 + x[..., 1], 0.1 + 0.5 * x[..., 0]], axis=-1)
        jacobian = np.eye(2) + t * np.array([[0, 1], [0.5, 0]])
        return denoised, lambda error: error @ jacobian

    x, target = np.array([[[0.2, -0.1]]]), np.array([[[1.0, 0.0]]])
    after = solve_guided(FLOW, guide, x, [0.5, 0.3], target=target, weights=np.ones((1, 1)), beta=5.0)
    np.testing.assert_allclose(after, [[[0.52, 0.06]]], atol=1e-12)


def test_t39_a_point_mass_cannot_be_guided_by_its_derivative_but_the_identity_moves_it():
    m, y = 0.3, 0.9
    x = np.full((1, 4, 1), -0.7)
    common = {"target": np.full((1, 4, 1), y), "weights": np.ones((1, 4)), "beta": 5.0}
    constant = np.full_like(x, m)
    times = [0.8, 0.4]
    plain = FLOW.step(x, constant, *times)
    by_derivative = solve_guided(FLOW, lambda x, t: (constant, np.zeros_like), x, times, **common)
    np.testing.assert_array_equal(by_derivative, plain)
    by_identity = solve_guided(FLOW, lambda x, t: (constant, lambda error: error), x, times, **common)
    gain = (0.2**2 + 0.8**2) / (0.2 * 0.8)  # tau = .2, more than 1 / .4
    np.testing.assert_allclose(by_identity - plain, 0.4 * min(gain, 1 / 0.4, 5.0) * (y - m), atol=1e-12)


def test_t40_no_correction_where_the_target_is_the_denoiser_or_the_weights_are_zero():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 6, 2))

    def guide(x: np.ndarray, t: float):
        return np.tanh(x) * (1 - t), lambda error: 3.0 * error

    times = [0.7, 0.5]
    plain = FLOW.step(x, guide(x, 0.7)[0], *times)
    at_denoiser = solve_guided(FLOW, guide, x, times, target=guide(x, 0.7)[0], weights=np.ones((3, 6)))
    np.testing.assert_array_equal(at_denoiser, plain)
    unheld = solve_guided(FLOW, guide, x, times, target=rng.standard_normal(x.shape), weights=np.zeros((3, 6)))
    np.testing.assert_array_equal(unheld, plain)


def gaussian_denoiser(path: GaussianPath, s: float = 0.6):
    """D of data N(0, s^2): s^2 alpha x / (alpha^2 s^2 + sigma^2), and its derivative."""

    def slope(t: float) -> float:
        alpha, sigma = path.coefficients(t)
        return float(s * s * alpha / (alpha * alpha * s * s + sigma * sigma))

    def guide(x: np.ndarray, t: float):
        alpha, sigma = path.coefficients(t)
        return slope(t) * x, lambda error: (alpha + sigma) * slope(t) * error

    return guide


def test_flow_diffusion_and_edm_are_guided_alike_on_the_same_noise_levels():
    """One sigma_e grid, one start in canonical coordinates, three paths: the guided results are the same chunk."""
    vp = GaussianPath.vp()
    k = vp_times(100, 10)
    sigma_e = [vp.sigma_e(step) for step in k[:-1]] + [0.0]
    y = np.random.default_rng(1).standard_normal((2, 5, 3)) * math.hypot(1, sigma_e[0])
    target = np.random.default_rng(2).standard_normal(y.shape)
    held = prefix_weights(5, delay=np.array([1, 2]), end=np.array([3, 5]))
    results = []
    for path, times in (
        (FLOW, [FLOW.time(s) for s in sigma_e]), (vp, k), (GaussianPath.ve(), sigma_e),
    ):  # fmt: skip
        start = path.from_canonical(y, times[0])
        results.append(solve_guided(path, gaussian_denoiser(path), start, times, target=target, weights=held, clip=1.5))
    np.testing.assert_allclose(results[0], results[1], atol=1e-9)
    np.testing.assert_allclose(results[0], results[2], atol=1e-9)
    free = solve(GaussianPath.ve(), lambda x, t: gaussian_denoiser(GaussianPath.ve())(x, t)[0], y, sigma_e, clip=1.5)
    assert np.abs(results[0] - free)[:, 0].max() > 0.1, "the guidance did something"
    assert np.abs(results[0]).max() <= 1.5, "and the clip held"


def test_numpy_and_torch_agree():
    x = np.random.default_rng(3).standard_normal((2, 4, 2))
    target, held = np.ones_like(x), prefix_weights(4, delay=np.array([1, 0]), end=np.array([3, 4]))

    def in_numpy(x, t):
        return 0.5 * x, lambda error: 0.5 * error

    got = solve_guided(FLOW, in_numpy, x, flow_times(5), target=target, weights=held)
    as_torch = solve_guided(
        FLOW, in_numpy, torch.as_tensor(x), flow_times(5), target=torch.as_tensor(target), weights=torch.as_tensor(held)
    )
    np.testing.assert_allclose(got, as_torch.numpy(), atol=1e-12)


def test_a_promise_must_fit_its_batch():
    from robot_rl.errors import SpecError

    with pytest.raises(SpecError, match=r"a promise needs actions \[B, P, A\]"):
        Promise(np.zeros((2, 3, 1)), np.array([3]), np.array([0, 0]))
    with pytest.raises(SpecError, match="promised actions must be finite"):
        Promise(np.full((1, 3, 1), np.nan), np.array([3]), np.array([0]))
