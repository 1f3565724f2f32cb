"""`robot-rl mend`: shows, does, tells and takes back; selects by labels, lengths and findings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from robot_rl.cli.main import main
from robot_rl.cli.mend_command import OPERATIONS, run
from robot_rl.data.checks.finding import EpisodeVerdict, Finding, StoreVerdict
from robot_rl.data.mend.selection import Selection, select
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, StoreError
from tests.contracts.episode_sink import sink_recording
from tests.data.mend_stores import every_byte, multi_rate, on_grid, state


def mend(root: Path, operation: str, *overrides: str) -> str:
    console = Console(record=True, width=200)
    run([operation, f"store={root}", *overrides], console)
    return console.export_text()


def test_a_preview_shows_what_would_change_and_changes_no_byte(tmp_path: Path):
    multi_rate(tmp_path / "s")
    before = every_byte(tmp_path / "s")
    text = mend(tmp_path / "s", "trim", "mend.where.outcome=success", "mend.trim.head=0.3")
    assert "1.01 s -> 0.71 s" in text
    assert "a.m1" in text
    assert "1 changes, 0 left as they are; 1 episodes out, 1 in" in text
    assert "nothing was changed; mend.apply=true does it" in text
    assert every_byte(tmp_path / "s") == before


def test_apply_then_log_then_undo(tmp_path: Path):
    root = tmp_path / "s"
    on_grid(root)
    old = state(root)
    text = mend(root, "split", "mend.episodes=[g]", "mend.split={at: [2], unit: steps}", "mend.apply=true")
    assert "done as transaction 1" in text
    mend(root, "rename", "mend.names={q: joints}", "mend.apply=true")
    assert EpisodeStore.open(root).ids() == ["g.m1.001", "g.m1.002", "h"]
    log = mend(root, "log")
    assert log.index("split") < log.index("rename")
    assert "transaction 2 (rename of" in mend(root, "undo")
    assert "transaction 1 (split of" in mend(root, "undo")
    assert mend(root, "log").count("undone") == 2
    assert state(root) == old


def test_every_operation_can_be_asked_for(tmp_path: Path):
    root, other = tmp_path / "s", tmp_path / "o"
    on_grid(root)
    on_grid(other).append(sink_recording(7), id="new")
    asked = {
        "delete": ["mend.episodes=[h]"],
        "trim": ["mend.where.everything=true", "mend.trim.tail=0.2"],
        "split": ["mend.episodes=[g]", "mend.split.at=[0.3]"],
        "join": ["mend.episodes=[g,i]", "mend.join.restamp=true"],
        "merge": [f"mend.other={other}"],
        "relabel": ["mend.where.task=count", "mend.set.task=pour the tea"],
        "rename": ["mend.names={force: wrench}"],
        "drop": ["mend.fields=[force]"],
        "recompute": ["mend.where.everything=true", "mend.recompute.what=reward_from_outcome"],
    }
    assert set(asked) == set(OPERATIONS)
    EpisodeStore.open(root).append(sink_recording(0, outcome="success"), id="i")
    old = state(root)
    for operation, overrides in asked.items():
        mend(root, operation, *overrides, "mend.apply=true")
        assert state(root) != old, operation
        mend(root, "undo")
        assert state(root) == old, operation


def test_emptying_the_trash_is_shown_first(tmp_path: Path):
    root = tmp_path / "s"
    on_grid(root)
    mend(root, "delete", "mend.episodes=[g]", "mend.apply=true")
    assert "nothing was changed; mend.apply=true does it" in mend(root, "empty-trash")
    assert (root / "trash").exists()
    mend(root, "empty-trash", "mend.apply=true")
    assert not (root / "trash").exists()
    with pytest.raises(StoreError, match="no longer in the trash"):
        mend(root, "undo")


def test_the_program_refuses_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    on_grid(tmp_path / "s")
    assert main(["mend", "fix", f"store={tmp_path / 's'}"]) == 2
    assert "robot-rl mend needs one of: delete (episodes to the trash)" in " ".join(capsys.readouterr().out.split())
    assert main(["mend", "delete", f"store={tmp_path / 's'}"]) == 2
    assert "say which episodes" in capsys.readouterr().out
    assert main(["mend", "log", f"store={tmp_path / 's'}"]) == 0


def test_selection_by_labels_lengths_and_findings(tmp_path: Path):
    store = multi_rate(tmp_path / "s")
    store.append(store.read("a"), id="d")
    assert select(store, Selection(outcome="success")) == ["a", "d"]
    assert select(store, Selection(episodes=["d", "b"])) == ["d", "b"]
    assert select(store, Selection(episodes=["d", "b"], outcome="failure")) == ["b"]
    assert select(store, Selection(task="reach", source="human", longer_than_s=0.9)) == ["a", "b", "c", "d"]
    assert select(store, Selection(shorter_than_s=0.9)) == []
    with pytest.raises(ConfigError, match="say which episodes: give one of"):
        select(store, Selection())
    with pytest.raises(StoreError, match=r"there is no episode \['x'\] in .*, which has 4 episodes"):
        select(store, Selection(episodes=["a", "x"]))
    with pytest.raises(StoreError, match="named twice"):
        select(store, Selection(episodes=["a", "a"]))


def test_selection_by_a_check(tmp_path: Path):
    store = multi_rate(tmp_path / "s")
    idle = Finding(check="idle_head", severity="warn", what="nothing moves", episode="a")
    gap = Finding(check="gap", severity="fail", what="no sample for 0.3 s", episode="c")
    leak = Finding(check="leak", severity="fail", what="an episode is on both sides")
    verdict = StoreVerdict(
        store=store.url, digest=store.digest(), findings=[leak],
        episodes=[
            EpisodeVerdict(id=f.episode, task="", outcome="", steps=20, seconds=1.0, findings=[f]) for f in (idle, gap)
        ],
    )  # fmt: skip
    path = tmp_path / "check.json"
    path.write_text(json.dumps(verdict.to_dict()))
    assert select(store, Selection(check=path)) == ["c"]
    assert select(store, Selection(check=path, severity="warn")) == ["a", "c"]
    assert select(store, Selection(check=path, severity="warn", checks=["idle_head"])) == ["a"]
    path.write_text("{}")
    with pytest.raises(StoreError, match=r"is not a check\.json of `robot-rl check`: KeyError"):
        select(store, Selection(check=path))
    with pytest.raises(StoreError, match="cannot be read"):
        select(store, Selection(check=tmp_path / "none.json"))
    with pytest.raises(ConfigError, match=r"gives no check\.json"):
        Selection(checks=["leak"])
