"""`robot-rl finetune algo=dppo` and `algo=rl100_online` with real parts and tiny numbers."""

import json
from pathlib import Path

import pytest
import torch

from robot_rl.cli.chain_card import explore, exploring_policy, still, tuned_chain
from robot_rl.cli.main import main
from robot_rl.cli.model_card import torch_policy, trained_model
from robot_rl.data.store import EpisodeStore
from robot_rl.interfaces import Policy
from robot_rl.metrics import read_metrics

TINY = [
    "collect.episodes=2", "train.steps=4", "train.batch_size=16", "train.threads=1", "train.warmup_steps=2",
    "+denoiser.width=16", "policy=diffusion", "policy.n_steps=3",
]  # fmt: skip
QUICK = [
    "finetune.steps=30", "algo.episodes=2", "algo.lanes=2", "algo.critic.hidden=[16]", "algo.ppo.epochs=1",
    "algo.ppo.warm_up_updates=0", "algo.ppo.actor_lr=0.001", "+task.env.max_steps=8", "evaluate.episodes=1",
    "evaluate.workers=1", "evaluate.video_episodes=0", "finetune.eval_every=16", "finetune.eval_episodes=1",
    "algo.ppo.bc_weight=0.1", "algo.demonstration_batch=8",  # eight steps earn no reward: this is what is learned
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ppo")
    assert main(["collect", f"out={out}", *TINY]) == 0
    assert main(["train", f"out={out}", *TINY]) == 0
    return out


@pytest.mark.parametrize(
    ("algo", "options"),
    [("rl100_online", []), pytest.param("dppo", ["algo.chain.n_tuned=2"], marks=pytest.mark.slow)],
)
def test_a_run_plays_learns_and_leaves_a_training_run(trained: Path, algo: str, options: list[str]) -> None:
    command = ["finetune", f"out={trained}", f"algo={algo}", *QUICK, *options]
    assert main(command) == 0
    run = trained / f"finetune_{algo}"
    store = EpisodeStore.open(run / "store")
    assert [entry.steps for entry in store.entries()] == [8] * 4
    records = read_metrics(run / "metrics.jsonl")
    assert [record["online/steps"] for record in records] == [0, 16, 32]
    assert {"eval/success", "eval/success_exploring"} <= set(records[-1])
    assert records[-1]["ppo/first_ratio_max"] == pytest.approx(1.0, abs=1e-3)
    assert records[-1]["ppo/imitation"] > 0
    assert set(json.loads((run / "summary.json").read_text())) >= {"fine-tuned", "exploring", "base"}
    assert "divergence of an update" in (run / "report.html").read_text()

    base, tuned = trained_model(trained / "train")[1], trained_model(run)[1]
    moved = {n for n, value in base.state_dict().items() if not torch.equal(value, tuned.state_dict()[n])}
    assert moved
    assert all(name.startswith("denoiser.") for name in moved)
    assert isinstance(torch_policy(str(run)), Policy)

    ids = store.ids()
    assert main(command) == 0, "the same command continues: nothing is left to play"
    assert EpisodeStore.open(run / "store").ids() == ids


def test_a_still_chain_is_the_deterministic_policy_and_its_noise_comes_back(trained: Path) -> None:
    noise = {"_target_": "robot_rl.chain_step.ChainNoise", "std_min": 0.05}
    chain = tuned_chain(trained / "train", {"n_tuned": None, "noise": noise})
    base = trained_model(trained / "train")[1]
    obs = {
        name: torch.randn(2, 2, *field.shape) for name, field in trained_model(trained / "train")[0].spec.obs.items()
    }
    draw = torch.randn(2, *chain.noise_shape)
    with torch.no_grad(), still(chain):
        torch.testing.assert_close(chain.sample(obs, draw), base.sample(obs, draw[:, :16]), rtol=0, atol=1e-5)
        assert max(chain.std) == 0.0
    with explore(chain):
        assert min(chain.std) >= 0.05


def test_the_exploring_policy_has_the_runs_weights_and_its_noise(trained: Path) -> None:
    noise = {"_target_": "robot_rl.chain_step.ChainNoise", "std_min": 0.07}
    policy = exploring_policy(str(trained / "train"), {"n_tuned": None, "noise": noise})
    base = trained_model(trained / "train")[1].state_dict()
    assert all(torch.equal(value, base[name]) for name, value in policy.model.state_dict().items())
    assert min(policy.model.std) >= 0.07


def test_what_cannot_be_is_refused_with_words(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = [option for option in QUICK if "eval_every" not in option]
    for wrong, told in (
        (["base=/nowhere"], "/nowhere has no model.json"),
        (["finetune.role=actor"], "one process does both by turns"),
        (["algo.chain.n_tuned=9"], "`n_tuned` must be in 1 ... 3"),
        (["algo.ppo.clip.reduction=max"], "`reduction` must be 'sum' or 'mean'"),
    ):
        command = ["finetune", f"out={trained}", "algo=rl100_online", f"finetune.out={trained}/no", *quick, *wrong]
        assert main(command) == 2
        assert told in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_the_head_that_followed_is_left_as_a_run_and_can_be_distilled_further(trained: Path) -> None:
    from robot_rl.cli.distill_teacher import teacher_of

    out = trained / "with_head"
    command = ["finetune", f"out={trained}", "algo=rl100_online", *QUICK, "algo.head_lr=0.001", f"finetune.out={out}"]
    assert main(command) == 0
    head = out / "head"
    model = trained_model(head)[1]
    assert type(model).__name__ == "OneStepModel"
    assert teacher_of(head).run == out.resolve()
    tuned = trained_model(out)[1]
    encoders = (dict(model.encoder.state_dict()), dict(tuned.encoder.state_dict()))
    assert all(torch.equal(encoders[0][name], encoders[1][name]) for name in encoders[1])
    assert read_metrics(out / "metrics.jsonl")[-1]["head/loss"] > 0
    assert "one-step head" in json.loads((out / "summary.json").read_text())

    assert main(command) == 0, "a run that is over leaves the head as it is"
    more = ["distill", f"out={trained}", f"run={out}", f"distill.out={trained / 'further'}", f"distill.start={head}"]
    few = ["distill.steps=1", "distill.lr=1e-9", "distill.warmup_steps=0", "distill.threads=1", "distill.episodes=0"]
    assert main([*more, *few, "distill.batch_size=8", *TINY[4:]]) == 0
    further = trained_model(trained / "further")[1].denoiser.state_dict()
    assert all(torch.allclose(value, further[name], atol=1e-6) for name, value in model.denoiser.state_dict().items())
