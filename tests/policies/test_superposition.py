"""AND and OR: analytic cases and guards. T-numbers are the specification's."""

import math

import numpy as np
import pytest
import torch

from policies.export import export_bundle
from policies.superposition import SuperposedModel, equal_density_weights, superpose
from policies.torch_policy import TorchPolicy
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.errors import ConfigError
from robot_rl.schedules import sigma_grid
from robot_rl.values import PolicyInput
from tests.policies.helpers import HORIZON, SPEC, STATS, batch
from tests.policies.parents import gaussian, known, parent


def noises(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def denoisers(*clean):
    return lambda y, sigma: torch.stack([c(y, sigma) for c in clean])


@pytest.mark.parametrize(("n", "error"), [(100, 0.0074), (1000, 0.00079), (5000, 0.00017)])
def test_t23_and_of_two_mirrored_gaussians_is_deterministic(n, error):
    """Data N(+-1, .4^2), sigma from 30 to 1e-3: y ends at y_T s^2 / (s^2 + sigma_T^2), with an error of O(1 / n)."""
    levels = sigma_grid(n + 1, 1e-3, 30.0, spacing="exponential")
    start = 30.0 * noises(64, 1, 1)
    pair = denoisers(gaussian(1, 0.4), gaussian(-1, 0.4))
    found, gained = superpose(pair, start, levels, noises(n, 64, 1, 1, seed=1), operator="and")
    expected = start * 0.4**2 / (0.4**2 + 30.0**2)
    assert float((found - expected).abs().max()) < 1.5 * error
    torch.testing.assert_close(gained[0], gained[1], rtol=1e-9, atol=1e-6)


def test_t22_or_of_equal_log_densities_weighs_equally():
    """Mirrored parents at y = 0 without noise: the densities stay equal, the mixture stays in the middle."""
    levels = sigma_grid(20, 1e-2, 10.0, spacing="karras")
    pair = denoisers(gaussian(1, 0.4), gaussian(-1, 0.4))
    found, gained = superpose(pair, noises(2, 3, 2) * 0, levels, noises(19, 2, 3, 2) * 0, operator="or")
    assert torch.equal(gained[0], gained[1])
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-12)


def test_or_follows_the_parent_that_finds_the_state_likely():
    """Two points far apart: each sample falls onto one of them, not between, as a mean of denoisers would."""
    levels = sigma_grid(200, 1e-2, 10.0, spacing="karras")
    pair = denoisers(gaussian(1, 0.02), gaussian(-1, 0.02))
    found, _ = superpose(pair, 10.0 * noises(256, 1, 1), levels, noises(199, 256, 1, 1, seed=1), operator="or")
    assert float((found.abs() - 1).abs().max()) < 0.1
    assert 0.3 < float((found > 0).double().mean()) < 0.7


def test_a_bias_decides_or_where_the_densities_do_not():
    levels = sigma_grid(50, 1e-2, 10.0, spacing="karras")
    pair = denoisers(gaussian(1, 0.4), gaussian(-1, 0.4))
    bias = torch.tensor([50.0, -50.0], dtype=torch.float64)
    zero = noises(4, 1, 1) * 0
    found, _ = superpose(pair, zero, levels, noises(49, 4, 1, 1) * 0, operator="or", bias=bias)
    alone, _ = superpose(denoisers(gaussian(1, 0.4)), zero, levels, noises(49, 4, 1, 1) * 0, operator="or")
    torch.testing.assert_close(found, alone)


def test_the_log_density_gained_is_that_of_the_marginals():
    """Along the path of one parent: log q(y_n, s_n) - log q(y_0, s_0) of the Gaussian marginals, per dimension."""
    n, sd = 4000, 0.5
    levels = sigma_grid(n, 0.05, 5.0, spacing="exponential")
    one, start = gaussian(0.3, sd), 0.3 + math.sqrt(25 + sd**2) * noises(32, 1, 2)
    states = []

    def each(y, sigma):
        states.append((y, sigma))
        return one(y, sigma)[None]

    _, gained = superpose(each, start, levels, noises(n - 1, 32, 1, 2, seed=1), operator="or")

    def log_q(y, sigma):
        var = sd**2 + sigma**2
        return (-((y - 0.3) ** 2) / (2 * var) - 0.5 * math.log(var)).sum(dim=(1, 2))

    expected = log_q(*states[-1]) - log_q(*states[0])
    torch.testing.assert_close(gained[0], expected, rtol=0, atol=0.25)
    assert float(expected.mean()) > 3.0  # so that agreement says something


@pytest.mark.parametrize("n_parents", [2, 3, 5])
def test_and_lets_every_log_density_grow_alike_for_any_number_of_parents(n_parents):
    velocity, kick, h, sigma = noises(n_parents, 4, 3, 2), noises(4, 3, 2, seed=1), 0.1, 1.0
    kappa = equal_density_weights(velocity, h, kick)
    torch.testing.assert_close(kappa.sum(dim=0), torch.ones(4, dtype=torch.float64))
    dy = -2 * h * (kappa[..., None, None] * velocity).sum(dim=0) + kick
    gained = -(h * velocity.square().sum(dim=(2, 3)) + (dy * velocity).sum(dim=(2, 3))) / sigma
    torch.testing.assert_close(gained, gained[:1].expand_as(gained), rtol=0, atol=1e-9)


def test_and_of_two_is_the_papers_formula():
    velocity, kick, h = noises(2, 4, 3, 2), noises(4, 3, 2, seed=1), 0.1

    def dot(a, b):
        return (a * b).sum(dim=(1, 2))

    one, two = velocity
    up = -h * (dot(one, one) - dot(two, two)) - dot(-2 * h * two + kick, one - two)
    expected = up / (-2 * h * dot(one - two, one - two))
    torch.testing.assert_close(equal_density_weights(velocity, h, kick)[0], expected)


@pytest.mark.parametrize("same", [(0, 0), (0, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_parents_that_do_not_differ_share_their_weight_and_stay_finite(same):
    distinct = noises(2, 4, 3, 2).float()
    velocity = distinct[list(same)]
    kappa = equal_density_weights(velocity, 0.1, noises(4, 3, 2, seed=1).float())
    assert torch.isfinite(kappa).all()
    assert float(kappa.abs().max()) < 1e3
    mixed = (kappa[..., None, None] * velocity).sum(dim=0)
    if len(set(same)) == 1:
        torch.testing.assert_close(kappa, torch.full_like(kappa, 1 / len(same)))
        torch.testing.assert_close(mixed, velocity[0])


@pytest.mark.parametrize("operator", ["and", "or"])
def test_identical_parents_give_the_parent(operator):
    one = known("flow", gaussian(0.5, 0.3))
    net = SuperposedModel([one, known("v", gaussian(0.5, 0.3))], operator, n_steps=10).eval()
    alone = SuperposedModel([one, one], operator, levels=net.levels).eval()
    obs, _ = batch(3)
    noise = noises(3, *net.noise_shape).float()
    found = net.sample_normalised(obs, noise)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, alone.sample_normalised(obs, noise), rtol=0, atol=2e-2)


@pytest.mark.parametrize("operator", ["and", "or"])
def test_the_noise_is_an_argument_and_samples_of_a_batch_are_independent(operator):
    net = SuperposedModel([parent("flow"), parent("epsilon", seed=1, clip=1.0)], operator, clip=1.0).eval()
    assert net.noise_shape == (10 * HORIZON, 2)
    obs, _ = batch(3)
    noise = noises(3, *net.noise_shape).float()
    with torch.no_grad():
        first = net.sample(obs, noise)
        assert first.shape == (3, HORIZON, 2)
        assert torch.equal(net.sample(obs, noise), first)
        other = noise.clone()
        other[:, -HORIZON:] += 0.5  # the last noisy step's
        assert not torch.equal(net.sample(obs, other), first)
        alone = [net.sample({k: v[i : i + 1] for k, v in obs.items()}, noise[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), first, rtol=1e-3, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("operator", "families"), [("and", ("flow", "epsilon", "v")), ("or", ("flow", "v"))])
def test_a_superposition_becomes_a_bundle_that_acts_as_torch_does(operator, families, tmp_path):
    parents = [parent(family, seed=i) for i, family in enumerate(families)]
    net = SuperposedModel(parents, operator, n_steps=2, clip=1.5)
    bundle = export_bundle(
        net, tmp_path / "b", spec=SPEC, stats=STATS, n_execute=4, config={}, data_digest="", parity_rounds=1
    )
    assert bundle.manifest.family == "superposed"
    assert bundle.manifest.solver is None  # stepping its denoiser would not superpose
    rng = np.random.default_rng(0)
    obs = {"agent_pos": rng.uniform(0, 500, (2, 2)).astype("f4"), "block_pose": rng.uniform(0, 3, (2, 3)).astype("f4")}
    given = PolicyInput(obs=obs, stamp_ns=0, noise=rng.standard_normal(net.noise_shape).astype("f4"))
    chunk, expected = OnnxPolicy(bundle).act(given), TorchPolicy(net, SPEC, n_execute=4).act(given)
    np.testing.assert_allclose(chunk.action, expected.action, atol=2e-2)  # of a range of 490 px


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda a, b: SuperposedModel([a, b], "xor"), r"`operator` must be one of \('and', 'or'\), got 'xor'"),
        (lambda a, b: SuperposedModel([a, b], "or", temperature=-1.0), "`temperature` must be 0 or more, got -1"),
        (lambda a, b: SuperposedModel([a, b], "or", bias=[1.0]), r"`bias` must be one number for each of 2 parents"),
        (
            lambda a, b: SuperposedModel([a, parent("v", "short", horizon=4)], "and"),
            r"compare densities of the same steps, got chunks over \{'flow': \(-1, 7\), 'short': \(-1, 3\)\}",
        ),
    ],
)
def test_bad_settings_say_what_was_expected(call, text):
    with pytest.raises(ConfigError, match=text):
        call(parent("flow"), parent("v", seed=1))
