"""Convex composition: what it reproduces, what it samples, what it costs. T-numbers are the specification's."""

import copy
import functools

import numpy as np
import pytest
import torch

from policies.agreement import shared_levels
from policies.compose import ComposedModel
from policies.encoders import StateEncoder
from policies.export import export_bundle
from policies.torch_policy import TorchPolicy
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.schedules import sigma_grid
from robot_rl.values import PolicyInput
from tests.contracts.chunk_model import check_chunk_model, draws
from tests.policies.helpers import HORIZON, SPEC, STATS, batch
from tests.policies.parents import gaussian, known, parent

FAMILIES = ("flow", "epsilon", "sample", "v")


def on_the_grid(one, levels):
    """Return the parent's own model with the grid as its solver times."""
    own = copy.deepcopy(one.model)
    own.times = [own.path.time(level) for level in levels]
    return own


def normalised(net, noise):
    obs, _ = batch(len(noise))
    with torch.no_grad():
        return net.sample_normalised(obs, noise)


@pytest.mark.parametrize("other", ["epsilon", "sample", "v"])
def test_t16_a_weight_of_one_is_the_parent_to_the_last_bit(other):
    parents = [parent("flow", noise_scale=0.5), parent(other, seed=1, clip=1.0)]
    obs, _ = batch(4)
    for i, weights in enumerate([(1.0, 0.0), (0.0, 1.0)]):
        net = ComposedModel(parents, weights).eval()
        own = on_the_grid(parents[i], net.levels)
        noise = draws(net, 4)[0]
        with torch.no_grad():
            assert torch.equal(net.sample(obs, noise), own.sample(obs, noise))
            assert torch.equal(net.sample_normalised(obs, noise), own.sample_normalised(obs, noise))


def test_the_grid_is_the_diffusion_parents_own_so_it_alone_samples_as_ever():
    parents = [parent("flow"), parent("epsilon", seed=1, clip=1.0)]
    net = ComposedModel(parents, (0.0, 1.0)).eval()
    noise = draws(net, 3)[0]
    assert torch.equal(normalised(net, noise), normalised(parents[1].model, noise))


def test_two_flow_parents_keep_the_flow_grid_from_pure_noise():
    parents = [parent("flow", "one"), parent("flow", "two", seed=1)]
    net = ComposedModel(parents, (1.0, 0.0)).eval()
    assert net.times == parents[0].model.times
    noise = draws(net, 3)[0]
    assert torch.equal(normalised(net, noise), normalised(parents[0].model, noise))
    assert torch.isfinite(normalised(ComposedModel(parents, (0.4, 0.6)).eval(), noise)).all()


@pytest.mark.parametrize("w", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_t17_identical_parents_give_the_parent_at_any_weight(family, w):
    one = parent(family)
    net = ComposedModel([one, one], (w, 1.0 - w)).eval()
    noise = draws(net, 3)[0]
    torch.testing.assert_close(normalised(net, noise), normalised(one.model, noise), rtol=0, atol=2e-5)


def test_the_host_changes_nothing_but_rounding():
    """Weights on either side of one half keep the state in flow's and in diffusion's coordinates."""
    parents = [parent("flow"), parent("v", seed=1)]
    noise = draws(parents[0].model, 3)[0]
    flow, vp = (ComposedModel(parents, (0.5 + d, 0.5 - d)).eval() for d in (1e-6, -1e-6))
    assert (flow.path.kind, vp.path.kind) == ("flow", "vp")
    torch.testing.assert_close(normalised(flow, noise), normalised(vp, noise), rtol=0, atol=1e-3)


def test_the_parts_of_a_mixture_are_weighted_as_told():
    parents = [known("flow", lambda y, s: y * 0 + 1.0), known("epsilon", lambda y, s: y * 0 - 0.5)]
    net = ComposedModel(parents, (0.3, 0.7)).eval()
    expected = torch.full((2, HORIZON, 2), 0.3 * 1.0 - 0.7 * 0.5)
    torch.testing.assert_close(normalised(net, draws(net, 2)[0]), expected, rtol=0, atol=1e-5)


def test_the_clip_bounds_the_mixture_and_not_its_parts():
    parents = [known("flow", lambda y, s: y * 0 + 3.0), known("v", lambda y, s: y * 0 - 2.0)]
    for clip, expected in ((None, 0.5), (0.4, 0.4), (1.0, 0.5)):
        net = ComposedModel(parents, (0.5, 0.5), clip=1.0).eval()
        net.clip = clip
        found = normalised(net, draws(net, 2)[0])
        torch.testing.assert_close(found, torch.full_like(found, expected), rtol=0, atol=1e-4)


def test_the_clip_of_a_mixture_is_the_loosest_of_those_who_take_part():
    tight, wide, free = parent("v", clip=1.0), parent("sample", clip=1.5), parent("flow")
    parents = [tight, wide, free]
    for weights, clip in (
        ((1.0, 0.0, 0.0), 1.0),
        ((0.5, 0.5, 0.0), 1.5),
        ((0.5, 0.0, 0.5), None),
        ((0.0, 0.0, 1.0), None),
    ):
        assert ComposedModel(parents, weights).clip == clip


def sampled(parents, weights, levels, n=4096):
    """Return the chunks sampled, their mean at zero noise and their spread per unit of noise."""
    net = ComposedModel(parents, weights, levels=levels).eval()
    noise = torch.randn(n // 16, HORIZON, 2, generator=torch.Generator().manual_seed(3))
    found = normalised(net, noise)
    slope = float((found * noise).mean() - found.mean() * noise.mean()) / float(noise.var())
    return found, float(found.mean()) - slope * float(noise.mean()), slope


def test_t19_equal_variances_give_the_weighted_mean():
    parents = [known("flow", gaussian(1, 0.3), "a"), known("flow", gaussian(-1, 0.3), "b")]
    found, mean, slope = sampled(parents, (0.4, 0.6), sigma_grid(400, 1e-3, 200.0, spacing="exponential"))
    assert mean == pytest.approx(-0.2, abs=2e-3)
    assert slope == pytest.approx(0.3, abs=4e-3)
    assert float(found.std()) == pytest.approx(0.3, abs=1e-2)


def test_t20_unequal_variances_do_not_give_the_product_of_the_densities():
    """The probability flow of the mean score: sd .2^.4 .5^.6 = .3466, mean .093; the product has .284 and .613."""
    parents = [known("flow", gaussian(1, 0.2), "a"), known("flow", gaussian(-1, 0.5), "b")]
    _, mean, slope = sampled(parents, (0.4, 0.6), sigma_grid(400, 1e-3, 200.0, spacing="exponential"))
    assert slope == pytest.approx(0.34657, abs=5e-3)
    assert mean == pytest.approx(0.093, abs=8e-3)


@pytest.mark.parametrize("w", [0.0, 0.25, 0.4, 0.75, 1.0])
def test_t24_a_diffusion_and_a_flow_parent_of_one_gaussian_are_either(w):
    parents = [known("flow", gaussian(0.7, 0.3)), known("epsilon", gaussian(0.7, 0.3))]
    found = []
    for weights in ((w, 1 - w), (1.0, 0.0), (0.0, 1.0)):
        net = ComposedModel(parents, weights).eval()
        found.append(normalised(net, draws(net, 8)[0]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[0], found[2], rtol=0, atol=1e-5)


def test_t21_the_error_of_a_mixture_is_the_quadratic_of_its_parents_errors():
    """b1 = (.3, -.1), b2 = (-.2, .4), E|n1|^2 = .5, E|n2|^2 = .2, E<n1, n2> = .05: at best .215909, at w = .409091."""
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # exact moments of a pair of coins
    own = torch.linalg.cholesky(torch.tensor([[0.25, 0.025], [0.025, 0.1]]))
    noise = torch.einsum("ij,bj->bi", own, signs)  # [4, 2 parents]; the same in both action elements
    bias = torch.tensor([[0.3, -0.1], [-0.2, 0.4]])

    def wrong(i):
        return lambda y, s: (bias[i] + noise[:, i, None])[:, None].expand_as(y)

    parents = [known("flow", wrong(0), "a"), known("v", wrong(1), "b")]
    error = {}
    for w in (0.0, 0.3, 0.409091, 0.6, 1.0):
        net = ComposedModel(parents, (w, 1 - w)).eval()
        found = normalised(net, draws(net, 4)[0])  # the truth is zero everywhere
        error[w] = float(found.square().sum(dim=-1).mean())
    assert [error[0.0], error[1.0], error[0.409091]] == pytest.approx([0.4, 0.6, 0.215909], abs=1e-4)
    assert min(error, key=error.get) == 0.409091


def test_a_parent_of_weight_zero_is_not_asked_at_all():
    parents = [known("flow", gaussian(0, 1)), known("epsilon", gaussian(0, 1)), known("v", gaussian(0, 1))]
    net = ComposedModel(parents, (0.5, 0.0, 0.5)).eval()
    normalised(net, draws(net, 2)[0])
    assert [p.model.denoiser.calls for p in parents] == [10, 0, 10]


def test_parents_that_see_different_things_over_different_times_read_their_own():
    a = parent("flow", "a", reads=["agent_pos"], encoder=functools.partial(StateEncoder, names=["agent_pos"]), n_obs=1)
    b = parent("v", "b", seed=1, reads=["block_pose"], encoder=functools.partial(StateEncoder, names=["block_pose"]))
    net = ComposedModel([a, b], (0.5, 0.5)).eval()
    assert net.n_obs == 2
    obs, _ = batch(3)
    noise = draws(net, 3)[0]
    first = net.sample(obs, noise)
    older = obs | {"agent_pos": torch.cat([obs["agent_pos"][:, :1] + 50, obs["agent_pos"][:, 1:]], dim=1)}
    assert torch.equal(net.sample(older, noise), first)  # a reads the newest step alone
    older = obs | {"block_pose": torch.cat([obs["block_pose"][:, :1] + 5, obs["block_pose"][:, 1:]], dim=1)}
    assert not torch.equal(net.sample(older, noise), first)
    condition = torch.cat([a.model.encode({k: v[:, -1:] for k, v in obs.items()}), b.model.encode(obs)], dim=1)
    assert torch.equal(net.encode(obs), condition)


def test_chunks_of_unequal_length_mix_where_both_reach_and_the_longer_goes_on_alone():
    """Both chunks are placed by control step: a starts one step before the newest observation, b at it."""
    a = known("flow", lambda y, s: y * 0 + 1.0, horizon=8, action_offset=-1)  # steps -1 ... 6
    b = known("v", lambda y, s: y * 0 - 1.0, horizon=4, action_offset=0)  # steps 0 ... 3
    net = ComposedModel([a, b], (0.25, 0.75)).eval()
    assert (net.horizon, net.action_offset) == (8, -1)
    found = normalised(net, draws(net, 2)[0])[0, :, 0]
    expected = [1.0, -0.5, -0.5, -0.5, -0.5, 1.0, 1.0, 1.0]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-5)
    alone = ComposedModel([a, b], (0.0, 1.0))
    assert (alone.horizon, alone.action_offset) == (4, 0)


def test_the_shorter_parent_sees_its_own_steps_of_the_shared_noise():
    a, b = parent("flow", "a", horizon=8, action_offset=0), parent("flow", "b", seed=1, horizon=4, action_offset=0)
    net = ComposedModel([a, b], (0.0, 1.0), levels=shared_levels([a.model, b.model]))
    noise = torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(normalised(net.eval(), noise[:, :4]), normalised(b.model, noise[:, :4]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_composition_meets_the_contract_of_a_chunk_model(family):
    obs, target = batch()
    check_chunk_model(ComposedModel([parent("flow"), parent(family, seed=1)], (0.4, 0.6)), obs, target)


def test_three_families_and_denoisers_compose():
    parents = [parent("flow"), parent("epsilon", seed=1, denoiser="transformer"), parent("v", seed=2, denoiser="unet")]
    net = ComposedModel(parents, (0.2, 0.3, 0.5)).eval()
    noise = draws(net, 2)[0]
    assert torch.isfinite(normalised(net, noise)).all()
    names = [name for name, _ in net.named_parameters()]
    assert len(names) == sum(len(list(p.model.parameters())) for p in parents)  # every weight once


@pytest.mark.slow
def test_a_composition_becomes_a_bundle_that_acts_as_torch_does(tmp_path):
    a = parent("flow", "a", reads=["agent_pos"], encoder=functools.partial(StateEncoder, names=["agent_pos"]), n_obs=1)
    b = parent(
        "epsilon", "b", seed=1, reads=["block_pose"], encoder=functools.partial(StateEncoder, names=["block_pose"])
    )
    net = ComposedModel([a, b], (0.6, 0.4), n_steps=2, clip=1.5)
    bundle = export_bundle(
        net, tmp_path / "bundle", spec=SPEC, stats=STATS, n_execute=4, config={}, data_digest="", parent="a,b",
        graphs=("sample", "encode", "denoise"), parity_rounds=1,
    )  # fmt: skip
    assert (bundle.manifest.family, bundle.manifest.parent) == ("composed", "a,b")
    rng = np.random.default_rng(0)
    obs = {"agent_pos": rng.uniform(0, 500, (2, 2)).astype("f4"), "block_pose": rng.uniform(0, 3, (2, 3)).astype("f4")}
    given = PolicyInput(obs=obs, stamp_ns=0, noise=rng.standard_normal((HORIZON, 2)).astype("f4"))
    chunk, expected = OnnxPolicy(bundle).act(given), TorchPolicy(net, SPEC, n_execute=4).act(given)
    np.testing.assert_allclose(chunk.action, expected.action, atol=2e-2)  # of a range of 490 px
