"""`robot-rl check` from the command line: exit status, check.json, check.html; and real stores where nothing fires."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from robot_rl.cli.main import main
from robot_rl.data.checks import CheckSettings, Thresholds, check_store
from robot_rl.data.store import EpisodeStore
from tests.data.check_stores import Arrays, planted

ROOT = Path(__file__).resolve().parents[2]
G1 = ROOT.parent / "shared" / "data" / "lerobot_g1_v21"
LIFT = ROOT / "outputs" / "benchmarks" / "lift_imitation" / "store"


def check(store: Path, out: Path, *more: str) -> tuple[int, dict]:
    status = main(["check", f"store={store}", f"check.out={out}", *more])
    return status, json.loads((out / "check.json").read_text())


def spike(data: Arrays) -> None:
    data["q"][50, 1] += 1.5


def dead(data: Arrays) -> None:
    data["q"][:, 2] = 0.25


def test_a_sound_store_is_status_0_even_when_strict(tmp_path: Path) -> None:
    planted(tmp_path / "store")
    status, document = check(tmp_path / "store", tmp_path / "out", "check.strict=true")
    assert (status, document["severity"], document["format_version"]) == (0, "ok", 1)
    assert document["counts"] == {"episodes": 6, "ok": 6, "warn": 0, "fail": 0}


def test_warnings_are_status_1_only_when_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted(tmp_path / "store", spike)
    assert check(tmp_path / "store", tmp_path / "out")[0] == 0
    status, document = check(tmp_path / "store", tmp_path / "out", "check.strict=true")
    assert (status, document["counts"]["warn"]) == (1, 1)
    [finding] = document["episodes"][3]["findings"]
    assert (finding["check"], finding["episode"], finding["stream"], finding["element"]) == ("jump", "e3", "q", 1)
    assert "warn: 6 episodes, 5 ok, 1 warn, 0 fail" in capsys.readouterr().out


def test_a_failed_episode_is_status_3_and_the_report_names_it(tmp_path: Path) -> None:
    planted(tmp_path / "store", dead)
    status, document = check(tmp_path / "store", tmp_path / "out")
    assert (status, document["severity"]) == (3, "fail")
    html = (tmp_path / "out" / "check.html").read_text()
    for part in ("keeps the value 0.25 for 6.00 s", "Action to state", "True rates by stamps", "e3"):
        assert part in html, part


def test_a_refused_request_is_status_2(tmp_path: Path) -> None:
    assert main(["check", f"store={tmp_path / 'nowhere'}"]) == 2
    planted(tmp_path / "store")
    assert main(["check", f"store={tmp_path / 'store'}", "check.thresholds.frozen_s=0"]) == 2


def test_thresholds_of_the_configuration_are_those_of_the_code(tmp_path: Path) -> None:
    planted(tmp_path / "store")
    assert check(tmp_path / "store", tmp_path / "out")[1]["thresholds"] == json.loads(json.dumps(vars(Thresholds())))


def test_scripted_demonstrations_of_the_simulated_arm_raise_nothing(tmp_path: Path) -> None:
    assert main(["collect", f"out={tmp_path}", "collect.episodes=3"]) == 0
    status, document = check(tmp_path / "store", tmp_path / "out", "check.strict=true")
    assert (status, [f for e in document["episodes"] for f in e["findings"]]) == (0, [])
    assert document["measures"]["lag"]["frames"] == 2


def test_a_hundred_demonstrations_raise_nothing() -> None:
    if not LIFT.exists():
        pytest.skip("no lift demonstrations; `python -m benchmarks.lift_imitation` makes them")
    verdict = check_store(EpisodeStore.open(LIFT), CheckSettings(thresholds=Thresholds()))
    assert [(f.episode, f.check, f.what) for f in verdict.everything if f.severity != "ok"] == []


def test_the_lag_and_the_two_stuck_joints_of_a_real_humanoid(tmp_path: Path) -> None:
    if not G1.exists():
        pytest.skip("the data set lerobot_g1_v21 is not beside the project")
    pytest.importorskip("pyarrow", reason="reading LeRobot data needs the extra `lerobot`")
    from robot_rl.data.foreign import import_dataset
    from robot_rl.data.formats import open_dataset

    import_dataset(open_dataset(G1, videos=False), tmp_path / "store", keep_sound=True)
    status, document = check(tmp_path / "store", tmp_path / "out")
    assert (status, document["counts"]["fail"]) == (0, 0)
    lag = document["measures"]["lag"]
    assert abs(lag["frames"] - 8) <= 1
    assert (len(lag["elements"]), lag["high"] - lag["low"]) == (26, pytest.approx(1, abs=1))
    assert [int(m["state"].split("[")[1][:-1]) for m in lag["elements"]] == list(range(26))
    stuck = {f["element"] for f in document["findings"] if f["check"] == "saturated"}
    assert stuck == {24, 25}
    frozen = [f["element"] for e in document["episodes"] for f in e["findings"] if f["check"] == "frozen"]
    assert np.bincount(frozen).argmax() == 25
