"""Stepping a real model's denoiser in numpy is what its `sample` graph does, for every family."""

import numpy as np
import pytest

from policies.export import export_bundle
from robot_rl.bundle import PolicyBundle
from robot_rl.deploy.onnx_policy import OnnxPolicy, open_session
from robot_rl.deploy.stepping import BundleDenoiser
from robot_rl.errors import BundleError
from robot_rl.values import PolicyInput
from tests.policies import helpers

GRAPHS = ("sample", "encode", "denoise")


def export(path, family: str = "flow", *, graphs=GRAPHS, **options) -> PolicyBundle:
    torch_model = helpers.model(family, **options)
    return export_bundle(
        torch_model, path, spec=helpers.SPEC, stats=helpers.STATS, n_execute=4, config={}, data_digest="",
        graphs=graphs, parity_rounds=1,
    )  # fmt: skip


def inputs(size: int = 3):
    obs, target = helpers.batch(size)
    noise = np.random.default_rng(0).standard_normal((size, helpers.HORIZON, 2), dtype=np.float32)
    return {name: value.numpy() for name, value in obs.items()}, target.numpy(), noise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("flow", {}),
        ("flow", {"noise_scale": 0.5, "clip": 1.2, "n_steps": 4}),
        ("flow", {"sampler": "heun"}),
        ("epsilon", {"sampler": "ancestral"}),
        ("sample", {}),
        ("v", {}),
    ],
)
def test_stepping_the_denoiser_gives_what_the_sample_graph_gives(tmp_path, family, options):
    bundle = export(tmp_path / "bundle", family, **options)
    obs, target, _ = inputs()
    denoiser = BundleDenoiser(bundle)
    noise = np.random.default_rng(0).standard_normal((3, *denoiser.noise_shape), dtype=np.float32)
    sample = open_session(bundle, "sample")
    action, normalised = sample.run(
        ["action", "normalised"], {**{f"obs.{name}": value for name, value in obs.items()}, "noise": noise}
    )
    np.testing.assert_allclose(denoiser.sample_normalised(obs, noise), normalised, atol=2e-4)
    np.testing.assert_allclose(denoiser.sample(obs, noise) / 230, action / 230, atol=2e-4)
    np.testing.assert_allclose(denoiser.physical(obs, denoiser.normalised(obs, target)), target, rtol=1e-5)


@pytest.mark.slow
def test_relative_chunks_are_anchored_at_the_newest_observation(tmp_path):
    relative = helpers.field_stats(np.full((helpers.HORIZON, 2), -50.0), np.linspace(10, 80, 16).reshape(8, 2))
    stats = {**helpers.STATS, "action_relative": relative}
    torch_model = helpers.FAMILIES["flow"](
        helpers.SPEC, stats, denoiser=helpers.DENOISERS["mlp"], encoder=helpers.encoder, n_obs=2,
        horizon=helpers.HORIZON, relative_to=["agent_pos"],
    )  # fmt: skip
    bundle = export_bundle(
        torch_model, tmp_path / "b", spec=helpers.SPEC, stats=stats, n_execute=4, config={}, data_digest="",
        graphs=GRAPHS, parity_rounds=1,
    )  # fmt: skip
    obs, target, noise = inputs()
    denoiser = BundleDenoiser(bundle)
    np.testing.assert_allclose(denoiser.reference(obs)[:, 0], obs["agent_pos"][:, -1])
    moved = {**obs, "agent_pos": obs["agent_pos"] + np.float32(7.0)}
    before, after = denoiser.normalised(obs, target), denoiser.normalised(moved, target)
    np.testing.assert_allclose(before - after, np.broadcast_to(7.0 * denoiser._scale, before.shape), atol=1e-4)
    chunk = OnnxPolicy(bundle).act(
        PolicyInput(obs={name: value[0] for name, value in obs.items()}, stamp_ns=0, noise=noise[0])
    )
    low, high = helpers.STATS["action"].min, helpers.STATS["action"].max
    np.testing.assert_allclose(np.clip(denoiser.sample(obs, noise)[0], low, high), chunk.action, rtol=1e-4)


def test_a_bundle_that_says_nothing_of_its_solver_is_refused_with_what_to_do(make_bundle):
    with pytest.raises(BundleError, match=r"does not say how to step .*package\.graphs=\[sample,encode,denoise\]"):
        BundleDenoiser(make_bundle())


@pytest.mark.slow
def test_a_bundle_without_the_parts_names_the_missing_graph(tmp_path):
    with pytest.raises(BundleError, match=r"has no graph `encode`; it has \['sample'\]"):
        BundleDenoiser(export(tmp_path / "bundle", graphs=("sample",)))
