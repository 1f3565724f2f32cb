"""`robot-rl finetune` with an offline stage: end to end on `lift` with tiny numbers; goes on; what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from robot_rl.bundle import PolicyBundle
from robot_rl.cli.main import main
from robot_rl.cli.model_card import ModelCard, trained_model
from robot_rl.data.store import EpisodeStore
from robot_rl.rl.offline.gate import read_log
from robot_rl.specs import RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream

TINY = [
    "train.steps=6", "train.batch_size=16", "train.threads=1", "train.warmup_steps=2", "+denoiser.width=16",
    "policy.n_steps=2",
]  # fmt: skip
QUICK = [
    "algo.critic.steps=8", "algo.critic.batch_size=16", "algo.critic.hidden=[16]", "algo.dynamics.epochs=2",
    "algo.dynamics.hidden=[16]", "algo.dynamics.n_members=3", "algo.dynamics.n_elites=2", "algo.evaluation.n_starts=12",
    "algo.evaluation.horizon=2", "algo.improve.updates=4", "algo.improve.gate_every=2", "algo.improve.batch_size=16",
    "evaluate.episodes=1", "evaluate.workers=1", "evaluate.video_episodes=0", "+task.env.max_steps=10",
]  # fmt: skip


def attempts(folder: Path, spec: RobotSpec, outcomes: list[str]) -> None:
    """Append attempts of noise with given outcomes."""
    store, rng, n = EpisodeStore.create(folder, spec), np.random.default_rng(0), 30
    stamps = np.arange(n, dtype=np.int64) * spec.step_ns
    for outcome in outcomes:
        streams = {
            name: Stream(stamps, rng.random((n, *array.shape)).astype(np.float32)) for name, array in spec.obs.items()
        }
        streams["action"] = Stream(stamps, rng.random((n, *spec.action.shape)).astype(np.float32))
        meta = RecordingMeta(task="lift", source="human", outcome=outcome, on_grid=True)
        store.append(Recording(streams, meta))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from robot_rl.cli.config import build, load_config

    out = tmp_path_factory.mktemp("offline")
    env = build(load_config(["task=lift"]).task.env)
    attempts(out / "store", env.spec, ["success", "failure"] * 4)
    attempts(out / "failures", env.spec, ["failure"] * 4)
    env.close()
    assert main(["train", f"out={out}", *TINY]) == 0
    return out


@pytest.fixture(scope="module")
def improved(begun: Path) -> Path:
    assert main(["finetune", "algo=rl100_offline", f"out={begun}", *QUICK]) == 0
    return begun / "finetune_rl100_offline"


def test_a_run_leaves_a_policy_its_beginning_a_log_and_a_report(improved: Path, begun: Path) -> None:
    card, model = trained_model(improved)
    _, base = trained_model(begun / "train")
    assert type(model).__name__ == "DenoisingChain"
    lines = read_log(improved / "gate.jsonl")
    assert [line["update"] for line in lines] == [2, 4]
    if not any(line["accepted"] for line in lines):
        assert all(torch.equal(model.state_dict()[name], value) for name, value in base.state_dict().items())
    assert ModelCard.load(improved / "imitation").policy == card.policy
    assert set(json.loads((improved / "summary.json").read_text())) >= {"improved", "imitation", "base", "accepted"}
    html = (improved / "report.html").read_text()
    for part in ("Before and after", "Gate", "Every decision", "Configuration"):
        assert part in html, part


@pytest.mark.slow
def test_the_result_is_evaluated_and_packaged_as_any_training_run(improved: Path, tmp_path: Path) -> None:
    common = [f"run={improved}", f"out={tmp_path}", "+task.env.max_steps=10"]
    assert main(["package", *common]) == 0
    assert PolicyBundle.open(tmp_path / "bundle").manifest.parity.max_abs_normalised < 1e-4
    assert main(["evaluate", *common, "evaluate.episodes=1", "evaluate.workers=1", "evaluate.video_episodes=0"]) == 0


def test_the_same_command_changes_nothing_and_other_data_are_refused(
    improved: Path, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (improved / "gate.jsonl").read_bytes()
    command = ["finetune", "algo=rl100_offline", f"out={begun}", *QUICK]
    assert main(command) == 0
    assert (improved / "gate.jsonl").read_bytes() == before
    assert main([*command, "algo.noise.std_min=0.05"]) == 2
    assert "holds a run with other base, network or noise" in " ".join(capsys.readouterr().out.split())


def test_an_ensemble_of_imitators_is_improved_and_its_best_member_delivered(begun: Path, tmp_path: Path) -> None:
    command = [
        "finetune", "algo=uni_o4", f"out={begun}", f"finetune.out={tmp_path}", *QUICK, "algo.behaviour.n_members=2",
        "algo.behaviour.steps=3", "algo.behaviour.batch_size=16", "evaluate.episodes=0",
    ]  # fmt: skip
    assert main(command) == 0
    _, model = trained_model(tmp_path)
    assert (model.n_steps, model.model.noise_scale) == (1, 0.0)
    chosen = json.loads((tmp_path / "checkpoints" / "last" / "state.json").read_text())["config"]
    _check_best(chosen, tmp_path, model)
    assert main(command) == 0, "the same command goes on"


def _check_best(chosen: dict, folder: Path, model: torch.nn.Module) -> None:
    from robot_rl.imitation.checkpoint import load_model_weights

    assert chosen["member"] == int(np.argmax(chosen["am_q"]))
    best = ModelCard.load(folder).build_model()
    load_model_weights(best, folder / "members" / str(chosen["member"]) / "checkpoints" / "last")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in best.state_dict().items())


def test_failures_alone_and_a_bundle_as_base_are_refused(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["finetune", "algo=rl100_offline", f"out={begun}", f"finetune.out={tmp_path / 'out'}", *QUICK]
    assert main([*command, f"store={begun / 'failures'}"]) == 2
    assert "so there is nothing to learn reward from" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "out" / "checkpoints").exists()
    copy = tmp_path / "no_run"
    shutil.copytree(begun / "train", copy)
    (copy / "model.json").unlink()
    assert main([*command, f"base={copy}"]) == 2
    assert "there is neither a bundle nor a training run" in " ".join(capsys.readouterr().out.split())
