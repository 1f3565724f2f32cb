"""Guided sampling of real models: T37, the derivative against finite differences, and numpy beside torch."""

import dataclasses

import numpy as np
import pytest
import torch

from policies.export import export_bundle
from policies.rtc import TorchSampler, sample_guided
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.deploy.promises import ChunkSampler, Promise, SampledPolicy
from robot_rl.deploy.realtime_chunking import GuidedDenoiser, RealtimeChunking, prefix_weights
from robot_rl.deploy.stepping import BundleDenoiser
from robot_rl.errors import ConfigError, SpecError
from robot_rl.values import PolicyInput
from tests.contracts.policy import check_policy
from tests.policies import helpers

H, PAST = helpers.HORIZON, 1  # the helpers' chunk starts one step before the newest observation


def inputs(size: int = 4):
    obs, target = helpers.batch(size)
    noise = np.random.default_rng(0).standard_normal((size, H, 2), dtype=np.float32)
    return {name: value.numpy() for name, value in obs.items()}, target.numpy(), noise


def promise(target: np.ndarray, length: list[int], delay: list[int]) -> Promise:
    return Promise(target[:, PAST:], np.array(length), np.array(delay))


def chunking(schedule: str = "exp", family: str = "flow", jacobian: str = "vjp", **options):
    sampler = TorchSampler(helpers.model(family, **options), helpers.SPEC, n_execute=4, jacobian=jacobian)
    return sampler, RealtimeChunking(sampler, sampler, schedule=schedule)


@pytest.mark.parametrize("family", ["flow", "epsilon"])
@pytest.mark.parametrize("jacobian", ["vjp", "identity"])
def test_t37_when_guided_sampling_is_plain_sampling_and_when_it_is_not(family, jacobian):
    obs, target, noise = inputs()
    plain, soft = chunking("exp", family, jacobian)
    expected = plain.chunks(obs, noise)
    np.testing.assert_array_equal(soft.chunks(obs, noise), expected)  # no previous chunk
    none_left = promise(target, [0] * 4, [0] * 4)
    np.testing.assert_array_equal(soft.chunks(obs, noise, none_left), expected)  # s = H
    _, hard = chunking("zeros", family, jacobian)
    np.testing.assert_array_equal(hard.chunks(obs, noise, promise(target, [7] * 4, [0] * 4)), expected)
    guided = soft.chunks(obs, noise, promise(target, [4] * 4, [0] * 4))
    assert np.abs(guided - expected)[:, 0].max() > 1.0  # pixels: soft mask, d = 0, s < H


def test_robots_without_a_promise_get_the_plain_chunk_in_a_mixed_batch():
    obs, target, noise = inputs()
    plain, guided = chunking()
    got = guided.chunks(obs, noise, promise(target, [4, 0, 7, 0], [2, 0, 3, 0]))
    alone = plain.chunks({name: value[[1, 3]] for name, value in obs.items()}, noise[[1, 3]])
    np.testing.assert_array_equal(got[[1, 3]], alone)
    assert np.abs(got - plain.chunks(obs, noise))[[0, 2]].max() > 1.0


@pytest.mark.parametrize(
    ("family", "jacobian"),
    [(family, jacobian) for family in ("flow", "epsilon", "v") for jacobian in ("vjp", "identity")],
)
def test_guidance_brings_the_frozen_actions_nearer_to_what_was_promised(family, jacobian):
    obs, target, noise = inputs(8)
    plain, guided = chunking("exp", family, jacobian)
    given = promise(target, [5] * 8, [3] * 8)
    before = np.abs(plain.chunks(obs, noise) - target[:, PAST:])[:, :3].mean()
    after = np.abs(guided.chunks(obs, noise, given) - target[:, PAST:])[:, :3].mean()
    assert after < (0.5 if (family, jacobian) == ("flow", "identity") else 1.0) * before


def test_missing_actions_are_masked_and_not_filled_in():
    """What lies beyond the promise, zeros or anything else, makes no difference."""
    obs, target, noise = inputs()
    _, guided = chunking()
    short = guided.chunks(obs, noise, promise(target, [3] * 4, [1] * 4))
    padded = target.copy()
    padded[:, PAST + 3 :] = 0.0
    np.testing.assert_array_equal(guided.chunks(obs, noise, promise(padded, [3] * 4, [1] * 4)), short)
    cut = Promise(target[:, PAST : PAST + 3], np.array([3] * 4), np.array([1] * 4))
    np.testing.assert_array_equal(guided.chunks(obs, noise, cut), short)


def test_the_derivative_is_that_of_the_denoiser_in_flow_coordinates():
    """One step of guidance against finite differences of D, for a diffusion whose x is not the flow's."""
    model = helpers.model("epsilon", clip=None).double()
    obs, target, noise = inputs(1)
    obs_t = {name: torch.as_tensor(value).double() for name, value in obs.items()}
    x, goal = torch.as_tensor(noise).double(), model.normalised(obs_t, torch.as_tensor(target).double()).detach()
    held = torch.linspace(1, 0, H).double()[None]
    model.times = [60.0, -1.0]
    alpha, sigma = model.path.coefficients(60.0)

    def denoised(x):
        return model.path.denoised(x, 60.0, model.denoise(x, x.new_full((1,), 60.0), model.encode(obs_t)))

    with torch.no_grad():
        start = model.path.initial(x, 60.0)
        clean = denoised(start)
        error = (held[..., None] * (goal - clean)).flatten()
        step = 1e-5
        columns = []
        for i in range(start.numel()):
            moved = start.flatten().clone()
            moved[i] += step
            columns.append((denoised(moved.reshape(start.shape)) - clean).flatten() / step)
        pulled = torch.stack(columns) @ error  # J^T e, entry i = sum_j dD_j/dx_i e_j
        tau = alpha / (alpha + sigma)
        gain = min(5.0, (tau**2 + (1 - tau) ** 2) / (tau * (1 - tau)), 1 / (1 - tau))
        expected = clean + (1 - tau) * gain * (alpha + sigma) * pulled.reshape(clean.shape)
        model.noise_scale = 1.0
        got = sample_guided(model, obs_t, x, target=goal, weights=held, beta=5.0, jacobian="vjp")
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
    assert (expected - clean).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("family", ["flow", "epsilon"])
def test_the_robots_numpy_form_is_torchs_identity_form(tmp_path, family):
    options = {"clip": 1.2} if family == "flow" else {}
    model = helpers.model(family, **options)
    bundle = export_bundle(
        model, tmp_path / "b", spec=helpers.SPEC, stats=helpers.STATS, n_execute=4, config={}, data_digest="",
        graphs=("sample", "encode", "denoise"), parity_rounds=1,
    )  # fmt: skip
    in_torch = TorchSampler(model, helpers.SPEC, n_execute=4, jacobian="identity")
    onnx, denoiser = OnnxPolicy(bundle), BundleDenoiser(bundle)
    assert isinstance(in_torch, ChunkSampler)
    assert isinstance(onnx, ChunkSampler)
    assert isinstance(in_torch, GuidedDenoiser)
    assert isinstance(denoiser, GuidedDenoiser)
    obs, target, noise = inputs()
    given = promise(target, [5, 2, 0, 7], [2, 2, 0, 0])
    got = RealtimeChunking(onnx, denoiser).chunks(obs, noise, given)
    expected = RealtimeChunking(in_torch, in_torch).chunks(obs, noise, given)
    np.testing.assert_allclose(got / 230, expected / 230, atol=5e-4)
    np.testing.assert_array_equal(RealtimeChunking(onnx, denoiser).chunks(obs, noise), onnx.chunks(obs, noise))
    check_policy(
        lambda: SampledPolicy(RealtimeChunking(OnnxPolicy(bundle), denoiser), seed=0), helpers.SPEC, noise_shape=(H, 2)
    )


def test_a_promise_to_a_relative_model_is_anchored_at_what_is_seen_now():
    """The same promised positions mean other differences after the robot moved; the model is held to the positions."""
    reach = np.full((H, 2), 60.0)
    stats = {**helpers.STATS, "action_relative": helpers.field_stats(-reach, reach)}
    model = helpers.FAMILIES["flow"](
        helpers.SPEC, stats, denoiser=helpers.DENOISERS["mlp"], encoder=helpers.encoder, n_obs=2, horizon=H,
        relative_to=["agent_pos"],
    )  # fmt: skip
    sampler = TorchSampler(model, helpers.SPEC, n_execute=4, jacobian="identity")
    guided = RealtimeChunking(sampler, sampler, schedule="ones", beta=50.0)
    obs, _, noise = inputs(2)
    obs["agent_pos"][:] = 250.0
    held = np.full((2, H, 2), 262.0, dtype=np.float32)
    for shift in (0.0, 20.0):
        moved = {**obs, "agent_pos": obs["agent_pos"] + np.float32(shift)}
        got = guided.chunks(moved, noise, Promise(held, np.array([H, H]), np.array([3, 3])))
        assert np.abs(got - 262.0).max() < 8.0, "the chunk is at the promised positions, wherever the robot is"


def test_the_delay_and_the_prefix_of_a_request_reach_the_sampler():
    obs, target, noise = inputs(1)
    plain, guided = chunking("linear")
    policy = SampledPolicy(guided, seed=0)
    one = {name: value[0] for name, value in obs.items()}
    request = PolicyInput(obs=one, stamp_ns=7, noise=noise[0], prefix=target[0, PAST : PAST + 5], delay_steps=2)
    got = policy.act(request)
    np.testing.assert_array_equal(got.action, guided.chunks(obs, noise, promise(target, [5], [2]))[0])
    assert (got.start_ns, got.step_ns) == (7, helpers.SPEC.step_ns)
    fresh = policy.act(dataclasses.replace(request, prefix=None, delay_steps=0))
    np.testing.assert_array_equal(fresh.action, plain.chunks(obs, noise)[0])
    with pytest.raises(SpecError, match=r"`prefix` must be \[P, 2\] in physical units, got shape \(5, 3\)"):
        policy.act(dataclasses.replace(request, prefix=np.zeros((5, 3))))
    with pytest.raises(SpecError, match="`delay_steps` must be 0 or more, got -1"):
        policy.act(dataclasses.replace(request, delay_steps=-1))


def test_rows_before_the_newest_observation_are_free():
    _, guided = chunking()
    target = np.zeros((1, H, 2), dtype=np.float32)
    weights = guided.weights(promise(target, [4], [2]))
    assert weights.shape == (1, H)
    np.testing.assert_allclose(weights[0, 1:], prefix_weights(H - 1, delay=np.array([2]), end=np.array([4]))[0])
    assert weights[0, 0] == 0.0


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match=r"`jacobian` must be one of \('vjp', 'identity'\), got 'none'"):
        TorchSampler(helpers.model(), helpers.SPEC, n_execute=4, jacobian="none")
    with pytest.raises(ConfigError, match="`beta` must be positive, got 0"):
        RealtimeChunking(*[TorchSampler(helpers.model(), helpers.SPEC, n_execute=4)] * 2, beta=0)
