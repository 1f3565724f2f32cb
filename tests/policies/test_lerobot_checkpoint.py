"""Checkpoint folders of LeRobot as chunk models, on folders that the tests write themselves."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from policies.export import export_bundle
from policies.lerobot_checkpoint import load_lerobot_policy
from policies.onnx_graphs import parts_of
from robot_rl.cli.config import build
from robot_rl.data.normalizer import FieldStats
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.errors import ConfigError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import PolicyInput
from tests.policies.lerobot_folder import CAMERA, ENV, PICTURES, STATE, config, noise, observations, statistics, write

KINDS = ("diffusion", "act")
EXPECTED = {
    "diffusion": [0.394533, 0.98667, 0.338336, -0.077956],
    "act": [0.175131, 0.299696, -0.127303, 0.349478],
}
"""The last action of the second sample, computed by LeRobot 0.6.1 itself (tests/lerobot/test_written_folders.py)."""


def sample(policy, kind):
    with torch.no_grad():
        obs = {name: torch.from_numpy(value) for name, value in observations(kind).items()}
        return policy.model.sample(obs, torch.from_numpy(noise(kind)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {kind: write(root / kind, kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_the_actions_are_those_of_lerobot(kind, folders):
    policy = load_lerobot_policy(folders[kind], control_hz=10.0)
    np.testing.assert_allclose(sample(policy, kind)[1, -1].numpy(), EXPECTED[kind], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_robot_is_made_up_from_the_features(kind, folders):
    policy = load_lerobot_policy(folders[kind], control_hz=12.5)
    channels, height, width = PICTURES[kind]
    assert {n: (a.dtype, a.shape) for n, a in policy.spec.obs.items()} == {
        STATE: ("float32", (5,)), CAMERA: ("uint8", (height, width, channels)), ENV: ("float32", (3,)),
    }  # fmt: skip
    assert (policy.spec.control_hz, policy.spec.action.shape) == (12.5, (4,))
    assert policy.n_execute == {"diffusion": 4, "act": 5}[kind]
    assert policy.model.action_offset == {"diffusion": -1, "act": 0}[kind]
    np.testing.assert_allclose(policy.model.action_low.numpy(), statistics()["action"]["min"])
    np.testing.assert_allclose(policy.model.action_high.numpy(), statistics()["action"]["max"])


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_inside_the_weights_give_the_same_actions(kind, folders, tmp_path):
    new = load_lerobot_policy(folders[kind], control_hz=10.0)
    old = load_lerobot_policy(write(tmp_path / "old", kind, old=True), control_hz=10.0)
    np.testing.assert_allclose(sample(old, kind).numpy(), sample(new, kind).numpy(), atol=1e-6)


def package(policy, path):
    return export_bundle(
        policy.model, path, spec=policy.spec, stats=policy.stats, n_execute=policy.n_execute,
        config={"policy": policy.recipe}, data_digest=policy.digest, graphs=parts_of(policy.model), parity_rounds=1,
    )  # fmt: skip


def assert_it_acts_alike(bundle, policy, kind, obs):
    first = torch.from_numpy(noise(kind)[:1])
    with torch.no_grad():
        chunk = policy.model.sample({n: torch.from_numpy(v[:1]) for n, v in obs.items()}, first)[0]
    expected = chunk.clamp(policy.model.action_low, policy.model.action_high)[-policy.model.action_offset :]
    asked = PolicyInput(obs={n: v[0] for n, v in obs.items()}, stamp_ns=0, noise=first[0].numpy())
    np.testing.assert_allclose(OnnxPolicy(bundle).act(asked).action, expected.numpy(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_of_it_gives_its_actions_and_builds_it_again(kind, tmp_path):
    folder = write(tmp_path / "checkpoint", kind, camera=False, num_inference_steps=2)
    policy = load_lerobot_policy(folder, control_hz=10.0)
    bundle = package(policy, tmp_path / "bundle")
    assert bundle.manifest.parity.max_abs_normalised < 1e-4
    obs = {name: value for name, value in observations(kind).items() if name != CAMERA}
    assert_it_acts_alike(bundle, policy, kind, obs)
    recipe = json.loads(bundle.file("config.yaml").read_text())["policy"]
    stats = {name: FieldStats.from_dict(field) for name, field in bundle.manifest.normaliser.items()}
    again = build(recipe, bundle.manifest.robot, stats)
    again.load_state_dict({n: torch.from_numpy(np.array(v)) for n, v in bundle.weights().items()})
    asked, first = {n: torch.from_numpy(v) for n, v in obs.items()}, torch.from_numpy(noise(kind))
    with torch.no_grad():
        torch.testing.assert_close(again.eval().sample(asked, first), policy.model.sample(asked, first))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_takes_the_robots_own_pictures(kind, tmp_path):
    resized = {"resize_shape": [66, 60]} if kind == "diffusion" else {}
    policy = load_lerobot_policy(
        write(tmp_path / "checkpoint", kind, num_inference_steps=1, **resized), control_hz=10.0
    )
    bundle = package(policy, tmp_path / "bundle")
    assert bundle.manifest.robot.obs[CAMERA].dtype == "uint8"
    assert_it_acts_alike(bundle, policy, kind, observations(kind))


def test_ones_own_observations_make_up_a_feature(folders):
    channels, height, width = PICTURES["act"]
    robot = RobotSpec(
        name="arm",
        obs={
            "front": ArraySpec(name="front", shape=(height, width, channels), dtype="uint8"),
            "grip": ArraySpec(name="grip", shape=(1,)), "q": ArraySpec(name="q", shape=(2, 2)),
            "cube": ArraySpec(name="cube", shape=(3,)), "unused": ArraySpec(name="unused", shape=(9,)),
        },
        action=ActionSpec(name="action", shape=(4,), unit="rad"), control_hz=20.0,
    )  # fmt: skip
    names = {STATE: ["q", "grip"], CAMERA: "front", ENV: "cube"}
    policy = load_lerobot_policy(folders["act"], robot=robot, names=names)
    assert set(policy.spec.obs) == {"front", "grip", "q", "cube"}
    assert policy.spec.action.unit == "rad"
    np.testing.assert_allclose(policy.stats["grip"].mean, statistics()[STATE]["mean"][4:])
    obs = {n: torch.from_numpy(v) for n, v in observations("act").items()}
    mine = {
        "front": obs[CAMERA], "q": obs[STATE][..., :4].unflatten(-1, (2, 2)), "grip": obs[STATE][..., 4:],
        "cube": obs[ENV],
    }  # fmt: skip
    with torch.no_grad():
        got = policy.model.sample(mine, torch.from_numpy(noise("act")))
    expected = sample(load_lerobot_policy(folders["act"], control_hz=10.0), "act")
    torch.testing.assert_close(got, expected)
    with pytest.raises(ConfigError, match=r"the policy reads .* say with `names` which of them"):
        load_lerobot_policy(folders["act"], robot=robot)
    with pytest.raises(ConfigError, match=r"`observation.state` of the policy is STATE of shape"):
        load_lerobot_policy(folders["act"], robot=robot, names={**names, STATE: ["q"]})


def test_another_sampler_with_fewer_steps_can_be_asked_for(folders):
    policy = load_lerobot_policy(folders["diffusion"], control_hz=10.0, n_steps=2, sampler="ddim")
    assert len(policy.model.times) == 3
    assert sample(policy, "diffusion").shape == (2, 8, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_missing_or_of_another_shape_are_named(kind, folders, tmp_path):
    folder = shutil.copytree(folders[kind], tmp_path / kind)
    whole = load_file(folder / "model.safetensors")
    name = {"diffusion": "diffusion.unet.final_conv.1.bias", "act": "model.action_head.bias"}[kind]
    for changed in ({n: v for n, v in whole.items() if n != name}, {**whole, name: np.zeros(9, np.float32)}):
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(ConfigError, match=r"its weights are not those of its config.json"):
            load_lerobot_policy(folder, control_hz=10.0)


def test_what_is_not_known_is_refused_with_what_is(tmp_path, folders):
    with pytest.raises(ConfigError, match=r"does not hold its control rate; give it \(lerobot.control_hz"):
        load_lerobot_policy(folders["act"])
    folder = shutil.copytree(folders["act"], tmp_path / "act")

    def changed(**settings):
        (folder / "config.json").write_text(json.dumps(config("act", **settings)))
        return folder

    with pytest.raises(ConfigError, match=r"`vision_backbone` of the policy must be one of .*, got 'resnet34'"):
        load_lerobot_policy(changed(vision_backbone="resnet34"), control_hz=10.0)
    with pytest.raises(ConfigError, match=r"`type` must be one of .*, got 'smolvla'"):
        load_lerobot_policy(changed(type="smolvla"), control_hz=10.0)
    changed()
    pipeline = json.loads((folder / "policy_preprocessor.json").read_text())
    pipeline["steps"].append({"registry_name": "relative_actions_processor", "config": {}})
    (folder / "policy_preprocessor.json").write_text(json.dumps(pipeline))
    with pytest.raises(ConfigError, match=r"has steps .*relative_actions_processor.*, which are not known here"):
        load_lerobot_policy(folder, control_hz=10.0)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_lerobot_policy(tmp_path, control_hz=10.0)
