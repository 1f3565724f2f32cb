"""A correction that leaves torch: the same actions, the base unaltered beneath it, and no other base's."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from policies.encoders import StateEncoder
from policies.export import export_bundle
from policies.flow import FlowModel
from policies.mlp import ResidualMLP
from policies.residual_export import export_residual
from policies.torch_policy import TorchPolicy
from robot_rl.bundle import PolicyBundle, base_of, residual_info
from robot_rl.bundle.residual import BASE_FILE, INFO_FILE
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.deploy.residual import OnnxStep, smoke_run_all, step_policy
from robot_rl.errors import BundleError, SafetyStop, SpecError
from robot_rl.rl.actions import ActionScaler
from robot_rl.rl.residual import ResidualActor
from robot_rl.rl.runner import StepwisePolicy
from robot_rl.rl.steps import ResidualStep
from robot_rl.values import PolicyInput
from tests.policies.helpers import SPEC, STATS, encoder, model

SCALER = ActionScaler.fit(STATS["action"].min, STATS["action"].max)
ALPHA = 0.1


def trained_step(seed: int = 0, size: float = 3.0, names=("agent_pos", "block_pose")) -> ResidualStep:
    """Return a correction that has learned something: often at its bound, in every direction."""
    torch.manual_seed(seed)
    features = encoder(SPEC.select(names), STATS, n_obs=1)
    actor = ResidualActor(features.out_dim, 2, alpha=ALPHA, hidden=(32, 32))
    torch.nn.init.normal_(actor.layers[-1].weight, std=size)
    return ResidualStep(features, actor, SCALER, names)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> PolicyBundle:
    return export_bundle(
        model(n_steps=2), tmp_path_factory.mktemp("base") / "bundle", spec=SPEC, stats=STATS, n_execute=4, config={},
        data_digest="demos", parity_rounds=1,
    )  # fmt: skip


def published(base: PolicyBundle, path, **changes) -> PolicyBundle:
    given = {
        "spec": SPEC, "stats": STATS, "delay_steps": 1, "config": {"algo": "residual"}, "data_digest": "played",
        "parity_rounds": 2, **changes,
    }  # fmt: skip
    return export_residual(given.pop("step", trained_step()), base, path, **given)


@pytest.fixture(scope="module")
def bundle(base, tmp_path_factory) -> PolicyBundle:
    return published(base, tmp_path_factory.mktemp("residual") / "bundle")


def test_what_the_bundle_says(bundle, base):
    manifest, info = bundle.manifest, residual_info(bundle)
    assert sorted(manifest.graphs) == ["sample", "step"]
    assert (manifest.parent, manifest.family, manifest.data_digest) == (base.id, "residual on flow", "played")
    assert manifest.parity.n == 24
    assert manifest.parity.max_abs_normalised <= 1e-4
    assert info.base_id == base.id
    assert info.names == ("agent_pos", "block_pose")
    assert info.delay_steps == 1
    np.testing.assert_allclose(info.bound, ALPHA * SCALER.half)
    np.testing.assert_allclose(info.low, np.maximum(SCALER.middle - SCALER.half, 0.0))
    np.testing.assert_allclose(info.high, np.minimum(SCALER.middle + SCALER.half, 512.0))
    inputs = {tensor.name: tensor.shape for tensor in manifest.graphs["step"].inputs}
    assert inputs == {"obs.agent_pos": ("B", 2), "obs.block_pose": ("B", 3), "base_action": ("B", 2)}
    assert residual_info(base) is None
    assert base_of(base) is base
    smoke_run_all(bundle)


def test_the_base_inside_is_the_base_alone(bundle, base):
    inside = base_of(bundle)
    assert inside.manifest == base.manifest
    for name in base.manifest.files:
        assert inside.file(name).read_bytes() == base.file(name).read_bytes()
    rng = np.random.default_rng(0)
    given = PolicyInput(obs=observed(rng, 2), stamp_ns=0, noise=rng.standard_normal((8, 2)).astype("f4"))
    np.testing.assert_array_equal(OnnxPolicy(inside).act(given).action, OnnxPolicy(base).act(given).action)


def observed(rng: np.random.Generator, *leading: int):
    pose = rng.uniform([100, 0, -3], [300, 512, 3], (*leading, 3))
    return {"agent_pos": rng.uniform(0, 512, (*leading, 2)).astype("f4"), "block_pose": pose.astype("f4")}


def test_the_correction_is_torchs_and_is_not_nothing(bundle):
    onnx_step, torch_step, rng = OnnxStep(bundle), trained_step(), np.random.default_rng(1)
    moved = []
    for _ in range(50):
        obs, base_action = observed(rng), rng.uniform(-20, 530, 2).astype("f4")
        got = onnx_step.act(obs, base_action)
        expected = np.clip(torch_step.act(obs, base_action), onnx_step.info.low, onnx_step.info.high)
        np.testing.assert_allclose(got, expected, atol=1e-4 * SCALER.half.max())
        moved.append(np.abs(got - base_action))
    assert np.median(moved) > 5.0


@pytest.mark.parametrize("delay_steps", [0, 1])
def test_whole_episodes_are_the_same_as_with_torch(bundle, base, delay_steps):
    """Base by chunks, correction at every tick, a late base: torch on one side, the bundle alone on the other."""
    torch_side = StepwisePolicy(
        SPEC, base=TorchPolicy(model(n_steps=2), SPEC, n_execute=4), step=trained_step(), delay_steps=delay_steps
    )
    robot_side = StepwisePolicy(SPEC, base=OnnxPolicy(base_of(bundle)), step=OnnxStep(bundle), delay_steps=delay_steps)
    actions = [roll_out(policy) for policy in (torch_side, robot_side)]
    np.testing.assert_allclose(*actions, atol=0.05)  # px: both feed back what they did
    assert np.ptp(actions[0], axis=0).min() > 1.0


def roll_out(policy: StepwisePolicy, n: int = 12) -> np.ndarray:
    """Return the actions of an episode in which the agent goes halfway to where it is told."""
    policy.seed(3)
    policy.reset()
    agent, done = np.array([200.0, 300.0], np.float32), []
    for tick in range(n):
        obs = {"agent_pos": agent[None], "block_pose": np.array([[150.0, 200.0, 0.1 * tick]], np.float32)}
        done.append(policy.act(PolicyInput(obs=obs, stamp_ns=tick * SPEC.step_ns)).action[0])
        agent = (agent + (done[-1] - agent) / 2).astype(np.float32)
    return np.array(done)


def test_a_correction_may_read_what_its_base_does_not(tmp_path):
    blind_spec = SPEC.select(["agent_pos"])
    torch.manual_seed(0)
    blind = FlowModel(
        blind_spec, STATS, encoder=StateEncoder, denoiser=partial(ResidualMLP, width=32, n_blocks=1, time_dim=16),
        n_obs=1, horizon=4, n_steps=1,
    )  # fmt: skip
    base = export_bundle(
        blind, tmp_path / "base", spec=blind_spec, stats=STATS, n_execute=2, config={}, data_digest="", parity_rounds=1
    )
    bundle = published(base, tmp_path / "both", step=trained_step(names=("block_pose",)))
    assert list(bundle.manifest.robot.obs) == ["agent_pos", "block_pose"]
    policy = StepwisePolicy(bundle.manifest.robot, base=OnnxPolicy(base_of(bundle)), step=step_policy(bundle))
    obs = observed(np.random.default_rng(0), 1)
    assert policy.act(PolicyInput(obs=obs, stamp_ns=0)).action.shape == (1, 2)


def test_a_correction_of_another_base_is_refused(base, tmp_path):
    """A bundle that was put together from two: hashes of each file hold, what they belong to does not."""
    good = published(base, tmp_path / "good")
    files = {name: good.file(name).read_bytes() for name in good.manifest.files}
    other = replace(base.manifest, data_digest="other").sealed()
    bad = PolicyBundle.publish(tmp_path / "bad", good.manifest, {**files, "sample.onnx": files["step.onnx"]})
    told = rf"corrects base {base.id}, but its \['sample.onnx'\] are not that base's"
    for use in (base_of, OnnxStep, step_policy, smoke_run_all):
        with pytest.raises(BundleError, match=told):
            use(bad)
    renamed = {**files, BASE_FILE: json.dumps(other.to_dict()).encode()}
    worse = PolicyBundle.publish(tmp_path / "worse", good.manifest, renamed)
    with pytest.raises(BundleError, match=rf"corrects base {base.id}, base.json is the manifest of {other.id}"):
        base_of(worse)


def test_a_base_of_another_robot_and_a_graph_that_differs_are_refused(base, tmp_path):
    with pytest.raises(BundleError, match="control_hz: expected 10, got 20"):
        published(base, tmp_path / "slow", spec=replace(SPEC, control_hz=20))
    with pytest.raises(BundleError, match=r"graph `step` differs from torch by .* expected at most 1e-12"):
        published(base, tmp_path / "far", tolerance=1e-12)
    assert list(tmp_path.iterdir()) == []


def test_what_must_not_move_the_arm_is_refused(bundle, base, tmp_path):
    step, obs = OnnxStep(bundle), observed(np.random.default_rng(0))
    with pytest.raises(SpecError, match=r"observation lacks \['block_pose'\]"):
        step.act({"agent_pos": obs["agent_pos"]}, np.zeros(2, np.float32))
    with pytest.raises(SpecError, match="`base_action` must be finite"):
        step.act(obs, np.array([np.nan, 0], np.float32))
    with pytest.raises(BundleError, match="has no graph `step`"):
        OnnxStep(base)
    info = json.loads(bundle.file(INFO_FILE).read_bytes())
    files = {name: bundle.file(name).read_bytes() for name in bundle.manifest.files}
    files[INFO_FILE] = json.dumps({**info, "bound": [0.5, 0.5]}).encode()  # claims less than it does
    liar = PolicyBundle.publish(tmp_path / "liar", bundle.manifest, files)
    with pytest.raises(SafetyStop, match=r"left its bound \[0.5, 0.5\]"):
        OnnxStep(liar).act(observed(np.random.default_rng(0)), np.array([200, 200], np.float32))
