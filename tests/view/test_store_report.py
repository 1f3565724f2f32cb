"""The report of a store: what is counted, and what a page says."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest

from robot_rl.cli.main import main
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import StoreError
from robot_rl.view.charts import spreads
from robot_rl.view.store_report import read_check, store_sections
from robot_rl.view.survey import sessions, survey
from robot_rl.view.thumbnails import montages
from tests.view.view_data import START, N, commands, recording, store


def test_the_survey_counts_labels_shares_and_ranges(tmp_path):
    found = survey(store(tmp_path / "store", episodes=3))
    assert found.count("outcome") == {"success": 2, "failure": 1}
    assert [e.human for e in found.episodes] == [0.5] * 3
    assert [e.reward for e in found.episodes] == [1.0] * 3
    assert [e.steps for e in found.episodes] == [N] * 3
    assert found.hours == pytest.approx(3 * 2.995 / 3600, rel=0.01)
    every = np.concatenate([commands(0.4 * i) for i in range(3)])
    np.testing.assert_array_equal(found.streams["action"].low, every.min(axis=0))
    np.testing.assert_array_equal(found.streams["action"].high, every.max(axis=0))
    np.testing.assert_array_equal(found.streams["action"].rows, every)
    assert found.rates["q"] == pytest.approx([100.0] * 3)
    assert set(found.streams) == {"q", "force", "action", "action_executed", "reward", "cloud"}


def test_samples_are_bounded_and_the_range_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("robot_rl.view.survey.SAMPLES", 20)
    found = survey(store(tmp_path / "store", episodes=2))
    action = found.streams["action"]
    assert [len(block) for block in action.kept] == [10, 10]
    assert action.samples == 2 * N
    every = np.concatenate([commands(0.4 * i) for i in range(2)])
    np.testing.assert_array_equal(action.high, every.max(axis=0))


def test_sessions_are_cut_where_half_an_hour_passed(tmp_path):
    made = store(tmp_path / "store", episodes=2)
    made.append(recording(start=START + 600_000_000_000), id="soon")
    made.append(recording(start=0), id="undated")
    made.append(recording(start=0), id="20231114T230000000000-abcd")
    found = [[e.id for e in session] for session in sessions(survey(made).episodes)]
    assert found == [["ep0", "soon"], ["20231114T230000000000-abcd", "ep1"]]


def test_an_episode_that_cannot_be_read_is_listed_with_the_reason(tmp_path):
    made = store(tmp_path / "store")
    files = (tmp_path / "store" / "episodes" / "ep1" / "q" / "data").rglob("*")
    next(p for p in files if p.is_file() and p.name != "zarr.json").write_bytes(b"short")
    found = survey(EpisodeStore.open(tmp_path / "store"))
    assert [e.id for e in found.episodes if e.flags] == ["ep1"]
    assert "array `q/data`" in found.episodes[1].flags[0]
    table = store_sections(made, found)[-1].blocks[0]
    assert [row[0] for row in table.rows] == ["ep1", "ep0"]


def test_the_strip_has_first_pictures_above_last_ones(tmp_path):
    made = store(tmp_path / "store")
    files = montages(made, made.ids(), tmp_path)
    assert set(files) == {"front"}
    import cv2

    strip = cv2.imread(str(files["front"]))[..., ::-1]
    assert strip.shape == (302, 200 + 6 + 200, 3)
    assert abs(int(strip[5, 5, 0]) - 40) < 6
    assert abs(int(strip[160, 5, 0]) - 99) < 6


def test_the_command_writes_one_page_with_everything(tmp_path, capsys):
    made = store(tmp_path / "store")
    finding = {"check": "lag", "severity": "warn", "what": "q follows 3 steps late", "episode": "ep0"}
    check = {"store": made.url, "digest": made.digest(), "severity": "warn", "findings": [finding], "episodes": []}
    (tmp_path / "check.json").write_text(json.dumps(check))
    assert main(["report", f"store={tmp_path}/store"]) == 0
    html = (tmp_path / "store_report.html").read_text()
    for part in ("reach", "success", "failure", "2023-11-14", "data:image/jpeg", "force [N]", "q follows 3 steps late",
                 "Driven by a person", "50 %", "ep1"):  # fmt: skip
        assert part in html, part
    assert "<script" not in html
    assert "has changed since" not in html
    assert "store_report.html" in capsys.readouterr().out
    made.delete("ep1")
    assert main(["report", f"store={tmp_path}/store"]) == 0
    assert "has changed since" in (tmp_path / "store_report.html").read_text()


def test_a_check_of_another_store_is_left_out_and_a_damaged_one_is_named(tmp_path):
    store(tmp_path / "store")
    check = {"store": "elsewhere", "digest": "", "severity": "fail", "findings": [], "episodes": []}
    (tmp_path / "check.json").write_text(json.dumps(check))
    assert main(["report", f"store={tmp_path}/store"]) == 0
    assert "Verdict" not in (tmp_path / "store_report.html").read_text()
    (tmp_path / "check.json").write_text("{")
    with pytest.raises(StoreError, match="not JSON"):
        read_check(tmp_path / "check.json")
    (tmp_path / "check.json").write_text("{}")
    with pytest.raises(StoreError, match=r"needs severity, findings, episodes, digest, got \[\]"):
        read_check(tmp_path / "check.json")


@pytest.mark.parametrize("quality", [0.5, "good", None, {"level": "ok", "streams": 2}, {"streams": {"front": 0.5}}])
def test_a_quality_that_no_recorder_noted_is_no_verdict(tmp_path, quality):
    made = store(tmp_path / "store", episodes=1)
    made.append(recording(meta={"extra": {"quality": quality}}), id="rated")
    found = {e.id: e for e in survey(made).episodes}
    assert found["rated"].recorder == ("ok" if quality and "level" in str(quality) else "")
    assert found["rated"].flags == []
    assert main(["report", f"store={tmp_path}/store"]) == 0


def test_ends_of_a_row_have_all_their_digits_while_there_is_room():
    low, high = np.array([0.0, -1e12]), np.array([1234.0, 0.000123456])
    svg = spreads(["steps", "stamp"], low, high, np.stack([low, high]), title="episodes")
    ticks = re.findall(r'class="tick"[^>]*>([^<]*)<', svg)
    assert ticks == ["min", "max", "0", "1,234", "-1e+12", "0.000123"]


def test_names_and_smallest_values_lie_within_the_picture_and_beside_one_another():
    name, low = "left_shoulder_pitch", np.array([-8.64e-07])
    svg = spreads([name], low, low + 1, low[None], title="joint_velocity [rad/s]")
    texts = re.findall(r'<text x="([^"]*)" y="([^"]*)"[^>]*text-anchor="(\w+)">([^<]*)<', svg)
    letter = 8.0
    spans = [
        (float(y), float(x) - (letter * len(text) if anchor == "end" else 0.0),
         float(x) + (letter * len(text) if anchor == "start" else 0.0))
        for x, y, anchor, text in texts
    ]  # fmt: skip
    assert all(0 <= start < end <= 1000 for _, start, end in spans)
    for line in {y for y, _, _ in spans}:
        row = sorted((start, end) for y, start, end in spans if y == line)
        assert all(end <= start for (_, end), (start, _) in pairwise(row))


def test_an_empty_store_has_a_report_too(tmp_path):
    made = store(tmp_path / "store", episodes=0)
    sections = store_sections(made, survey(made))
    assert sections[0].blocks[0].tiles[0].value == "0"
    assert main(["report", f"store={tmp_path}/store", f"store_report.out={tmp_path}/r.html"]) == 0
    assert "Overview" in (tmp_path / "r.html").read_text()
