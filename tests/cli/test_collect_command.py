"""`robot-rl collect`: what it refuses, and stores of mixed quality."""

from pathlib import Path

import numpy as np
import pytest

from robot_rl.cli.collect_command import read_plan
from robot_rl.cli.config import load_config
from robot_rl.cli.main import main
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.values import Recording

MIXED = "collect.qualities=[1.0,0.5,0.2]"


def by_seed(folder: Path) -> dict[int, Recording]:
    store = EpisodeStore.open(folder)
    found = (store.read(id) for id in store.ids())
    return {recording.meta.seed or 0: recording for recording in found}


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mixed")
    assert main(["collect", f"store={out}/whole", "collect.episodes=6", MIXED]) == 0
    return out


@pytest.mark.parametrize("episodes", [-2, 0])
def test_a_number_of_episodes_below_one_makes_no_store(episodes, tmp_path, capsys):
    assert main(["collect", f"store={tmp_path}/store", f"collect.episodes={episodes}"]) == 2
    assert f"`collect.episodes` must be a whole number, at least 1, got {episodes}" in printed(capsys)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("collect.first_seed=-1", "`collect.first_seed` must be a whole number, at least 0, got -1"),
        ("collect.max_steps=0", "`collect.max_steps` must be a whole number, at least 1, got 0"),
        ("collect.max_steps=2.5", "`collect.max_steps` must be a whole number, at least 1, got 2.5"),
        ("collect.qualities=[]", "`collect.qualities` must be a list of success rates such as [1.0,0.5,0.2], got []"),
        ("collect.qualities=0.5", "must be a list of success rates such as [1.0,0.5,0.2], got 0.5"),
        ("collect.qualities=[good]", "must be a list of success rates such as [1.0,0.5,0.2], got ['good']"),
        ("collect.qualities=[1.0,0.1]", "`quality` must be from 0.2 to 1, the rates measured for `lift`; got 0.1"),
        ("collect.qualities=[1.5]", "`collect.qualities` is [1.5]: cannot build"),
    ],
)
def test_numbers_out_of_range_are_named(override, message, tmp_path, capsys):
    assert main(["collect", f"store={tmp_path}/store", override]) == 2
    assert message in printed(capsys)
    assert not (tmp_path / "store").exists()


def test_a_task_whose_expert_cannot_misjudge_is_refused():
    with pytest.raises(ConfigError, match=r"needs an expert that can misjudge, and task `intercept` has none"):
        read_plan(load_config(["task=intercept", MIXED]))


@pytest.mark.parametrize(("task", "steps"), [("lift", 80), ("insert", 50), ("lift_cloud", 80)])
def test_demonstrators_of_each_quality_give_up_like_those_of_the_benchmarks(task, steps):
    plan = read_plan(load_config([f"task={task}", MIXED]))
    assert [acting.extra for acting in plan.demonstrators] == [{"quality": 1.0}, {"quality": 0.5}, {"quality": 0.2}]
    spreads = [acting.policy.spread_m for acting in plan.demonstrators]
    assert spreads[0] == 0.0 < spreads[1] < spreads[2]
    assert plan.max_steps == steps
    assert plan.keep_failures
    assert read_plan(load_config([f"task={task}", MIXED, "collect.max_steps=9"])).max_steps == 9


def test_without_qualities_the_expert_acts_and_nobody_gives_up():
    plan = read_plan(load_config(["task=lift"]))
    assert ([acting.extra for acting in plan.demonstrators], plan.max_steps) == ([{}], None)
    assert (plan.keep_failures, plan.mixed, plan.max_failures) == (False, False, 60)


def test_demonstrators_take_turns_and_their_failures_are_kept(mixed):
    found = by_seed(mixed / "whole")
    assert {seed: r.meta.extra["quality"] for seed, r in found.items()} == dict(enumerate([1.0, 0.5, 0.2] * 2))
    outcomes = {seed: r.meta.outcome for seed, r in found.items()}
    assert (outcomes[0], outcomes[3]) == ("success", "success")
    assert set(outcomes.values()) == {"success", "failure"}
    assert all(len(r.streams["action"]) == 80 for r in found.values() if r.meta.outcome == "failure")


def test_a_stopped_collection_goes_on_to_the_same_episodes(mixed, capsys):
    for episodes in (2, 6):
        assert main(["collect", f"store={mixed}/parts", f"collect.episodes={episodes}", MIXED]) == 0
    whole, parts = by_seed(mixed / "whole"), by_seed(mixed / "parts")
    assert whole.keys() == parts.keys()
    for seed, recording in whole.items():
        assert recording.meta == parts[seed].meta
        np.testing.assert_array_equal(recording.streams["action"].data[:], parts[seed].streams["action"].data[:])
    failures = sum(r.meta.outcome == "failure" for r in whole.values())
    assert f"{failures} of them failures" in printed(capsys)


def test_a_store_full_of_good_demonstrations_is_not_taken_for_a_mixed_one(tmp_path, capsys):
    assert main(["collect", f"store={tmp_path}/store", "collect.episodes=1", "collect.max_steps=200"]) == 0
    assert main(["collect", f"store={tmp_path}/store", "collect.episodes=1", MIXED]) == 2
    assert "already holds 1 episodes, none of them by demonstrators of `collect.qualities`" in printed(capsys)
    assert main(["collect", f"store={tmp_path}/store", "collect.episodes=2", MIXED]) == 0
    assert {seed: r.meta.extra for seed, r in by_seed(tmp_path / "store").items()} == {0: {}, 1: {"quality": 0.5}}
    assert main(["collect", f"store={tmp_path}/store", "collect.episodes=1", MIXED]) == 0


def test_a_mixed_store_has_a_report(mixed):
    assert main(["report", "task=lift", f"store={mixed}/whole"]) == 0
