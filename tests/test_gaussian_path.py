"""Known answers T1-T8, T12, T18 and T24 of the spec, in float64, and diffusers' samplers step by step."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import PREDICTIONS, GaussianPath, solve
from robot_rl.schedules import beta_schedule, flow_times, sigma_grid, vp_times

EPS = np.array([[-1.3, 0.2], [0.4, 2.1]])


def make(kind, prediction):
    if kind == "vp":
        return GaussianPath.vp("squaredcos_cap_v2", 100, prediction)
    return GaussianPath.flow(prediction) if kind == "flow" else GaussianPath.ve(prediction)


TIMES = {"flow": (0.1, 0.5, 0.9), "vp": (0, 50, 99), "ve": (0.002, 1.0, 80.0)}
CASES = [(kind, prediction, t) for kind, preds in PREDICTIONS.items() for prediction in preds for t in TIMES[kind]]


@pytest.mark.parametrize(("kind", "prediction", "t"), CASES)
def test_t1_round_trips_between_data_native_output_noise_and_score(kind, prediction, t):
    path = make(kind, prediction)
    data = np.array([[0.3, -0.8], [1.0, 0.1]])
    x = path.mix(data, EPS, t)
    tolerance = 1e-6 if (kind, t) == ("vp", 99) else 1e-12  # at k = 99 one divides by sqrt(alpha_bar) = 4.9e-4
    output = path.target(data, EPS, t)
    assert np.abs(path.denoised(x, t, output) - data).max() < tolerance
    assert np.abs(path.native(x, t, data) - output).max() < tolerance / min(path.coefficients(t)[1], 1.0)
    assert np.abs(path.noise(x, t, data) - EPS).max() < 1e-10
    alpha, sigma = path.coefficients(t)
    np.testing.assert_allclose(path.score(x, t, data), -(x - alpha * data) / sigma**2, rtol=1e-10)
    np.testing.assert_allclose(path.from_canonical(path.to_canonical(x, t), t), x, rtol=1e-12)
    np.testing.assert_allclose(path.to_canonical(x, t), data + path.sigma_e(t) * EPS, rtol=1e-9)


def test_direct_flow_formulas_of_the_spec():
    path, data, t = GaussianPath.flow(), np.array([0.3, -0.8]), 0.4
    x, v = path.mix(data, EPS, t), EPS - data
    denoised = path.denoised(x, t, v)
    np.testing.assert_allclose(path.noise(x, t, denoised), x + (1 - t) * v, rtol=1e-12)
    np.testing.assert_allclose(path.score(x, t, denoised), -(x + (1 - t) * v) / t, rtol=1e-12)
    np.testing.assert_allclose(v, -(x + t * path.score(x, t, denoised)) / (1 - t), rtol=1e-12)


def gaussian_velocity(x, t, mean, sd):
    return -mean + (t - (1 - t) * sd**2) / ((1 - t) ** 2 * sd**2 + t**2) * (x - (1 - t) * mean)


def test_t2_gaussian_velocity_integrates_to_the_exact_flow_map():
    x, n = EPS.copy(), 2000
    for i in range(n):  # classical Runge-Kutta
        t, h = 1 - i / n, -1 / n
        k1 = gaussian_velocity(x, t, 0.7, 0.3)
        k2 = gaussian_velocity(x + h / 2 * k1, t + h / 2, 0.7, 0.3)
        k3 = gaussian_velocity(x + h / 2 * k2, t + h / 2, 0.7, 0.3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + gaussian_velocity(x + h * k3, t + h, 0.7, 0.3))
    assert np.abs(x - (0.7 + 0.3 * EPS)).max() < 1e-6


@pytest.mark.parametrize(("sd", "n", "factor"), [(0.3, 10, 0.24686549), (1.0, 10, 0.87898438), (0.3, 100, 0.29427427)])
def test_t3_euler_on_a_zero_mean_gaussian(sd, n, factor):
    # The factors are products in exact rational arithmetic; the spec prints the last one as .294273.
    end = solve(GaussianPath.flow(), lambda x, t: gaussian_velocity(x, t, 0.0, sd), EPS, flow_times(n))
    np.testing.assert_allclose(end / EPS, factor, atol=5e-9)


@pytest.mark.parametrize("n", [1, 3, 10])
def test_t4_point_mass_is_reached_exactly(n):
    end = solve(GaussianPath.flow(), lambda x, t: (x - 0.37) / t, EPS, flow_times(n))
    np.testing.assert_allclose(end, 0.37, atol=1e-14)


def test_t5_squared_cosine_table():
    path = GaussianPath.vp("squaredcos_cap_v2", 100)
    expected = {0: 0.999369, 50: 0.478265, 90: 0.019544}
    assert {k: round(path.coefficients(k)[0] ** 2, 6) for k in expected} == expected
    assert path.coefficients(99)[0] ** 2 == pytest.approx(2.4286e-7, rel=1e-4)
    assert beta_schedule("squaredcos_cap_v2", 100)[99] == 0.999
    assert path.coefficients(-1) == (1.0, 0.0)
    assert path.n_train == 100


@pytest.mark.parametrize("name", ["squaredcos_cap_v2", "linear", "scaled_linear"])
def test_schedules_agree_with_diffusers(name):
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(num_train_timesteps=100, beta_schedule=name, beta_start=1e-4, beta_end=0.02)
    np.testing.assert_allclose(beta_schedule(name, 100), theirs.betas.numpy(), rtol=1e-4)
    np.testing.assert_allclose(GaussianPath.vp(name, 100).alpha_bar, theirs.alphas_cumprod.numpy(), rtol=1e-4)


def test_t6_vp_and_flow_times_of_one_noise_level():
    vp, flow = GaussianPath.vp(), GaussianPath.flow()
    for k, level, t in ((50, 1.044458, 0.510873), (90, 7.082769, 0.876280), (99, 2029.2, 0.999507)):
        assert vp.sigma_e(k) == pytest.approx(level, rel=1e-5)
        assert flow.time(vp.sigma_e(k)) == pytest.approx(t, abs=1e-6)
        assert vp.time(level) == k
    y = vp.to_canonical(vp.mix(0.2, 1.7, 50), 50)
    t = flow.time(vp.sigma_e(50))
    assert y / (1 + vp.sigma_e(50)) == pytest.approx((1 - t) * 0.2 + t * 1.7, abs=1e-12)
    assert (vp.time(0.0), flow.time(math.inf), flow.sigma_e(1.0)) == (-1.0, 1.0, math.inf)


def test_t7_t12_ddim_euler_flow_and_euler_ve_are_one_update():
    levels = [7.0, 3.0, 1.0, 0.4, 0.1, 0.02]
    y0 = 2.3

    def denoiser(y, level):
        return np.tanh(y / level**2)

    y = y0
    for level, after in pairwise(levels):
        y = y + (after - level) * (y - denoiser(y, level)) / level  # Euler on dy / d sigma
    assert y == pytest.approx(0.9679227909, abs=1e-10)
    bar = 1 / (1 + np.array(levels[::-1]) ** 2)  # a VP table whose noise levels are the grid
    for path in (
        GaussianPath.flow(),
        GaussianPath("vp", "v", bar),
        GaussianPath.ve(),
        GaussianPath("vp", "epsilon", bar),
    ):
        times = [path.time(level) for level in levels]

        def native(x, t, path=path):
            return path.native(x, t, denoiser(path.to_canonical(x, t), path.sigma_e(t)))

        x = solve(path, native, path.from_canonical(y0, times[0]), times)
        assert path.to_canonical(x, times[-1]) == pytest.approx(0.9679227909, abs=1e-10)


@pytest.mark.parametrize(
    ("n", "expected"), [(10, range(90, -1, -10)), (16, range(90, -1, -6)), (8, range(84, -1, -12))]
)
def test_t8_leading_steps(n, expected):
    assert vp_times(100, n) == [*expected, -1]


@pytest.mark.parametrize(("spacing", "n"), [("leading", 10), ("leading", 16), ("trailing", 10), ("linspace", 7)])
def test_spacings_agree_with_diffusers(spacing, n):
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(num_train_timesteps=100, timestep_spacing=spacing)
    theirs.set_timesteps(n)
    assert vp_times(100, n, spacing) == [*theirs.timesteps.tolist(), -1]


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
@pytest.mark.parametrize(("spacing", "n"), [("leading", 16), ("trailing", 10)])
def test_ddim_agrees_with_diffusers_step_by_step(prediction, spacing, n):
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(
        num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", clip_sample=True, set_alpha_to_one=True,
        prediction_type="v_prediction" if prediction == "v" else prediction, timestep_spacing=spacing,
    )  # fmt: skip
    theirs.set_timesteps(n)
    path, times = GaussianPath.vp("squaredcos_cap_v2", 100, prediction), vp_times(100, n, spacing)
    x = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def net(x, t):
        return torch.tanh(0.7 * x + 0.01 * t)

    for k, after in pairwise(times):
        reference = theirs.step(net(x, k), int(k), x, use_clipped_model_output=True).prev_sample
        x = solve(path, net, x, [k, after], clip=1.0)
        torch.testing.assert_close(x, reference, rtol=0, atol=2e-4 if k == 99 else 2e-6)  # their table is float32
        x = reference


def test_flow_euler_agrees_with_diffusers_step_by_step():
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    theirs.set_timesteps(sigmas=[1 - i / 10 for i in range(10)])
    x = reference = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0))
    times = flow_times(10)
    for i, (t, after) in enumerate(pairwise(times)):
        reference = theirs.step(torch.tanh(reference + t), theirs.timesteps[i], reference).prev_sample
        x = solve(GaussianPath.flow(), lambda x, t: torch.tanh(x + t), x, [t, after])
        torch.testing.assert_close(x, reference, rtol=0, atol=1e-6)


def test_t11_noise_level_grids():
    def rounded(spacing, rho=7.0, low=0.005):
        return [round(level, 4) for level in sigma_grid(3, low, 1.0, spacing=spacing, rho=rho)]

    assert rounded("exponential") == [1, 0.0707, 0.005, 0]
    assert rounded("exponential", low=0.05) == [1, 0.2236, 0.05, 0]
    assert rounded("karras", 5.0) == [1, 0.1384, 0.005, 0]
    assert rounded("karras") == [1, 0.1154, 0.005, 0]
    assert rounded("linear") == [1, 0.5025, 0.005, 0]


def test_t15_three_exponential_steps_shrink_a_gaussian():
    grid = sigma_grid(3, 0.005, 1.0, spacing="exponential")
    end = solve(GaussianPath.ve(), lambda y, level: y * 0.25 / (0.25 + level**2), np.array([1.0]), grid)
    assert end[0] == pytest.approx(0.252, abs=5e-4)


def test_two_point_data_falls_onto_the_nearer_point():
    path = GaussianPath.flow()

    def velocity(x, t):
        if t == 1.0:
            return x  # D = tanh(0) = 0
        return path.native(x, t, np.tanh(path.to_canonical(x, t) / path.sigma_e(t) ** 2))

    end = solve(path, velocity, EPS, flow_times(50))
    np.testing.assert_allclose(end, np.sign(EPS), atol=1e-6)


@pytest.mark.parametrize("kind", ["flow", "vp", "ve"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpy_and_torch_agree_per_sample_and_keep_their_dtype(kind, dtype):
    path = make(kind, PREDICTIONS[kind][0])
    t = np.array(TIMES[kind][:3])
    data = np.random.default_rng(0).standard_normal((3, 4, 2)).astype(dtype)
    noise = np.random.default_rng(1).standard_normal((3, 4, 2)).astype(dtype)
    x = path.mix(data, noise, t)
    result = path.denoised(x, t, noise)
    assert (x.dtype, result.dtype) == (np.dtype(dtype), np.dtype(dtype))
    tensor = path.mix(torch.as_tensor(data), torch.as_tensor(noise), torch.as_tensor(t))
    assert tensor.dtype == getattr(torch, dtype)
    np.testing.assert_array_equal(tensor.numpy(), x)
    for i, one in enumerate(TIMES[kind]):  # a time per sample is each sample at its own time
        np.testing.assert_allclose(path.mix(data[i], noise[i], one), x[i], rtol=1e-6)


def test_initial_state_is_the_noise_where_the_path_is_normal():
    np.testing.assert_array_equal(GaussianPath.flow().initial(EPS, 1.0), EPS)
    np.testing.assert_allclose(GaussianPath.vp().initial(EPS, 90), EPS, rtol=1e-14)
    np.testing.assert_allclose(GaussianPath.ve().initial(EPS, 3.0), EPS * 10**0.5, rtol=1e-14)


def test_t24_diffusion_and_flow_parents_of_one_gaussian_compose_to_either():
    vp, flow = GaussianPath.vp(), GaussianPath.flow()
    ks = vp_times(100, 10)
    times = [flow.time(vp.sigma_e(k)) for k in ks]

    def denoiser(y, level):
        return (0.4 * level**2 + y * 0.09) / (0.09 + level**2)  # N(0.4, 0.3^2)

    start = flow.initial(EPS, times[0])
    ends = []
    for w in (0.0, 0.3, 1.0):

        def velocity(x, t, w=w):
            y, level = flow.to_canonical(x, t), flow.sigma_e(t)
            k = vp.time(level)
            d_vp = vp.denoised(vp.from_canonical(y, k), k, vp.native(vp.from_canonical(y, k), k, denoiser(y, level)))
            return flow.native(x, t, w * d_vp + (1 - w) * denoiser(y, level))

        ends.append(solve(flow, velocity, start, times))
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-12)
    np.testing.assert_allclose(ends[0], ends[2], atol=1e-12)


@given(w=st.floats(0, 1), t=st.floats(0.02, 0.98))
def test_t18_convex_mixing_is_the_same_in_denoiser_noise_velocity_and_score(w, t):
    path = GaussianPath.flow()
    x, d1, d2 = 0.7, -0.4, 0.9
    mixed = w * d1 + (1 - w) * d2
    for convert in (path.native, path.noise, path.score):
        assert w * convert(x, t, d1) + (1 - w) * convert(x, t, d2) == pytest.approx(convert(x, t, mixed), abs=1e-9)


def test_clip_bounds_the_denoiser_before_the_step():
    end = solve(GaussianPath.ve(), lambda x, t: 5.0 * np.ones_like(x), np.array([2.0]), [1.0, 0.5], clip=1.0)
    assert end[0] == 1.0 + 0.5 * (2.0 - 1.0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: GaussianPath.flow("v"), "`prediction` of a flow path must be one of"),
        (lambda: GaussianPath.vp(prediction="velocity"), "got 'velocity'"),
        (lambda: GaussianPath.vp("cosine", 100), "`schedule` must be squaredcos_cap_v2"),
        (lambda: GaussianPath.vp(n_train=1), "`n_train` must be at least 2"),
        (lambda: GaussianPath.vp().coefficients(100), r"in \[-1, 99\], got 100"),
        (lambda: solve(GaussianPath.flow(), lambda x, t: x, EPS, [0.0, 1.0]), "must fall from noise to data"),
        (lambda: solve(GaussianPath.flow(), lambda x, t: x, EPS, [1.0]), "at least two values"),
        (lambda: flow_times(0), "`n_steps` must be at least 1, got 0"),
        (lambda: vp_times(10, 11), "at most the schedule's 10 steps, got 11"),
        (lambda: vp_times(10, 2, "even"), "`spacing` must be leading, trailing or linspace"),
        (lambda: sigma_grid(3, 1.0, 0.5, spacing="karras"), "need 0 < `sigma_min` < `sigma_max`"),
        (lambda: sigma_grid(3, 0.1, 0.5, spacing="log"), "`spacing` must be karras"),
    ],
)
def test_bad_settings_say_what_was_expected(call, text):
    with pytest.raises(ConfigError, match=text):
        call()
