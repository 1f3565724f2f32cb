"""What leaves torch is measured against torch; the real models, small."""

import dataclasses
import functools
import json

import numpy as np
import pytest
import torch

from policies.encoders import StateEncoder
from policies.export import export_bundle
from policies.flow import FlowModel
from policies.mlp import ResidualMLP
from policies.torch_policy import TorchPolicy
from robot_rl.bundle import PolicyBundle
from robot_rl.data.normalizer import FieldStats
from robot_rl.deploy.onnx_policy import OnnxPolicy, open_session, smoke_run
from robot_rl.errors import BundleError, ConfigError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import PolicyInput

SPEC = RobotSpec(
    name="table",
    obs={"xy": ArraySpec(name="xy", shape=(2,), unit="px"), "pose": ArraySpec(name="pose", shape=(3,), unit="px, rad")},
    action=ActionSpec(name="action", shape=(2,), unit="px", kind="position", low=0.0, high=512.0),
    control_hz=10,
)


def stats(n: int, low: float, high: float) -> FieldStats:
    a, b = np.full(n, low), np.full(n, high)
    return FieldStats(a, b, (a + b) / 2, (b - a) / 4, a, b, 100)


STATS = {"xy": stats(2, 0.0, 512.0), "pose": stats(3, 0.0, 6.0), "action": stats(2, 20.0, 480.0)}
CONFIG = {"n_steps": 3, "seed": None}


def small_flow() -> FlowModel:
    torch.manual_seed(0)
    denoiser = functools.partial(ResidualMLP, width=32, n_blocks=1, time_dim=16)
    encoder = functools.partial(StateEncoder, angles={"pose": [2]})
    return FlowModel(SPEC, STATS, encoder=encoder, denoiser=denoiser, n_obs=2, horizon=8, action_offset=-1, n_steps=3)


@pytest.fixture(scope="module")
def model() -> FlowModel:
    return small_flow()


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory) -> PolicyBundle:
    return export_bundle(
        model, tmp_path_factory.mktemp("export") / "bundle", spec=SPEC, stats=STATS, n_execute=4, config=CONFIG,
        data_digest="abc", graphs=("sample", "encode", "denoise"), parent="p", created="2026-01-01",
    )  # fmt: skip


def random_obs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"xy": rng.uniform(0, 512, (2, 2)).astype("f4"), "pose": rng.uniform(0, 6, (2, 3)).astype("f4")}


def test_manifest_says_what_was_exported(bundle, model):
    manifest = PolicyBundle.open(bundle.path).manifest
    assert manifest.robot.to_dict() == SPEC.to_dict()
    assert (manifest.n_obs, manifest.horizon, manifest.n_execute, manifest.action_offset) == (2, 8, 4, -1)
    assert (manifest.action_low, manifest.action_high) == ((20.0, 20.0), (480.0, 480.0))
    assert (manifest.family, manifest.data_digest, manifest.parent) == ("flow", "abc", "p")
    assert manifest.normaliser["action"]["max"] == [480.0, 480.0]
    assert manifest.parity.n == 48
    assert 0 < manifest.parity.max_abs_normalised <= 1e-4
    assert json.loads(bundle.file("config.yaml").read_text()) == CONFIG
    inputs = {t.name: (t.dtype, t.shape) for t in manifest.graphs["sample"].inputs}
    assert inputs == {
        "obs.xy": ("float32", ("B", 2, 2)), "obs.pose": ("float32", ("B", 2, 3)), "noise": ("float32", ("B", 8, 2)),
    }  # fmt: skip
    for name, value in bundle.weights().items():
        np.testing.assert_array_equal(value, model.state_dict()[name].numpy())


def test_onnx_policy_is_the_torch_policy(bundle, model):
    """Same observations, same noise: same chunk, after slicing and clamping."""
    onnx_policy, torch_policy = OnnxPolicy(bundle), TorchPolicy(model, SPEC, n_execute=4)
    rng = np.random.default_rng(1)
    for scale in (1.0, 5.0):  # 5: far out in the noise, so that the clamp acts
        noise = (scale * rng.standard_normal((8, 2))).astype("f4")
        given = PolicyInput(obs=random_obs(rng), stamp_ns=5, noise=noise)
        got, expected = onnx_policy.act(given), torch_policy.act(given)
        assert got.action.shape == (7, 2)
        assert (got.start_ns, got.step_ns) == (expected.start_ns, expected.step_ns)
        np.testing.assert_allclose(got.action / 230, expected.action / 230, atol=1e-4)


def test_steps_of_the_solver_can_be_taken_outside_the_graph(bundle, model):
    """encode + denoise, stepped by hand with Euler, give what `sample` gives."""
    encode, denoise, sample = (open_session(bundle, name) for name in ("encode", "denoise", "sample"))
    rng = np.random.default_rng(2)
    obs = {f"obs.{name}": value[None] for name, value in random_obs(rng).items()}
    noise = rng.standard_normal((1, 8, 2), dtype=np.float32)
    (cond,) = encode.run(None, obs)
    x = noise
    for now, later in zip(model.times[:-1], model.times[1:], strict=True):
        (velocity,) = denoise.run(None, {"x": x, "t": np.array([now], np.float32), "cond": cond})
        x = (x + (later - now) * velocity).astype(np.float32)
    (action,) = sample.run(["action"], {**obs, "noise": noise})
    scale, offset = (tensor.numpy() for tensor in (model.normalizer.scale, model.normalizer.offset))
    np.testing.assert_allclose(action * scale + offset, x, atol=1e-5)


def test_a_bundle_of_the_real_model_is_accepted(bundle):
    smoke_run(bundle)
    bundle.check_fits(SPEC)


def test_too_large_a_difference_publishes_nothing_and_leaves_the_model_as_it_was(tmp_path):
    model = small_flow().train()
    with pytest.raises(
        BundleError, match=r"graph `sample` differs from torch by .*, expected at most 1e-12; nothing was"
    ):
        export_bundle(
            model, tmp_path / "x", spec=SPEC, stats=STATS, n_execute=4, config=CONFIG, data_digest="",
            tolerance=1e-12, parity_rounds=1,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


def test_spec_with_an_observation_the_model_does_not_read(model, tmp_path):
    obs = {**SPEC.obs, "other": ArraySpec(name="other", shape=(1,))}
    with pytest.raises(BundleError, match=r"reads .*, expected .*obs.other.*; restrict `spec` to what the model reads"):
        export_bundle(
            model, tmp_path / "x", spec=dataclasses.replace(SPEC, obs=obs), stats=STATS, n_execute=4, config=CONFIG,
            data_digest="",
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_relative_actions_whose_first_steps_hardly_move(tmp_path):
    """A range of 2e-4 on values near 3: float32 rounding of the absolute action must not count as disparity."""
    spec = dataclasses.replace(SPEC, obs={"xy": dataclasses.replace(SPEC.obs["xy"], unit="rad")})
    reach = np.linspace(1e-4, 0.5, 8)[:, None] * np.ones((8, 2))
    relative = FieldStats(-reach, reach, 0 * reach, reach / 2, -reach, reach, 100)
    known = {"xy": stats(2, 2.5, 2.9), "action": stats(2, 2.4, 3.0), "action_relative": relative}
    denoiser = functools.partial(ResidualMLP, width=16, n_blocks=1, time_dim=8)
    torch.manual_seed(0)
    model = FlowModel(
        spec, known, encoder=StateEncoder, denoiser=denoiser, n_obs=1, horizon=8, n_steps=1, relative_to=["xy"]
    )
    bundle = export_bundle(model, tmp_path / "x", spec=spec, stats=known, n_execute=4, config={}, data_digest="")
    assert bundle.manifest.parity.max_abs_normalised <= 1e-5
    here = np.array([[2.7, 2.8]], dtype=np.float32)
    noise = np.zeros((8, 2), np.float32)
    chunk = OnnxPolicy(bundle).act(PolicyInput(obs={"xy": here}, stamp_ns=0, noise=noise))
    assert np.abs(chunk.action - here).max(axis=1)[0] < 1e-3
    expected = TorchPolicy(model, spec, n_execute=4).act(PolicyInput(obs={"xy": here}, stamp_ns=0, noise=noise))
    np.testing.assert_allclose(chunk.action, expected.action, atol=1e-6)


def test_an_existing_folder_is_refused_before_any_work(model, tmp_path):
    with pytest.raises(BundleError, match="exists already; a bundle is immutable"):
        export_bundle(model, tmp_path, spec=SPEC, stats=STATS, n_execute=4, config=CONFIG, data_digest="")


def test_unknown_graph(model, tmp_path):
    with pytest.raises(ConfigError, match=r"`graphs` must be `sample` and any others of .*, got \['sample', 'step'\]"):
        export_bundle(
            model, tmp_path / "x", spec=SPEC, stats=STATS, n_execute=4, config=CONFIG, data_digest="",
            graphs=("sample", "step"),
        )  # fmt: skip
