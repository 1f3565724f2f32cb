"""EDM's preconditioning and law of noise levels, against closed forms and diffusers."""

import math

import numpy as np
import pytest
import torch
from scipy import stats as laws

from policies.edm import EDMModel, LogLogistic
from policies.encoders import StateEncoder
from policies.export import export_bundle
from policies.torch_policy import TorchPolicy
from robot_rl.data.normalizer import FieldStats, fit_stats
from robot_rl.data.windows import WindowDataset, WindowSpec
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.errors import ConfigError
from robot_rl.imitation.metrics import HeldOut
from robot_rl.samplers import SAMPLERS
from robot_rl.values import PolicyInput
from tests.contracts.chunk_model import draws
from tests.policies.helpers import DENOISERS, HORIZON, SPEC, STATS, batch, encoder, model
from tests.policies.point_plane import PointInPlane, demonstrations


class Constant(torch.nn.Module):
    """A network that puts out one value."""

    def __init__(self, value=0.0):
        super().__init__()
        self.value = value

    def forward(self, x, t, cond):
        return torch.full_like(x, self.value)


def edm(**kwargs):
    return model("edm", **{"sigma_data": 0.5, "sigma_min": 0.005, "sigma_max": 1.0} | kwargs)


@pytest.mark.parametrize("sigma", [0.005, 0.1, 0.5, 1.0, 10.0])
def test_t10_inputs_and_targets_have_unit_variance_at_every_level(sigma):
    net, n = edm(), 40_000
    g = torch.Generator().manual_seed(0)
    data, noise = 0.5 * torch.randn(n, HORIZON, 2, generator=g), torch.randn(n, HORIZON, 2, generator=g)
    t = torch.full((n,), sigma)
    y = net.path.mix(data, noise, t)
    seen, c_noise = net.network_inputs(y, t)
    target = net.network_target(data, noise, t)
    assert float(seen.var()) == pytest.approx(1.0, abs=0.01)
    assert float(target.var()) == pytest.approx(1.0, abs=0.01)
    assert float(c_noise[0]) == pytest.approx(25 * math.log(sigma), abs=1e-4)
    # F = 0 is the best linear denoiser: nothing of the target is left that depends on y.
    assert float((target * seen).mean()) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("sigma", [0.001, 0.3, 20.0])
def test_the_target_is_the_output_whose_denoiser_is_the_data(sigma):
    net = edm().double()
    data, noise = (draws(net, 3, seed)[0].double() for seed in (0, 1))
    t = torch.full((3,), sigma, dtype=torch.float64)
    back = net.native(net.path.mix(data, noise, t), t, net.network_target(data, noise, t))
    torch.testing.assert_close(back, data, rtol=0, atol=1e-12)


def test_preconditioning_agrees_with_diffusers():
    from diffusers import EDMEulerScheduler

    net, theirs = edm(), EDMEulerScheduler(sigma_min=0.005, sigma_max=1.0, sigma_data=0.5)
    x, output = draws(net, 3)[0], draws(net, 3, 1)[0]
    for sigma in (0.005, 0.2, 1.0):
        t = torch.full((3,), sigma)
        seen, c_noise = net.network_inputs(x, t)
        torch.testing.assert_close(seen, theirs.precondition_inputs(x, torch.tensor(sigma)))
        torch.testing.assert_close(c_noise[0], 100 * theirs.precondition_noise(torch.tensor(sigma)))
        reference = theirs.precondition_outputs(x, output, torch.tensor(sigma))
        torch.testing.assert_close(net.native(x, t, output), reference)


def test_t13_levels_are_log_logistic_cut_off_at_the_ends():
    law = LogLogistic(0.5, 0.005, 1.0)
    assert float(law(torch.tensor([0.5]))) == pytest.approx(0.408, abs=5e-4)
    u = torch.linspace(0, 1, 1001, dtype=torch.float64)
    scipy_law = laws.fisk(c=2.0, scale=0.5)
    low, high = scipy_law.cdf([0.005, 1.0])
    np.testing.assert_allclose(law(u), scipy_law.ppf(low + u.numpy() * (high - low)), rtol=1e-8)
    ends = law(torch.tensor([0.0, 1 - 2**-24]))
    torch.testing.assert_close(ends, torch.tensor([0.005, 1.0]), rtol=1e-4, atol=0)


def test_t11_t15_defaults_are_besos_three_levels_in_units_of_the_data():
    net = model("edm", sigma_data=0.5)
    assert [round(level, 4) for level in net.times] == [1, 0.0707, 0.005, 0]
    net.denoiser = Constant(0.0)  # the exact denoiser of N(0, 0.25)
    obs, noise = batch()[0], draws(net, 3)[0]
    start = math.sqrt(1 + 0.25)  # the marginal's spread at sigma_max, where the factor of T15 is from sigma = 1
    torch.testing.assert_close(net.sample_normalised(obs, noise), 0.252 * start * noise, rtol=2e-3, atol=0)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_the_exact_denoiser_of_a_point_leads_to_the_point(name):
    net = edm(sampler=name)
    point = 0.25

    class Exact(torch.nn.Module):
        def forward(self, x, t, cond):
            sigma = torch.exp(t / 25)[:, None, None]
            total = (sigma**2 + 0.25).sqrt()
            return (point - 0.25 / total**2 * (x * total)) / (sigma * 0.5 / total)

    net.denoiser = Exact()
    noise = torch.randn(2, *net.noise_shape, generator=torch.Generator().manual_seed(0))
    end = net.sample_normalised(batch(2)[0], noise)
    torch.testing.assert_close(end, torch.full_like(end, point), rtol=0, atol=1e-5)


def test_sigma_data_is_the_root_mean_square_of_normalised_actions():
    rng = np.random.default_rng(0)
    rows = rng.normal([100.0, 300.0], [50.0, 40.0], (100_000, 2))
    ends = rows.min(0), rows.max(0)
    stats = STATS | {"action": FieldStats(*ends, rows.mean(0), rows.std(0), *ends, len(rows))}
    for norm in ("min_max", "mean_std"):
        net = EDMModel(
            SPEC, stats, encoder=encoder, denoiser=DENOISERS["mlp"], n_obs=2, horizon=HORIZON, action_norm=norm
        )
        normalised = net.normalizer(torch.as_tensor(rows, dtype=torch.float32))
        assert net.sigma_data == pytest.approx(float(normalised.double().square().mean().sqrt()), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "name"), [*(("edm", name) for name in SAMPLERS), ("flow", "heun"), ("epsilon", "dpmpp_2m")]
)
def test_every_sampler_is_the_same_in_torch_and_in_the_bundle(family, name, tmp_path):
    net = model(family, sampler=name, n_steps=3)
    rows = 3 * HORIZON if name == "ancestral" else HORIZON
    assert net.noise_shape == (rows, 2)
    bundle = export_bundle(
        net, tmp_path / "bundle", spec=SPEC, stats=STATS, n_execute=4, config={}, data_digest="", parity_rounds=1
    )
    onnx, torch_policy = OnnxPolicy(bundle), TorchPolicy(net, SPEC, n_execute=4)
    assert onnx.noise_shape == net.noise_shape
    obs = {key: value[0].numpy() for key, value in batch()[0].items()}
    noise = np.random.default_rng(0).standard_normal(net.noise_shape).astype(np.float32)
    chunks = [policy.act(PolicyInput(obs=obs, stamp_ns=0, noise=noise)).action for policy in (onnx, torch_policy)]
    np.testing.assert_allclose(chunks[0], chunks[1], atol=0.02)  # of 490 px
    other = noise.copy()
    other[-1] += 1.0  # the last block of noise counts
    assert np.abs(onnx.act(PolicyInput(obs=obs, stamp_ns=0, noise=other)).action - chunks[0]).max() > 0.1


def test_held_out_metrics_draw_the_noise_that_a_stochastic_sampler_needs():
    windows = WindowDataset(demonstrations(8, seed=0), WindowSpec(n_obs=1, horizon=4), threads=1)
    held_out = HeldOut(windows, np.ones(2), n_windows=32, batch_size=16, seed=0)
    errors = {}
    for name in ("ddim", "ancestral"):
        torch.manual_seed(0)
        net = EDMModel(
            PointInPlane.SPEC, fit_stats(windows), encoder=StateEncoder, denoiser=DENOISERS["mlp"], n_obs=1, horizon=4,
            sampler=name,
        ).eval()  # fmt: skip
        first, again = (held_out.evaluate(net, device=torch.device("cpu")) for _ in range(2))
        assert first == again
        errors[name] = first["val/action_error_normalised"]
    assert errors["ddim"] != errors["ancestral"]


def test_noise_scale_is_a_factor_on_all_noise():
    net, half = (edm(sampler="ancestral", noise_scale=scale) for scale in (1.0, 0.5))
    noise = torch.randn(3, *net.noise_shape, generator=torch.Generator().manual_seed(0))
    obs = batch()[0]
    torch.testing.assert_close(half.sample(obs, noise), net.sample(obs, 0.5 * noise))


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"sigma_data": 0.0}, "`sigma_data` must be positive, got 0.0"),
        ({"sigma_min": 2.0}, "need 0 < `sigma_min` < `sigma_max`, got 2.0 and 1.0"),
        ({"spacing": "even"}, "`spacing` must be karras, exponential or linear"),
        ({"sampler": "rk4"}, "`sampler` must be one of"),
        ({"guidance": 2.0}, "`guidance` 2.0 needs an encoder with a GoalEncoder"),
    ],
)
def test_bad_settings_say_what_was_expected(kwargs, text):
    with pytest.raises(ConfigError, match=text):
        edm(**kwargs)
