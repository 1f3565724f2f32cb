"""A fine-tuned run as a bundle: what torch does at every tick, the bundle does; and who may learn on a real arm."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from robot_rl.bundle import PolicyBundle, residual_info
from robot_rl.cli.config import build, load_config
from robot_rl.cli.finetune_card import FinetuneCard, finetuned_policy
from robot_rl.cli.finetune_roles import check_permission
from robot_rl.cli.main import main
from robot_rl.cli.residual_policy import bundle_policy
from robot_rl.errors import BundleError, ConfigError
from robot_rl.evaluation.permission import speed_share
from robot_rl.evaluation.rollouts import run_episode
from robot_rl.evaluation.statistics import clopper_pearson
from robot_rl.evaluation.validation import ValidationRecord
from robot_rl.interfaces import Policy
from robot_rl.rl.learner import PUBLISHED
from robot_rl.rl.publication import Publication, publish
from robot_rl.rl.runner import StepwisePolicy

pytestmark = pytest.mark.slow
TINY = [
    "collect.episodes=2", "train.steps=6", "train.batch_size=16", "train.threads=1", "train.warmup_steps=2",
    "+denoiser.width=16", "policy.n_steps=2", "package.graphs=[sample]",
]  # fmt: skip
QUICK = [
    "finetune.workers=0", "finetune.steps=20", "algo.pace.warm_up_steps=10", "algo.pace.critic_first=2",
    "algo.learner.hidden=[16,16]", "algo.learner.n_members=2", "algo.batch_size=16", "finetune.delay_steps=1",
]  # fmt: skip
SHORT = ["evaluate.episodes=1", "evaluate.workers=1", "evaluate.video_episodes=0", "+task.env.max_steps=10"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, its bundle, and a run on it whose newest correction is drawn, so that it does a lot."""
    out = tmp_path_factory.mktemp("bundle")
    for command in ("collect", "train", "package"):
        assert main([command, f"out={out}", *TINY]) == 0
    assert main(["finetune", f"out={out}", *QUICK, *SHORT]) == 0
    say(out, version=10**6, seed=1)
    return out


def say(out: Path, *, version: int, seed: int) -> None:
    """Publish a correction that nothing has learned."""
    card = FinetuneCard.load(out / "finetune_residual")
    torch.manual_seed(seed)
    tensors = card.build_algorithm(0).policy.state_dict()
    last = max((name for name in tensors if name.startswith("actor.layers") and name.endswith("weight")), key=_number)
    tensors[last] = torch.randn_like(tensors[last])
    publish(out / "finetune_residual" / PUBLISHED, Publication(version, tensors, {}), belongs_to=card.id)


def _number(name: str) -> int:
    return int(name.split(".")[2])


def packaged(out: Path, name: str, *more: str) -> PolicyBundle:
    assert main(["package", f"run={out}/finetune_residual", f"bundle={out / name}", f"out={out}", *TINY, *more]) == 0
    return PolicyBundle.open(out / name)


def actions(policy: Policy, *, n: int = 10) -> np.ndarray:
    env = build(load_config(["task=lift", f"+task.env.max_steps={n}"]).task.env)
    recording, _ = run_episode(env, policy, 5)
    env.close()
    return np.asarray(recording.streams["action"].data)


def test_the_bundle_does_what_the_run_does_over_a_simulated_episode(out: Path) -> None:
    bundle, run = packaged(out, "corrected"), str(out / "finetune_residual")
    policy = bundle_policy(bundle)
    assert isinstance(policy, StepwisePolicy)
    info = residual_info(bundle)
    assert (info.delay_steps, bundle.manifest.parent) == (1, info.base_id)
    assert info.names == ("joint_position", "gripper_width", "tcp_pose", "cube_pose")
    with_torch, alone = actions(finetuned_policy(run)), actions(policy)
    np.testing.assert_allclose(alone, with_torch, atol=2e-3)
    base = FinetuneCard.load(run).build_base()
    assert np.abs(actions(base) - alone).max() > 0.02, "the correction does something"


def test_evaluate_runs_base_and_correction(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = packaged(out, "judged", f"package.base={out / 'bundle'}")
    assert residual_info(bundle).base_id == PolicyBundle.open(out / "bundle").id
    line = ["evaluate", f"bundle={bundle.path}", f"evaluate.out={out / 'judged_eval'}", *SHORT]
    assert main(line) == 0
    assert "validation record" in capsys.readouterr().out


def test_validate_plays_base_and_correction(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = packaged(out, "to_validate")
    none = [f"validate.replay.{name}=null" for name in ("outside", "speed", "jerk", "difference", "latency")]
    command = [
        "validate", f"out={out}", f"bundle={bundle.path}", f"validate.out={out / 'ladder'}", "validate.delay_steps=1",
        "validate.replay.ticks=10", "validate.lanes=2", "validate=nominal", "+task.env.max_steps=5", *none, *TINY,
    ]  # fmt: skip
    assert main(command) == 3, "five steps lift no cube"
    rungs = {rung["rung"]: rung for rung in json.loads((out / "ladder" / "ladder.json").read_text())}
    assert set(rungs) == {"replay", "simulation"}
    assert "correction" in {check["name"] for check in rungs["replay"]["checks"]}
    assert "simulation does not hold" in " ".join(capsys.readouterr().out.split())


def test_newer_weights_of_a_validated_bundle_inherit_and_another_base_is_refused(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = packaged(out, "parent")
    ValidationRecord(
        bundle_id=parent.id, task="lift", seeds=(0, 1), succeeded=(0, 1), success=clopper_pearson(2, 2),
        date="2026-03-04T05:06:07+00:00", env={}, code_version="1",
    ).write(parent.path)  # fmt: skip
    say(out, version=10**6 + 1, seed=2)
    child = packaged(out, "child", f"package.parent={parent.path}")
    assert child.manifest.parent == parent.id
    assert residual_info(child) == residual_info(parent)
    assert speed_share(child) == 0.5
    assert main(["train", f"out={out}", f"run={out / 'other'}", *TINY, "seed=3"]) == 0
    assert main(["package", f"run={out / 'other'}", f"bundle={out / 'other_bundle'}", f"out={out}", *TINY]) == 0
    run, other = f"run={out}/finetune_residual", f"package.base={out / 'other_bundle'}"
    assert main(["package", run, f"bundle={out / 'wrong'}", f"out={out}", *TINY, other]) == 2
    assert "is not the one that this run was fine-tuned on" in " ".join(capsys.readouterr().out.split())
    assert not (out / "wrong").exists()


def test_a_real_arm_learns_on_a_validated_base_or_on_the_operators_word(out: Path, tmp_path: Path) -> None:
    card = FinetuneCard.load(out / "finetune_residual")
    check_permission(load_config([]), card)
    with pytest.raises(ConfigError, match=r"a real arm learns on a bundle that was validated .*finetune.override=run-"):
        check_permission(load_config(["finetune.hardware=true"]), card)
    check_permission(load_config(["finetune.hardware=true", f"finetune.override={card.base_id}"]), card)
    on_bundle = FinetuneCard(
        **{**vars(card), "base": str(out / "bundle"), "base_id": PolicyBundle.open(out / "bundle").id}
    )
    with pytest.raises(BundleError, match="has no validation record"):
        check_permission(load_config(["finetune.hardware=true"]), on_bundle)
    scratch = FinetuneCard(**{**vars(card), "base": None, "base_id": ""})
    with pytest.raises(ConfigError, match="this run on scratch"):
        check_permission(load_config(["finetune.hardware=true"]), scratch)
    check_permission(load_config(["finetune.hardware=true", "finetune.override=scratch"]), scratch)
