"""Samplers: their order on a Gaussian with a closed-form flow, and diffusers' samplers step by step."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import GaussianPath, solve
from robot_rl.samplers import SAMPLERS, ancestral, dpmpp_2m, heun, n_evaluations, n_step_noise, sampler
from robot_rl.schedules import flow_times, sigma_grid, vp_times

SD = 0.5
DETERMINISTIC = [name for name, way in SAMPLERS.items() if not way.stochastic]
PATHS = {"flow": GaussianPath.flow(), "vp": GaussianPath.vp(n_train=2000), "ve": GaussianPath.ve()}


def gaussian(path):
    """Native prediction of the exact denoiser of N(0, SD^2)."""

    def native(x, t):
        alpha, sigma = path.coefficients(t)
        return path.native(x, t, alpha * SD**2 * x / (alpha**2 * SD**2 + sigma**2))

    return native


def net(x, t):
    return torch.tanh(0.7 * x + 0.3 * float(t))


def normal(seed=0, dtype=torch.float64):
    return torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("kind", list(PATHS))
@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_error_falls_with_the_order_of_the_method(kind, name, order):
    """Along log-even levels from 20 to 0.05, against x sqrt((alpha'^2 SD^2 + sigma'^2) / (alpha^2 SD^2 + sigma^2))."""
    path, errors = PATHS[kind], []
    for n in (20, 40):
        times = [path.time(level) for level in np.geomspace(20.0, 0.05, n + 1)]
        first, last = (path.coefficients(times[i]) for i in (0, -1))
        spread = [math.hypot(alpha * SD, sigma) for alpha, sigma in (first, last)]
        end = sampler(name).run(path, gaussian(path), np.array([1.3]), times)
        errors.append(abs(float(end[0]) / (1.3 * spread[1] / spread[0]) - 1))
    assert errors[0] < 0.2
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.25)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_point_mass_is_reached_exactly_even_from_pure_noise(name, n):
    path, times = GaussianPath.flow(), flow_times(n)
    noise = {"step_noise": list(np.random.default_rng(1).standard_normal((n - 1, 4)))} if name == "ancestral" else {}
    end = sampler(name).run(path, lambda x, t: (x - 0.37) / t, np.array([-1.0, 0.0, 0.5, 3.0]), times, **noise)
    np.testing.assert_allclose(end, 0.37, atol=1e-14)


@pytest.mark.parametrize("kind", list(PATHS))
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_numpy_and_torch_agree(kind, name):
    path = PATHS[kind]
    times = {"flow": flow_times(4), "vp": vp_times(2000, 4), "ve": sigma_grid(4, 0.01, 2.0, spacing="karras")}[kind]
    z = np.random.default_rng(0).standard_normal((4, 5))
    noise = {"step_noise": z[1:]} if name == "ancestral" else {}
    end = sampler(name).run(path, gaussian(path), z[0], times, clip=0.8, **noise)
    noise = {"step_noise": torch.as_tensor(z[1:])} if name == "ancestral" else {}
    tensor = sampler(name).run(path, gaussian(path), torch.as_tensor(z[0]), times, clip=0.8, **noise)
    np.testing.assert_allclose(tensor.numpy(), end, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "path", "times", "expected"),
    [
        ("ddim", GaussianPath.flow(), flow_times(10), 10),
        ("heun", GaussianPath.flow(), flow_times(10), 19),
        ("heun", GaussianPath.flow(), [1.0, 0.6, 0.3], 4),
        ("dpmpp_2m", GaussianPath.vp(), vp_times(100, 10), 10),
        ("ancestral", GaussianPath.ve(), sigma_grid(3, 0.1, 1.0, spacing="karras"), 3),
    ],
)
def test_evaluations_are_counted(name, path, times, expected):
    calls = []

    def denoise(x, t):
        calls.append(t)
        return x

    noise = {"step_noise": [np.ones(1)] * n_step_noise(name, path, times)} if SAMPLERS[name].stochastic else {}
    sampler(name).run(path, denoise, np.ones(1), times, **noise)
    assert len(calls) == n_evaluations(name, path, times) == expected


def test_ancestral_steps_keep_the_marginal_of_a_point_mass():
    """With the exact denoiser of a point, x at each level is alpha a + sigma z with z standard normal."""
    path = GaussianPath.vp()
    z = np.random.default_rng(0).standard_normal((3, 200_000))
    end = ancestral(
        path, lambda x, t: path.noise(x, t, 0.4), path.initial(z[0], 90), [90.0, 60.0, 20.0], step_noise=z[1:]
    )
    alpha, sigma = path.coefficients(20.0)
    assert float(end.mean()) == pytest.approx(alpha * 0.4, abs=4 * sigma / 200_000**0.5)
    assert float(end.std()) == pytest.approx(sigma, rel=0.01)


def test_ancestral_on_vp_is_ddim_with_eta_one():
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", clip_sample=False)
    theirs.set_timesteps(10)
    path, times, x = GaussianPath.vp(), vp_times(100, 10), normal()
    for i, (k, after) in enumerate(pairwise(times)):
        z = normal(i + 1)
        reference = theirs.step(net(x, k), int(k), x, eta=1.0, variance_noise=z).prev_sample
        fresh = [] if after == -1 else [z]
        torch.testing.assert_close(ancestral(path, net, x, [k, after], step_noise=fresh), reference, rtol=0, atol=5e-6)
        x = reference


def test_ancestral_agrees_with_diffusers_euler_ancestral():
    from diffusers import EulerAncestralDiscreteScheduler

    theirs = EulerAncestralDiscreteScheduler(num_train_timesteps=100, prediction_type="epsilon")
    theirs.set_timesteps(5)
    levels, x = theirs.sigmas.double().tolist(), normal(dtype=torch.float32)
    mine, noises = x, []
    for i, k in enumerate(theirs.timesteps):
        noises.append(normal(i + 1, torch.float32))
        theirs.scale_model_input(x, k)
        x = theirs.step(net(x, levels[i]), k, x, generator=torch.Generator().manual_seed(i + 1)).prev_sample
    end = ancestral(GaussianPath.ve("epsilon"), net, mine, levels, step_noise=noises[:-1])
    torch.testing.assert_close(end, x, rtol=1e-4, atol=1e-5)


def test_heun_agrees_with_diffusers_on_a_flow():
    from diffusers import FlowMatchHeunDiscreteScheduler

    theirs = FlowMatchHeunDiscreteScheduler(num_train_timesteps=1000)
    theirs.set_timesteps(6)
    x = start = normal(dtype=torch.float32)
    for i, t in enumerate(theirs.timesteps):
        x = theirs.step(net(x, float(theirs.sigmas[i])), t, x).prev_sample
    levels = torch.unique_consecutive(theirs.sigmas).double().tolist()
    assert levels[0] == 1.0
    torch.testing.assert_close(heun(GaussianPath.flow(), net, start, levels), x, rtol=0, atol=1e-5)


def test_heun_agrees_with_diffusers_on_noise_levels():
    from diffusers import HeunDiscreteScheduler

    theirs = HeunDiscreteScheduler(num_train_timesteps=100, prediction_type="sample", timestep_spacing="linspace")
    theirs.set_timesteps(6)
    x = start = normal()
    for i, k in enumerate(theirs.timesteps):
        theirs.scale_model_input(x, k)
        x = theirs.step(net(x, float(theirs.sigmas[i])), k, x).prev_sample
    levels = torch.unique_consecutive(theirs.sigmas).double().tolist()
    torch.testing.assert_close(heun(GaussianPath.ve(), net, start, levels), x, rtol=0, atol=1e-5)


EDM = {"sigma_min": 0.005, "sigma_max": 1.0, "sigma_data": 0.5, "num_train_timesteps": 100}


def preconditioned(x, sigma):
    """EDM's denoiser around `net`, as EDMModel and diffusers write it."""
    total = (sigma**2 + 0.25) ** 0.5
    return 0.25 / total**2 * x + sigma * 0.5 / total * net(x / total, math.log(sigma) / 4)


@pytest.mark.parametrize("spacing", ["karras", "exponential"])
@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_edm_steps_agree_with_diffusers(name, spacing):
    import diffusers

    theirs = getattr(diffusers, name)(sigma_schedule=spacing, **EDM)
    theirs.set_timesteps(6)
    x = start = normal()
    for i, k in enumerate(theirs.timesteps):
        sigma = float(theirs.sigmas[i])
        output = net(theirs.scale_model_input(x, k), math.log(sigma) / 4)
        x = theirs.step(output, k, x).prev_sample
    grid = sigma_grid(6, 0.005, 1.0, spacing=spacing)
    np.testing.assert_allclose(grid, theirs.sigmas.numpy(), rtol=1e-5)
    run = solve if name == "EDMEulerScheduler" else dpmpp_2m
    torch.testing.assert_close(run(GaussianPath.ve(), preconditioned, start, grid), x, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_clip_bounds_the_denoiser(name):
    end = sampler(name).run(GaussianPath.ve(), lambda x, t: 5.0 * np.ones_like(x), np.zeros(1), [1.0, 0.0], clip=1.0)
    assert end[0] == 1.0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: sampler("rk4"), r"`sampler` must be one of \['ancestral', 'ddim', .*\], got 'rk4'"),
        (
            lambda: ancestral(GaussianPath.ve(), net, normal(), [1.0, 0.5, 0.0], step_noise=[]),
            "`step_noise` must hold 1 arrays for 2 steps, got 0",
        ),
        (lambda: heun(GaussianPath.ve(), net, normal(), [0.5, 1.0]), "must fall from noise to data"),
        (lambda: dpmpp_2m(GaussianPath.ve(), net, normal(), [0.5]), "at least two values"),
    ],
)
def test_bad_settings_say_what_was_expected(call, text):
    with pytest.raises(ConfigError, match=text):
        call()
