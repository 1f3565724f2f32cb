"""Checkpoints of LeRobot in the commands, on PushT with tiny networks: packaged, composed, fine-tuned."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from robot_rl.bundle import PolicyBundle
from robot_rl.cli.finetune_base import identify, open_base, open_sampler
from robot_rl.cli.finetune_card import FinetuneCard
from robot_rl.cli.main import main
from robot_rl.data.store import EpisodeStore
from robot_rl.values import PolicyInput, Recording, RecordingMeta, Stream
from sim.pusht import PushTEnv
from tests.policies.lerobot_folder import ENV, STATE, write

SIZES = {STATE: 2, ENV: 3, "action": 2}
RENAMED = {"agent_pos": STATE, "block_pose": ENV}
QUICK = [
    "finetune.workers=0", "finetune.steps=24", "algo.pace.warm_up_steps=12", "algo.pace.critic_first=2",
    "algo.learner.hidden=[16,16]", "algo.learner.n_members=2", "algo.batch_size=8", "evaluate.episodes=1",
    "evaluate.workers=1", "evaluate.video_episodes=0", "+task.env.max_steps=8", "finetune.log_every=4",
    "finetune.eval_every=null",
]  # fmt: skip


def bound_to_pixels(folder):
    """Let a checkpoint's actions go from 0 to 512, as PushT's do."""
    for path in folder.glob("policy_*processor*.safetensors"):
        stats = load_file(path)
        stats |= {"action.min": np.zeros(2, np.float32), "action.max": np.full(2, 512, np.float32)}
        save_file(stats, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two checkpoints that name PushT's observations, and demonstrations of it."""
    out = tmp_path_factory.mktemp("lerobot")
    for name in ("one", "two"):
        written = write(
            out / name, "diffusion", camera=False, sizes=SIZES, renamed=RENAMED, seed=name, num_inference_steps=1
        )
        bound_to_pixels(written)
    env = PushTEnv()
    store = EpisodeStore.create(out / "store", env.spec)
    env.close()
    rng = np.random.default_rng(0)
    for _ in range(2):
        stamps = np.arange(20) * 100_000_000
        data = {name: 512 * rng.random((20, width), dtype=np.float32)
                for name, width in {"agent_pos": 2, "block_pose": 3, "action": 2}.items()}  # fmt: skip
        data["reward"] = rng.random(20, dtype=np.float32)
        meta = RecordingMeta(task="pusht", source="human", outcome="success", on_grid=True)
        store.append(Recording({name: Stream(stamps, rows) for name, rows in data.items()}, meta))
    return out


def test_a_checkpoint_is_a_base_by_its_robots_names(folder):
    robot = EpisodeStore.open(folder / "store").spec
    base, sampler = open_base(folder / "one", robot), open_sampler(folder / "one", robot)
    rng = np.random.default_rng(1)
    obs = {"agent_pos": 512 * rng.random((2, 2), dtype=np.float32), "block_pose": rng.random((2, 3), dtype=np.float32)}
    noise = rng.standard_normal(sampler.noise_shape, dtype=np.float32)
    chunk = base.act(PolicyInput(obs=obs, stamp_ns=0, noise=noise)).action
    assert np.ptp(chunk) > 0
    drawn = sampler.chunks({name: value[None] for name, value in obs.items()}, noise[None])
    np.testing.assert_allclose(drawn[0], chunk, atol=1e-3)
    assert identify(folder / "one") != identify(folder / "two")
    assert identify(folder / "one").startswith("lerobot-")


@pytest.mark.slow
def test_a_checkpoint_is_fine_tuned(folder, tmp_path):
    command = ["finetune", "task=pusht", f"out={folder}", f"base={folder}/one", f"finetune.out={tmp_path}", *QUICK]
    assert main(command) == 0
    card = FinetuneCard.load(tmp_path)
    assert (card.base, card.base_id) == (str(folder / "one"), identify(folder / "one"))
    store = EpisodeStore.open(tmp_path / "store")
    assert sum(entry.steps for entry in store.entries()) == 24
    proposed = np.concatenate([store.episode(id).extras["base_action"][:] for id in store.ids()])
    assert np.ptp(proposed, axis=0).min() > 0
    assert proposed.min() >= 0.0
    assert proposed.max() <= 512.0
    assert set(json.loads((tmp_path / "summary.json").read_text())) >= {"fine-tuned", "base"}
    assert main([*command[:3], f"base={folder}/two", *command[4:]]) == 2, "another base is refused"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_checkpoints_are_packaged_and_their_bundles_composed(folder, tmp_path, capsys):
    for name in ("one", "two"):
        command = ["package", f"run={folder}/{name}", f"bundle={tmp_path}/{name}", f"lerobot.store={folder}/store"]
        assert main([*command, "package.graphs=[sample]"]) == 0
    bundle = PolicyBundle.open(tmp_path / "one")
    assert bundle.manifest.parity.max_abs_normalised < 1e-4
    assert sorted(bundle.manifest.robot.obs) == ["agent_pos", "block_pose"]
    assert bundle.id in capsys.readouterr().out
    parents = f"parents=[{tmp_path}/one,{tmp_path}/two]"
    short = ["+task.env.max_steps=6", "search.episodes=2", "report.episodes=2", "compose.n_steps=2", "search.step=0.5"]
    assert main(["compose", "task=pusht", f"out={tmp_path}", parents, *short]) == 0
    summary = json.loads((tmp_path / "compose" / "convex.json").read_text())
    assert summary["parents"] == ["one", "two"]
    assert [row["weights"] for row in summary["search"]] == [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
