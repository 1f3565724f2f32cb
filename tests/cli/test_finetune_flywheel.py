"""`robot-rl finetune algo=rl100`: rounds, online and head on `lift` with tiny numbers; goes on; what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from robot_rl.cli import finetune_flywheel_stages as stages
from robot_rl.cli.config import build, load_config
from robot_rl.cli.main import main
from robot_rl.cli.model_card import ModelCard, trained_model
from robot_rl.data.store import EpisodeStore
from robot_rl.rl.rounds.state import FILE
from robot_rl.specs import RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream

TINY = [
    "train.steps=4", "train.batch_size=16", "train.threads=1", "train.warmup_steps=2", "+denoiser.width=16",
    "policy.n_steps=2",
]  # fmt: skip
QUICK = [
    "algo.offline.critic.steps=4", "algo.offline.critic.batch_size=16", "algo.offline.critic.hidden=[16]",
    "algo.offline.dynamics.epochs=1", "algo.offline.dynamics.hidden=[16]", "algo.offline.dynamics.n_members=3",
    "algo.offline.dynamics.n_elites=2", "algo.offline.evaluation.n_starts=12", "algo.offline.evaluation.horizon=2",
    "algo.offline.improve.updates=2", "algo.offline.improve.gate_every=1", "algo.offline.improve.batch_size=16",
    "algo.rounds.episodes=2", "algo.rounds.lanes=2", "algo.rounds.again=1", "algo.rounds.imitation.steps=3",
    "algo.rounds.imitation.warmup_steps=1", "algo.judge.lanes=2", "algo.judge.test.max_pairs=2", "algo.judge.block=2",
    "evaluate.episodes=2", "+task.env.max_steps=10", "train.batch_size=16", "train.threads=1",
]  # fmt: skip
ONLINE = [
    "finetune.steps=20", "algo.online.episodes=2", "algo.online.lanes=2", "algo.online.critic.hidden=[16]",
    "algo.online.ppo.epochs=1", "algo.online.ppo.warm_up_updates=0", "algo.online.ppo.actor_lr=0.001",
    "algo.online.ppo.bc_weight=0.1", "algo.online.demonstration_batch=8",  # ten steps earn no reward: this is learned
]  # fmt: skip
DISTIL = ["algo.head=true", "distill.steps=2", "distill.batch_size=16", "distill.warmup_steps=1", "distill.threads=1",
          "distill.observations=8", "distill.calls=2", "distill.teacher_steps=[1]"]  # fmt: skip


def attempts(folder: Path, spec: RobotSpec, outcomes: list[str]) -> None:
    """Append attempts of noise with given outcomes."""
    store = EpisodeStore.open(folder) if EpisodeStore.exists(folder) else EpisodeStore.create(folder, spec)
    rng, n = np.random.default_rng(len(store)), 30
    stamps = np.arange(n, dtype=np.int64) * spec.step_ns
    for outcome in outcomes:
        streams = {
            name: Stream(stamps, rng.random((n, *array.shape)).astype(np.float32)) for name, array in spec.obs.items()
        }
        streams["action"] = Stream(stamps, rng.random((n, *spec.action.shape)).astype(np.float32))
        store.append(
            Recording(
                streams, RecordingMeta(task="lift", source="human", outcome=outcome, on_grid=True, seed=70 + len(store))
            )
        )


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rl100")
    env = build(load_config(["task=lift"]).task.env)
    attempts(out / "store", env.spec, ["success", "failure"] * 4)
    env.close()
    assert main(["train", f"out={out}", *TINY]) == 0
    return out


def command(begun: Path, *more: str) -> list[str]:
    return ["finetune", "algo=rl100", f"out={begun}", *QUICK, *more]


@pytest.fixture(scope="module")
def whole(begun: Path) -> Path:
    assert main(command(begun, *ONLINE, *DISTIL)) == 0
    return begun / "finetune_rl100"


def chunks(run: Path) -> torch.Tensor:
    """Return chunks of a run's policy for observations and noise that are always the same."""
    card, model = trained_model(run)
    generator = torch.Generator().manual_seed(7)
    obs = {name: torch.rand(3, model.n_obs, *s.shape, generator=generator) for name, s in card.spec.obs.items()}
    with torch.no_grad():
        return model.sample(obs, torch.randn(3, *model.noise_shape, generator=generator))


def states(run: Path) -> list[dict]:
    return json.loads((run / FILE).read_text())["done"]


def test_every_stage_is_done_once_and_told(whole: Path) -> None:
    names = [f"round_{m}/{stage}" for m in (0, 1) for stage in ("offline", "play", "imitation")]
    assert [stage["name"] for stage in states(whole)] == [*names, "control", "online", "head"]
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["finished"]
    assert [row["data"] for row in summary["rounds"]] == [
        {"episodes": 8, "successes": 4, "failures": 4}, {"episodes": 12, "successes": 4, "failures": 8},
    ]  # fmt: skip
    assert [row["played"]["episodes"] for row in summary["rounds"]] == [2, 2]  # first attempts
    assert {"base", "base with noise", "imitation alone, equal data", "online", "head", "published"} <= set(
        summary["evaluation"]
    )
    assert all(found["episodes"] == 2 for found in summary["evaluation"].values())
    html = (whole / "report.html").read_text()
    for part in ("Gate, round 0", "Gate, round 1", "Stages", "imitation alone, equal data", "Configuration"):
        assert part in html, part


def test_failures_and_successes_are_kept_in_the_runs_store_and_the_first_store_stays(whole: Path, begun: Path) -> None:
    played = [e for e in EpisodeStore.open(whole / "store").entries() if e.source == "policy"]
    names = ["rl100-round-0", "rl100-round-0-again-1", "rl100-round-1", "rl100-round-1-again-1"]
    assert sorted(e.policy_version for e in played) == [name for name in names for _ in range(2)]
    assert len({e.seed for e in played}) == 4
    assert len(EpisodeStore.open(begun / "store")) == 8


def test_the_next_round_starts_with_the_weights_and_normaliser_of_the_one_before_bit_by_bit(whole: Path) -> None:
    """Test 57 of the methods' specification."""
    handed_over = whole / next(s["policy"] for s in states(whole) if s["name"] == "round_0/imitation")
    start = whole / "round_1" / "offline" / "imitation"
    assert torch.equal(chunks(handed_over), chunks(start))
    one, other = (trained_model(run)[1].normalizer.state_dict() for run in (handed_over, start))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_retraining_moves_the_weights_and_leaves_the_normaliser_and_the_sampler(whole: Path) -> None:
    before, after = (trained_model(whole / "round_0" / name) for name in ("offline", "imitation"))
    assert before[0].policy == after[0].policy
    assert before[0].data_digest != after[0].data_digest
    was, now = before[1].state_dict(), after[1].state_dict()
    moved = {name for name in was if not torch.equal(was[name], now[name])}
    assert any(name.startswith("denoiser.") for name in moved)
    assert not any(name.startswith("normalizer.") for name in moved)


def test_what_could_not_be_shown_is_not_published(whole: Path, begun: Path) -> None:
    """Two pairs show nothing, so neither retraining nor online fine-tuning may be taken, and the base stands."""
    done = {stage["name"]: stage for stage in states(whole)}
    for name in ("round_0/imitation", "round_1/imitation", "online"):
        assert not done[name]["accepted"]
        assert done[name]["facts"]["judge"]["verdict"] == "undecided"
    assert done["head"]["policy"] == "round_1/offline"
    assert json.loads((whole / "summary.json").read_text())["published"]["from"] == "base"
    assert torch.equal(chunks(whole), chunks(begun / "train"))
    assert not torch.equal(chunks(whole), chunks(whole / "online"))
    teacher = json.loads((whole / "head" / "distillation.json").read_text())
    assert str(begun / "train") in json.dumps([teacher, done["head"]["facts"]])


def test_the_control_made_as_many_updates_as_the_rounds(whole: Path) -> None:
    done = {stage["name"]: stage for stage in states(whole)}
    assert done["control"]["facts"]["updates"] == 2 * (2 + 3)
    last = json.loads((whole / "control" / "checkpoints" / "last" / "state.json").read_text())
    assert last["step"] == 10


def test_the_same_command_does_nothing_again_and_other_settings_are_refused(
    whole: Path, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (whole / FILE).read_bytes(), EpisodeStore.open(whole / "store").digest()
    assert main(command(begun, *ONLINE, *DISTIL)) == 0
    assert ((whole / FILE).read_bytes(), EpisodeStore.open(whole / "store").digest()) == before
    assert main(command(begun, *ONLINE, *DISTIL, "algo.offline.gamma=0.9")) == 2
    assert "`algo.offline.gamma` was 0.997 and is now 0.9" in " ".join(capsys.readouterr().out.split())


def test_a_run_killed_in_the_middle_of_playing_goes_on_and_plays_only_what_lacks(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ["algo.rounds.n=1", "algo.online=null", "algo.control=false", "evaluate.episodes=0", "algo.rounds.lanes=1",
             "algo.rounds.again=0"]  # fmt: skip
    killed = command(begun, f"finetune.out={tmp_path}", *short)
    whole_player, played = stages.Player, []

    class Killed(whole_player):
        def play(self, seeds, *args, **kwargs):
            played.append(list(seeds))
            if len(played) == 1:
                super().play(seeds[:1], *args, **kwargs)
                raise KeyboardInterrupt
            return super().play(seeds, *args, **kwargs)

    monkeypatch.setattr(stages, "Player", Killed)
    assert main(killed) == 130
    assert [stage["name"] for stage in states(tmp_path)] == ["round_0/offline"]
    weights = (tmp_path / "round_0" / "offline" / "checkpoints" / "last" / "ema.safetensors").read_bytes()
    assert main(killed) == 0
    assert played[1] == played[0][1:]
    assert (tmp_path / "round_0" / "offline" / "checkpoints" / "last" / "ema.safetensors").read_bytes() == weights
    assert [e.source for e in EpisodeStore.open(tmp_path / "store").entries()].count("policy") == 2


def test_without_playing_it_waits_for_episodes_and_goes_on_when_they_are_there(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = command(
        begun, f"finetune.out={tmp_path}", "algo.rounds.n=1", "algo.rounds.play=false", "algo.online=null",
        "algo.control=false", "evaluate.episodes=0", "algo.rounds.imitate=all", "algo.judge.test.margin=0.99",
        "algo.judge.test.max_pairs=6",
    )  # fmt: skip
    assert main(waiting) == 0
    assert f"append them to {tmp_path}/store" in capsys.readouterr().out.replace("\n", "")
    assert not json.loads((tmp_path / "summary.json").read_text())["finished"]
    spec = EpisodeStore.open(tmp_path / "store").spec
    attempts(tmp_path / "store", spec, ["success"])
    assert main(waiting) == 0
    assert len(states(tmp_path)) == 1, "one of two episodes is not enough"
    attempts(tmp_path / "store", spec, ["failure"])
    assert main(waiting) == 0
    done = {stage["name"]: stage for stage in states(tmp_path)}
    assert done["round_0/play"]["facts"]["data"] == {"episodes": 2, "successes": 1, "failures": 1}
    assert done["round_0/imitation"]["facts"]["episodes"] == 10
    assert done["round_0/imitation"]["accepted"], "six ties show that it is not worse by 0.99"
    assert torch.equal(chunks(tmp_path), chunks(tmp_path / "round_0" / "imitation"))


def test_contradictions_are_refused_with_words(begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frozen = tmp_path / "frozen"
    shutil.copytree(begun / "train", frozen)
    card = json.loads((frozen / "model.json").read_text())
    card["policy"] = {"_target_": "policies.chain.DenoisingChain", "model": card["policy"], "noise": {}, "n_tuned": 1}
    (frozen / "model.json").write_text(json.dumps(card))
    assert ModelCard.load(frozen).policy["n_tuned"] == 1
    for wrong, told in (
        ("algo.rounds.n=0", "`algo.rounds.n` must be at least 1"),
        ("algo.rounds.again=-1", "`algo.rounds.again` must be at least 0"),
        ("algo.rounds.imitate=failures", "`algo.rounds.imitate` must be one of"),
        ("algo.offline.n_tuned=1", "`algo.offline.n_tuned` must be one of (None,) in rounds"),
        ("algo.judge.first_seed=100000", "the scenes of `evaluate` must decide nothing before: seed 100000"),
        ("finetune.first_seed=100000", "`algo.judge`, 500000 ... 500001, must not be played to learn from"),
        ("algo.judge.first_seed=999999", "`algo.judge`, 999999 ... 1000000, must not be played to learn from"),
        ("algo.judge.first_seed=70", "must not be in the data"),
        ("algo.judge.block=0", "`algo.judge.block` must be at least 1"),
        ("algo.judge.test.margin=-1", "`margin`"),
        ("algo.rounds.episodes=0", "`algo.rounds.episodes` must be in 1"),
        ("algo.offline.evaluation.horizon=0", "`algo.offline.evaluation.horizon` must be at least 1"),
        ("algo.offline.improve.gate_every=0", "`gate_every`"),
        ("algo.online.ppo.epochs=0", "`epochs` must be at least 1"),
        ("algo.online.lanes=0", "`algo.online.lanes` must be at least 1"),
        ("algo.online.chain.n_tuned=9", "`n_tuned` must be in 1 ... 2"),
        ("finetune.steps=0", "`finetune.steps` must be at least 1"),
        ("evaluate.episodes=-1", "`evaluate.episodes` must be at least 0"),
        ("base=null", "`base` must be"),
        ("finetune.hardware=true", "nothing here moves the arm"),
        ("finetune.role=actor", "leave finetune.role=both"),
        (f"base={frozen}", "only the last 1 steps were tuned already"),
    ):
        assert main(command(begun, f"finetune.out={tmp_path / 'no'}", wrong)) == 2
        assert told in " ".join(capsys.readouterr().out.split()), wrong
        assert not (tmp_path / "no").exists(), "nothing was begun, so that the right value can be given"
    lcm = command(begun, f"finetune.out={tmp_path / 'no'}", "algo.head=true", "head=lcm")
    assert main(lcm) == 2
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("other", ["+task.env.max_steps=9", "finetune.max_steps=5", "finetune.first_seed=1200000"])
def test_a_begun_run_does_not_go_on_in_another_world(whole: Path, begun: Path, capsys, other: str) -> None:
    given = [item for item in command(begun, *ONLINE, *DISTIL) if item.partition("=")[0] != other.partition("=")[0]]
    before = (whole / "summary.json").read_text()
    assert main([*given, other]) == 2
    assert other.partition("=")[0].rpartition(".")[2] in capsys.readouterr().out
    assert (whole / "summary.json").read_text() == before


def test_the_base_sampled_otherwise_is_another_bundle(whole: Path, begun: Path, tmp_path: Path, capsys) -> None:
    """A gate that refused everything leaves the weights of the base, and another policy."""
    bundle = f"bundle={tmp_path / 'bundle'}"
    assert main(["package", f"out={begun}", f"run={begun}/train", bundle]) == 0
    assert main(["package", f"out={begun}", f"run={begun}/train", bundle]) == 0
    assert main(["package", f"out={begun}", f"run={whole}/round_0/offline/imitation", bundle]) == 2
    assert "a bundle is immutable" in " ".join(capsys.readouterr().out.split())
