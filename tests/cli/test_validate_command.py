"""A bundle climbs the ladder in a real simulation: intercept, made so easy that standing still catches the target."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed here; pip install 'robot-rl[train]'")

from robot_rl.bundle.accepted import read_accepted
from robot_rl.cli.main import main
from robot_rl.data.store import EpisodeStore
from robot_rl.evaluation.permission import check_hardware_permission
from robot_rl.evaluation.rollouts import run_episode
from robot_rl.evaluation.validation import read_validations
from robot_rl.interfaces import Policy
from robot_rl.values import ActionChunk, PolicyInput, RecordingMeta
from sim.intercept import SPEC, InterceptEnv
from tests.cli.hand_bundle import hand_bundle

EASY = ["++task.env.catch_m=2.0", "++task.env.hold_steps=1", "++task.env.max_steps=5"]


class Wander:
    """Goes to and fro, so that recorded actions have a range."""

    n_obs, n_execute = 1, 1

    def reset(self) -> None:
        self._n = 0

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        self._n += 1
        aim = policy_input.obs["agent_pos"][-1] + 0.1 * np.array([np.sin(self._n), np.cos(self._n)], np.float32)
        return ActionChunk(policy_input.stamp_ns, SPEC.step_ns, aim.astype(np.float32)[None])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and three bundles."""
    out = tmp_path_factory.mktemp("ladder")
    store, policy = EpisodeStore.create(out / "store", SPEC), Wander()
    assert isinstance(policy, Policy)
    for seed in range(3):
        recording, _ = run_episode(InterceptEnv(max_steps=20), policy, seed, meta=RecordingMeta(source="scripted"))
        store.append(recording)
    hand_bundle(out / "bundles" / "still", created="2026-01-01T00:00:00+00:00")
    hand_bundle(out / "bundles" / "near", way=(0.001, 0.0), created="2026-02-01T00:00:00+00:00")
    hand_bundle(out / "bundles" / "far", way=(0.9, 0.0), created="2026-03-01T00:00:00+00:00")
    return out


def validate(place: Path, name: str, *more: str, out: str = "") -> int:
    folder = place / "bundles" / name
    return main([
        "validate", "task=intercept", f"out={place}", f"bundle={folder}", f"validate.out={place / (out or name)}",
        "validate.delay_steps=1", "validate.replay.latency=50", *EASY, *more,
    ])  # fmt: skip


def test_a_bundle_that_reaches_the_top_is_attested_and_its_conditions_are_written(place: Path) -> None:
    assert validate(place, "still", "validate.drops.observations.fraction=0.1") == 0
    bundle = place / "bundles" / "still"
    id = json.loads((bundle / "manifest.json").read_text())["id"]
    (record,) = read_validations(bundle, bundle_id=id)
    assert record.seeds == tuple(range(300_000, 300_018))
    assert record.succeeded == record.seeds
    assert list(record.ladder) == ["replay", "simulation"]
    assert record.ladder["simulation"]["figures"]["test"]["wrongly_accepted_at_p0"] < 0.05
    assert record.env["delay_steps"] == 1
    assert record.env["lost_observations"]["fraction"] == 0.1
    assert record.env["randomised"]["pixel"] == 2.0
    html = (place / "still" / "report.html").read_text()
    for part in ("Recorded observations", "every rung holds", "log-likelihood ratio", "Run it again"):
        assert part in html, part


def test_running_it_again_plays_no_trial_twice(place: Path) -> None:
    trials = (place / "still" / "trials.jsonl").read_text()
    assert validate(place, "still", "validate.drops.observations.fraction=0.1") == 0
    assert (place / "still" / "trials.jsonl").read_text() == trials


def test_a_replay_of_other_limits_is_not_taken_for_this_one(place: Path) -> None:
    asked = json.loads((place / "still" / "replay.json").read_text())["asked"]
    assert asked["velocity"]
    assert validate(place, "still", "validate.drops.observations.fraction=0.1", "validate.threads=2") == 0
    now = json.loads((place / "still" / "replay.json").read_text())["asked"]
    assert now == {**asked, "threads": 2}


def test_a_fall_leaves_no_record_and_names_the_reason(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(place, "far", "validate.replay.difference=null", "++task.env.catch_m=0.01", out="fall") == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "not validated: replay does not hold: range:" in said
    assert not list((place / "bundles" / "far").glob("attestations/validation-*"))
    assert not (place / "fall" / "trials.jsonl").exists()
    more = ("validate.replay.difference=null", "validate.replay.outside=null", "++task.env.catch_m=0.01")
    assert validate(place, "far", *more, out="fall2") == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "simulation does not hold: success rate: 0 of 3 trials: rejected" in said
    assert not list((place / "bundles" / "far").glob("attestations/validation-*"))


def test_a_candidate_is_compared_with_the_incumbent_and_takes_its_place(place: Path) -> None:
    bundles = place / "bundles"
    more = (
        f"validate.incumbent={bundles / 'still'}", f"validate.accept={bundles}", "validate.paired.margin=0.3",
        "validate.replay.incumbent=0.5",
    )  # fmt: skip
    assert validate(place, "near", *more) == 0
    (record,) = read_validations(bundles / "near", bundle_id=(id := read_accepted(bundles).bundle))
    assert record.bundle_id == id
    pairs = record.ladder["incumbent"]["figures"]["counts"]
    assert (pairs["wins"], pairs["losses"]) == (0, 0)
    assert pairs["ties"] < 30
    accepted = read_accepted(bundles)
    assert accepted.incumbent == record.ladder["incumbent"]["figures"]["bundle"]
    assert accepted.bound == pytest.approx(0.05 ** (1 / pairs["ties"]))


def test_a_validated_bundle_may_move_hardware(place: Path) -> None:
    from robot_rl.bundle import PolicyBundle

    assert "validated on `intercept`: 18 of 18" in check_hardware_permission(
        PolicyBundle.open(place / "bundles" / "still")
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("validate.latency=none.yaml",), "`validate.latency` none.yaml is no file"),
        (("validate=arm",), "mass, friction, damping, gain"),
        (("validate.accept=.",), "`validate.accept` needs `validate.incumbent`"),
        (("task.rest=[]",), "`validate` needs `task.rest`"),
    ],
)
def test_what_cannot_be_validated_is_refused(place: Path, capsys, more, message) -> None:
    assert validate(place, "still", *more, out="refused") == 2
    assert message in " ".join(capsys.readouterr().out.split())
