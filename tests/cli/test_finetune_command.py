"""`robot-rl finetune` with real parts and tiny numbers: it runs, continues, refuses another base, and is evaluated."""

import json
from pathlib import Path

import numpy as np
import pytest

from robot_rl.cli.config import CONFIG_DIR, load_config
from robot_rl.cli.finetune_card import FinetuneCard, finetuned_policy
from robot_rl.cli.finetune_roles import run_role
from robot_rl.cli.main import main
from robot_rl.data.store import EpisodeStore
from robot_rl.interfaces import Policy
from robot_rl.metrics import read_metrics
from robot_rl.rl.algorithm import Algorithm
from robot_rl.rl.replay import FINAL
from robot_rl.values import PolicyInput

ALGORITHMS = sorted(
    p.stem for p in (CONFIG_DIR / "algo").glob("*.yaml") if not {"ppo:", "stage:"} & set(p.read_text().split())
)
TINY = [
    "collect.episodes=2", "train.steps=6", "train.batch_size=16", "train.threads=1", "train.warmup_steps=2",
    "+denoiser.width=16", "policy.n_steps=2",
]  # fmt: skip
QUICK = [
    "finetune.workers=0", "finetune.steps=40", "algo.pace.warm_up_steps=20", "algo.pace.critic_first=5",
    "algo.learner.hidden=[16,16]", "algo.learner.n_members=2", "algo.batch_size=16", "evaluate.episodes=1",
    "evaluate.workers=1", "evaluate.video_episodes=0", "+task.env.max_steps=10", "finetune.log_every=5",
    "finetune.eval_every=20", "finetune.eval_episodes=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finetune")
    assert main(["collect", f"out={out}", *TINY]) == 0
    assert main(["train", f"out={out}", *TINY]) == 0
    return out


@pytest.fixture(scope="module")
def run_folder(demonstrated: Path) -> Path:
    assert main(["finetune", f"out={demonstrated}", *QUICK]) == 0
    return demonstrated / "finetune_residual"


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["qc", "dqc", "qc_fql"])
def test_a_critic_that_chooses_among_the_bases_chunks_learns_plays_and_comes_back(
    demonstrated: Path, tmp_path: Path, algo: str
) -> None:
    command = [
        "finetune", f"algo={algo}", f"out={demonstrated}", f"finetune.out={tmp_path}", *QUICK, "algo.n_step=6",
        *([] if algo == "qc_fql" else ["algo.learner.n_choose=3"]),
    ]  # fmt: skip
    assert main(command) == 0
    store = EpisodeStore.open(tmp_path / "store")
    rows = np.concatenate([store.episode(id).extras["chunk_offset"][:] for id in store.ids()])
    executed = 5 if algo == "dqc" else 6
    assert set(rows.tolist()) == set(range(executed)), "whole chunks are executed, row by row"
    last = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert (last["step"], last["online/steps"]) == (25, 40)
    assert (tmp_path / "candidates").is_dir() == (algo != "dqc")
    assert isinstance(finetuned_policy(str(tmp_path)), Policy)
    assert main(command) == 0, "the same command continues"


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_algorithm_builds_and_acts_on_every_observation_it_reads(demonstrated: Path, algo: str) -> None:
    from robot_rl.cli.finetune_card import make_card

    config = load_config([f"out={demonstrated}", f"algo={algo}"])
    store = EpisodeStore.open(config.store)
    card = make_card(config)
    algorithm = card.build_algorithm(0)
    assert isinstance(algorithm, Algorithm)
    episode = store.episode(store.ids()[0])
    obs = {name: np.asarray(rows[0]) for name, rows in episode.obs.items()}
    if algorithm.driver is None:
        action = algorithm.policy.act(obs, episode.action[0])
    else:
        stacked = {name: np.stack([value] * algorithm.driver.n_obs) for name, value in obs.items()}
        chunk = algorithm.driver.act(PolicyInput(obs=stacked, stamp_ns=0))
        action = chunk.action[: algorithm.driver.n_execute]
    assert np.abs(card.scaler().to_agent(action)).max() <= 1 + 1e-6
    if algo == "residual":
        assert action == pytest.approx(episode.action[0], abs=1e-5)


def test_a_run_leaves_episodes_weights_curves_and_a_report(run_folder: Path) -> None:
    store = EpisodeStore.open(run_folder / "store")
    assert sum(entry.steps for entry in store.entries()) == 40
    for id in store.ids():
        episode = store.episode(id)
        assert episode.meta.seed is not None
        assert episode.meta.seed >= 1_000_000
        assert np.isfinite(episode.extras["base_action"][:]).all()
        assert len(episode.meta.extra[FINAL]["base_action"]) == 8
    last = read_metrics(run_folder / "metrics.jsonl")[-1]
    assert last["step"] == 5 + 40 - 20
    assert last["online/steps"] == 40
    assert len(read_metrics(run_folder / "curve" / "metrics.jsonl")) == 2
    summary = json.loads((run_folder / "summary.json").read_text())
    assert set(summary) >= {"fine-tuned", "base"}
    html = (run_folder / "report.html").read_text()
    for part in ("Before and after", "updates per environment step", "Configuration"):
        assert part in html, part


def test_the_result_is_a_policy(run_folder: Path) -> None:
    assert isinstance(finetuned_policy(str(run_folder)), Policy)


def test_the_same_command_with_more_steps_in_another_folder_continues_nothing_and_refuses_what_differs(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"out={run_folder.parent}"
    assert main(["finetune", out, *QUICK, "algo.learner.settings.alpha=0.2"]) == 2
    assert "holds a run with another base, network, unit or demonstrations" in " ".join(capsys.readouterr().out.split())
    before = EpisodeStore.open(run_folder / "store").ids()
    assert main(["finetune", out, *QUICK]) == 0  # finished: plays nothing, evaluates nothing anew
    assert EpisodeStore.open(run_folder / "store").ids() == before


def test_a_learner_alone_learns_from_a_store_that_is_there(run_folder: Path) -> None:
    config = load_config([f"out={run_folder.parent}", *QUICK, "finetune.role=learner"])
    run_role(config, "learner")
    assert FinetuneCard.load(run_folder).base_id.startswith("run-")


@pytest.mark.slow
def test_from_scratch_needs_no_base(demonstrated: Path) -> None:
    assert main(["finetune", f"out={demonstrated}", "algo=rlpd", *QUICK, "finetune.eval_every=null"]) == 0
    store = EpisodeStore.open(demonstrated / "finetune_rlpd" / "store")
    assert np.isnan(store.episode(store.ids()[0]).extras["base_action"][:]).all()


def test_what_cannot_be_is_refused_with_words(demonstrated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, told in (
        ("base=/nowhere", "neither a bundle nor a training run at base=/nowhere"),
        (
            "algo.reward=none",
            "`algo.reward` must be one of ['classifier', 'interventions', 'recorded', 'success'], got 'none'",
        ),
        ("finetune.role=judge", "`finetune.role` must be both, actor or learner, got 'judge'"),
    ):
        out = demonstrated / "refused" / wrong.partition("=")[0]
        assert main(["finetune", f"out={demonstrated}", f"finetune.out={out}", *QUICK, wrong]) == 2
        assert told in " ".join(capsys.readouterr().out.split())
