"""Disagreement of horizons from the sampler to the executed actions, in torch and from a bundle."""

import functools

import numpy as np
import pytest
import torch

from policies.disagreement import horizons_of, sample_with_disagreement
from policies.export import export_bundle
from policies.horizons import MixtureOfHorizons
from policies.regression import RegressionModel
from policies.torch_policy import TorchBatchPolicy, TorchPolicy
from policies.transformer import ChunkTransformer
from robot_rl.bundle import PolicyBundle
from robot_rl.deploy.consensus import Consensus
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.errors import ConfigError
from robot_rl.values import PolicyInput
from tests.contracts.chunk_model import draws
from tests.contracts.policy import check_policy
from tests.policies.helpers import FAMILIES, HORIZON, SPEC, STATS, batch, encoder

HORIZONS = (2, 4, 6, 8)
SMALL = {"width": 16, "n_layers": 1, "n_heads": 2, "cond_tokens": 2, "time_dim": 8}
RULE = Consensus(n_min=2, min_active=2, ratio=1.1)


def make(family="flow", *, disagreement="final", **kwargs):
    torch.manual_seed(0)
    denoiser = functools.partial(MixtureOfHorizons, horizons=HORIZONS, disagreement=disagreement, **SMALL)
    settings = {"encoder": encoder, "denoiser": denoiser, "n_obs": 2, "horizon": HORIZON, "action_offset": -1} | kwargs
    return (FAMILIES | {"regression": RegressionModel})[family](SPEC, STATS, **settings).eval()


@torch.no_grad()
@pytest.mark.parametrize("disagreement", ["final", "accumulated"])
@pytest.mark.parametrize("family", ["flow", "epsilon", "regression"])
def test_the_chunk_is_the_one_that_is_sampled_without_looking(family, disagreement):
    model, (obs, _) = make(family, disagreement=disagreement), batch()
    noise, _ = draws(model, 3)
    chunk, apart = sample_with_disagreement(model, obs, noise)
    torch.testing.assert_close(chunk, model.sample_normalised(obs, noise))
    assert bool((apart[:, :6] > 0).all())
    assert bool((apart[:, 6:] < 1e-5).all())  # the longest horizon alone is its own mixture


@torch.no_grad()
def test_final_disagreement_is_the_distance_of_the_horizons_own_last_chunks():
    """Stepped by hand: all steps but the last with the mixture, then each horizon by itself."""
    model, (obs, _) = make(n_steps=4), batch()
    noise, _ = draws(model, 3)
    cond, x = model.encode(obs), noise
    for t, after in zip(model.times[:-2], model.times[1:-1], strict=True):
        x = x + (after - t) * model.denoise(x, torch.full((3,), t), cond)
    t = model.times[-2]
    outputs, gate = model.denoiser.per_horizon(*model.network_inputs(x, torch.full((3,), t)), cond)
    chunk, apart = sample_with_disagreement(model, obs, noise)
    expected = torch.zeros(3, HORIZON)
    for i, h in enumerate(HORIZONS):
        own = x - t * outputs[:, i]
        expected[:, :h] += (gate[..., i] * (own - chunk).abs().sum(dim=-1))[:, :h]
    torch.testing.assert_close(apart, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_accumulated_disagreement_of_a_flow_is_that_of_its_velocities():
    model, (obs, _) = make(disagreement="accumulated", n_steps=3), batch()
    noise, _ = draws(model, 3)
    cond, x, expected = model.encode(obs), noise, torch.zeros(3, HORIZON)
    for t, after in zip(model.times[:-1], model.times[1:], strict=True):
        outputs, gate = model.denoiser.per_horizon(*model.network_inputs(x, torch.full((3,), t)), cond)
        velocity = torch.einsum("bhn,bnha->bha", gate, outputs)
        distance = (outputs - velocity[:, None]).abs().sum(dim=-1)
        expected += (t - after) * torch.einsum("bhn,bnh->bh", gate, distance)
        x = x + (after - t) * velocity
    torch.testing.assert_close(sample_with_disagreement(model, obs, noise)[1], expected, rtol=1e-4, atol=1e-5)


def test_a_model_that_cannot_tell_is_refused():
    plain = make(denoiser=functools.partial(ChunkTransformer, **SMALL))
    heun = make(disagreement="accumulated", sampler="heun")
    obs, _ = batch()
    for model in (plain, heun):
        assert horizons_of(model) == ()
        with pytest.raises(ConfigError, match="cannot tell the disagreement of horizons"):
            sample_with_disagreement(model, obs, draws(model, 3)[0])
        with pytest.raises(ConfigError, match="`consensus` needs a policy with a mixture of horizons"):
            TorchPolicy(model, SPEC, n_execute=4, consensus=RULE)
    assert horizons_of(make(sampler="heun")) == HORIZONS


def test_torch_policy_executes_what_the_rule_says():
    model, (obs, _) = make(), batch(20)
    noise, _ = draws(model, 20)
    policy = TorchBatchPolicy(model, SPEC, n_execute=4, consensus=RULE)
    chunks = policy.act_batch({name: value.numpy() for name, value in obs.items()}, noise.numpy())
    with torch.no_grad():
        apart = sample_with_disagreement(model, obs, noise)[1].numpy()
    expected = [RULE.steps(row[1:], [h - 1 for h in HORIZONS]) for row in apart]
    assert chunks.n_execute.tolist() == expected
    assert len(set(expected)) > 1
    plain = TorchBatchPolicy(model, SPEC, n_execute=4).act_batch({n: v.numpy() for n, v in obs.items()}, noise.numpy())
    assert plain.n_execute is None
    np.testing.assert_allclose(plain.action, chunks.action, rtol=1e-5, atol=1e-3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moh") / "bundle"
    export_bundle(make(), folder, spec=SPEC, stats=STATS, n_execute=4, config={}, data_digest="", parity_rounds=1)
    return PolicyBundle.open(folder)


@pytest.mark.slow
def test_bundle_tells_its_horizons_and_their_disagreement(bundle):
    assert OnnxPolicy(bundle).horizons == HORIZONS
    outputs = {tensor.name: tensor.shape for tensor in bundle.manifest.graphs["sample"].outputs}
    assert outputs["disagreement"] == ("B", HORIZON)


def test_bundle_executes_as_many_actions_as_torch(bundle):
    model, (obs, _) = make(), batch(8)
    onnx_policy, torch_policy = (
        OnnxPolicy(bundle, consensus=RULE),
        TorchPolicy(model, SPEC, n_execute=4, consensus=RULE),
    )
    lengths = []
    for i, noise in enumerate(draws(model, 8)[0].numpy()):
        given = PolicyInput(obs={name: value[i].numpy() for name, value in obs.items()}, stamp_ns=i, noise=noise)
        got, expected = onnx_policy.act(given), torch_policy.act(given)
        np.testing.assert_allclose(got.action, expected.action, atol=0.05)  # of 490 px
        assert got.n_execute == expected.n_execute
        lengths.append(got.n_execute)
    assert len(set(lengths)) > 1
    assert OnnxPolicy(bundle).act(given).n_execute is None


def test_policies_with_a_rule_keep_the_contract(bundle):
    shape = (HORIZON, 2)
    check_policy(lambda: OnnxPolicy(bundle, seed=0, consensus=RULE), SPEC, noise_shape=shape)
    check_policy(lambda: TorchPolicy(make(), SPEC, n_execute=4, consensus=RULE), SPEC, noise_shape=shape)


@pytest.mark.slow
def test_bundle_without_a_mixture_refuses_a_rule(tmp_path):
    plain = make(denoiser=functools.partial(ChunkTransformer, **SMALL), n_steps=1)
    export_bundle(plain, tmp_path / "b", spec=SPEC, stats=STATS, n_execute=4, config={}, data_digest="")
    with pytest.raises(ConfigError, match="`consensus` needs a policy with a mixture of horizons"):
        OnnxPolicy(PolicyBundle.open(tmp_path / "b"), consensus=RULE)
