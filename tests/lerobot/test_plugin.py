"""Bundles run in LeRobot: by its evaluation command, and by what its rollout command calls."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lerobot", reason="lerobot is not installed here; `make test-lerobot` runs this where it is")
pytest.importorskip(
    "lerobot_policy_robot_rl", reason="the plugin is not installed: integrations/lerobot_policy_robot_rl"
)

from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot_policy_robot_rl.inputs import places, read
from lerobot_policy_robot_rl.pretrained import save_bundle

from policies.export import export_bundle
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.errors import ConfigError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import PolicyInput
from sim.pusht import PushTEnv
from tests.lerobot.small_bundle import regression


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle for PushT with random weights, which reads pose and pusher of two steps."""
    env = PushTEnv()
    spec = env.spec.select(["agent_pos", "block_pose"])
    env.close()
    model, stats = regression(spec)
    return export_bundle(
        model, tmp_path_factory.mktemp("bundle") / "bundle", spec=spec, stats=stats, n_execute=3, config={},
        data_digest="test", parity_rounds=1,
    )  # fmt: skip


def test_lerobot_eval_runs_a_bundle_on_a_simulated_task(bundle, tmp_path):
    command = [
        str(Path(sys.executable).parent / "lerobot-eval"), "--policy.type=robot_rl",
        f"--policy.bundle={bundle.path}", "--policy.device=cpu", "--policy.push_to_hub=false",
        "--env.type=robot_rl", "--env.task=pusht", "--env.episode_length=12", "--eval.n_episodes=2",
        "--eval.batch_size=2", "--eval.use_async_envs=false", f"--output_dir={tmp_path / 'out'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    overall = json.loads((tmp_path / "out" / "eval_info.json").read_text())["overall"]
    assert overall["n_episodes"] == 2
    assert np.isfinite(overall["avg_sum_reward"])


def test_a_saved_bundle_opens_like_any_pretrained_policy_and_gives_the_bundles_actions(bundle, tmp_path):
    save_bundle(bundle.path, tmp_path / "folder")
    config = PreTrainedConfig.from_pretrained(tmp_path / "folder")
    policy = get_policy_class(config.type).from_pretrained(tmp_path / "folder", config=config)
    before, after = make_pre_post_processors(config, pretrained_path=str(tmp_path / "folder"))
    assert config.input_features["observation.state"].shape == (5,)
    rng = np.random.default_rng(0)
    states = rng.uniform(100, 400, (4, 5)).astype(np.float32)
    onnx, got = OnnxPolicy(bundle), []
    for state in states:
        batch = before({"observation.state": torch.from_numpy(state)})
        got.append(after(policy.select_action(batch))[0].numpy())

    def chunk(*stacked):
        rows = np.stack(stacked)
        obs = {"agent_pos": rows[:, :2], "block_pose": rows[:, 2:]}
        return onnx.act(PolicyInput(obs=obs, stamp_ns=0)).action

    first, second = chunk(states[0], states[0]), chunk(states[2], states[3])
    np.testing.assert_allclose(got, [*first[:3], second[0]], rtol=1e-5)
    policy.reset()
    again = after(policy.select_action(before({"observation.state": torch.from_numpy(states[3])})))[0].numpy()
    np.testing.assert_allclose(again, chunk(states[3], states[3])[0], rtol=1e-5)


ROBOT = RobotSpec(
    name="arm",
    obs={
        "q": ArraySpec(name="q", shape=(3,)), "grip": ArraySpec(name="grip", shape=(1,)),
        "front": ArraySpec(name="front", shape=(4, 6, 3), dtype="uint8"),
    },
    action=ActionSpec(name="action", shape=(2,)), control_hz=10.0,
)  # fmt: skip


def test_observations_are_found_by_name_by_width_or_where_they_are_said_to_be():
    picture = (3, 4, 6)
    assert places(ROBOT, {}, {"observation.state": (4,), "observation.image": picture}) == {
        "front": ("observation.image", slice(None)), "q": ("observation.state", slice(0, 3)),
        "grip": ("observation.state", slice(3, 4)),
    }  # fmt: skip
    shapes = {"observation.q": (3,), "observation.extra": (9,), "observation.images.front": picture}
    assert places(ROBOT, {"grip": "observation.extra[7:8]"}, shapes)["grip"] == ("observation.extra", slice(7, 8))
    with pytest.raises(ConfigError, match=r"the bundle reads \['grip: .*say where they are"):
        places(ROBOT, {}, shapes)
    with pytest.raises(ConfigError, match=r"`policy.obs` names .*nose"):
        places(ROBOT, {"nose": "observation.q"}, shapes)


def test_pictures_become_bytes_again():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    batch = {"observation.image": torch.from_numpy(pixels).movedim(-1, -3).float() / 255}
    only = ROBOT.select(["front"])
    got = read(batch, {"front": ("observation.image", slice(None))}, only)
    np.testing.assert_array_equal(got["front"], pixels)
