"""`robot-rl reward` on rendered pictures and on states, and `finetune` with its vote: real parts, tiny numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

from robot_rl.cli.config import build, load_config
from robot_rl.cli.finetune_roles import make_env
from robot_rl.cli.main import main
from robot_rl.cli.reward_command import three_parts
from robot_rl.data.recorder import TickRecorder
from robot_rl.data.store import EpisodeStore
from robot_rl.deploy.success import SuccessClassifier
from robot_rl.errors import ConfigError, StoreError
from robot_rl.values import RecordingMeta
from tests.contracts.env import check_env

SCENE = [
    "task=lift", "+task.env.max_steps=12", "+task.env.cameras=[front]", "+task.env.image_size=[32,32]",
    "task.obs=[gripper_width,front]",
]  # fmt: skip
QUICK = [
    "reward.training.steps=60", "reward.training.batch_size=32", "reward.hidden=16", "reward.threads=1",
    "reward.positives=4", "reward.unclear=2", "reward.precision=0.5",
]  # fmt: skip


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Attempts in which the arm turns away and closes (called successes) or stays, with small pictures of it."""
    out = tmp_path_factory.mktemp("reward")
    env = build(load_config([f"out={out}", *SCENE]).task.env)
    store = EpisodeStore.create(out / "store", env.spec)
    for seed in range(16):
        recorder, tick = TickRecorder(env.spec), env.reset(seed)
        recorder.start(tick)
        hold = np.concatenate([tick.obs["joint_position"], [0.08]]).astype(np.float32)
        while not tick.truncated:
            if seed % 2 and len(recorder) >= 4:
                hold[0], hold[-1] = hold[0] + 0.1, 0.0
            tick = env.step(hold)
            recorder.add(tick)
        store.append(recorder.finish(RecordingMeta(outcome="success" if seed % 2 else "failure", source="human")))
    env.close()
    return out


def test_pictures_of_a_simulated_arm_are_told_apart_and_the_report_says_how_well(recorded: Path) -> None:
    encoder = "{_target_: policies.small_vision.SmallImageEncoder, _partial_: true, channels: [8, 16, 32]}"
    assert main([
        "reward", f"out={recorded}", *SCENE, *QUICK, "encoder=rgb_small", f"encoder.parts=[{encoder}]",
        "reward.obs=[front]", "reward.training.steps=150",
    ]) == 0  # fmt: skip
    classifier = SuccessClassifier(recorded / "reward")
    facts = classifier.card.facts
    assert facts["episodes"] == {"train": 8, "choose": 4, "judge": 4}
    assert facts["votes"]["successes"] == 2
    assert 0 <= facts["precision"]["low"] <= facts["precision"]["value"] <= facts["precision"]["high"] <= 1
    episode = EpisodeStore.open(recorded / "store").episode(facts["judged_on"][0])
    assert classifier.probabilities({"front": episode.obs["front"][:]}).shape == (12,)
    html = (recorded / "reward" / "report.html").read_text()
    for part in ("On episodes that it never saw", "Choice of the threshold", "Configuration"):
        assert part in html


@pytest.fixture(scope="module")
def by_state(recorded: Path) -> Path:
    out = recorded / "by_state"
    command = ["reward", f"out={recorded}", *SCENE, *QUICK, f"reward.out={out}", "reward.obs=[gripper_width]"]
    assert main([*command, "reward.training.steps=200", "reward.precision=0.95"]) == 0
    facts = SuccessClassifier(out).card.facts
    assert (facts["precision"]["value"], facts["recall"]["value"]) == (1.0, 1.0)
    return out


def test_the_vote_is_the_reward_of_an_environment_that_keeps_its_contract(recorded: Path, by_state: Path) -> None:
    given = [f"out={recorded}", *SCENE, f"finetune.classifier={by_state}", "algo.reward=classifier"]
    config = load_config([*given, "task.env.cameras=[]"])
    check_env(lambda: make_env(config), n_steps=3)
    env = make_env(config)
    tick = env.reset(0)
    close = np.concatenate([tick.obs["joint_position"], [0.0]]).astype(np.float32)
    ticks = []
    while not (tick.terminated or tick.truncated):
        tick = env.step(close)
        ticks.append(tick)
    env.close()
    assert ticks[-1].terminated
    assert [t.reward for t in ticks] == [0.0] * (len(ticks) - 1) + [1.0]
    with pytest.raises(ConfigError, match=r"needs `finetune.classifier`, a folder of `robot-rl reward`"):
        make_env(load_config([*given, "finetune.classifier=null"]))


@pytest.mark.slow
def test_finetuning_learns_from_the_vote_and_from_a_grippers_penalty(recorded: Path, by_state: Path) -> None:
    run = recorded / "run"
    assert main([
        "finetune", f"out={recorded}", *SCENE, f"finetune.out={run}", f"finetune.classifier={by_state}",
        "task.obs=[gripper_width]", "algo=hil", "algo.reward=classifier", "algo.learner.hidden=[16,16]",
        "algo.batch_size=16", "algo.pace.warm_up_steps=12", "algo.pace.utd=1", "finetune.workers=0",
        "finetune.steps=30", "finetune.log_every=5", "evaluate.episodes=1", "evaluate.workers=1",
        "evaluate.video_episodes=0",
    ]) == 0  # fmt: skip
    store = EpisodeStore.open(run / "store")
    for id in store.ids():
        episode = store.episode(id)
        assert episode.terminated == (episode.meta.outcome == "success") == bool(episode.reward[-1] == 1)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert np.isfinite(last["gripper/loss"])


def test_people_can_mark_frames_and_too_few_successes_are_refused(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = EpisodeStore.open(recorded / "store").ids()
    marks = tmp_path / "marks.json"
    marks.write_text(json.dumps({id: {"success": [99]} for id in ids}))
    common = [f"out={recorded}", *SCENE, *QUICK, "reward.obs=[gripper_width]", f"reward.out={tmp_path / 'out'}"]
    assert main(["reward", *common, f"reward.labels={marks}"]) == 2
    assert "marked frames of episode" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "out").exists()
    with pytest.raises(StoreError, match="at least 3 successful episodes, got 2"):
        three_parts({"a": "success", "b": "success", "c": "failure"}, choose=0.25, judge=0.25, seed=0)
    with pytest.raises(ConfigError, match="positive shares below 1 together"):
        three_parts({}, choose=0.5, judge=0.5, seed=0)


def test_each_part_has_its_share_of_both_outcomes() -> None:
    outcomes = {f"{i:02d}": "success" if i % 4 == 0 else "failure" for i in range(40)}
    parts = three_parts(outcomes, choose=0.2, judge=0.2, seed=0)
    assert [len(part) for part in parts] == [24, 8, 8]
    assert [sum(outcomes[id] == "success" for id in part) for part in parts] == [6, 2, 2]
    assert sorted([*parts[0], *parts[1], *parts[2]]) == sorted(outcomes)
