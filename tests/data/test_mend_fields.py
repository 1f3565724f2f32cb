"""Rename and drop streams, and work things out anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from robot_rl.data.mend.apply import apply_plan, undo
from robot_rl.data.mend.fields import plan_drop, plan_rename
from robot_rl.data.mend.plan import Mend
from robot_rl.data.mend.recompute import plan_recompute
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, SpecError, StoreError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream
from tests.contracts.episode_sink import sink_recording
from tests.data.mend_stores import multi_rate, on_grid, state


def test_renamed_streams_are_the_same_files_under_another_name(tmp_path: Path):
    store = multi_rate(tmp_path / "s")
    before = np.array(store.read("a").streams["q"].data[:])
    inode = (tmp_path / "s" / "episodes" / "a" / "q" / "data" / "c.0.0").stat().st_ino
    apply_plan(plan_rename(Mend(store), {"q": "joints", "camera": "front", "force": "wrench"}))
    again = EpisodeStore.open(store.url)
    assert list(again.schema.spec.obs) == ["joints", "front"]
    assert list(again.schema.extra) == ["wrench"]
    assert again.ids() == ["a", "b", "c"], "rows stay, so ids stay"
    np.testing.assert_array_equal(again.read("a").streams["joints"].data[:], before)
    assert (tmp_path / "s" / "episodes" / "a" / "joints" / "data" / "c.0.0").stat().st_ino == inode
    group = zarr.open_group(str(tmp_path / "s" / "episodes" / "a"), mode="r", zarr_format=3)
    np.testing.assert_array_equal(group["joints/data"][:], before)
    assert "q" not in group
    assert again.episode("a").obs["joints"][:].shape[1] == 7
    assert again.read("a").meta.extra["provenance"][-1]["arguments"]["names"]["q"] == "joints"
    for id in again.ids():
        again.verify(id)
    again.append(again.read("a"), id="new")


def test_renaming_refuses_names_that_are_taken_fixed_or_unknown(tmp_path: Path):
    store = multi_rate(tmp_path / "s")
    with pytest.raises(ConfigError, match=r"\['camera'\] are streams of this store already"):
        plan_rename(Mend(store), {"q": "camera"})
    with pytest.raises(ConfigError, match=r"needs observations or extra streams, got \['action'\]"):
        plan_rename(Mend(store), {"action": "command"})
    with pytest.raises(ConfigError, match=r"no stream \['arm'\] in this store, which has"):
        plan_rename(Mend(store), {"arm": "joints"})
    with pytest.raises(SpecError, match="stream name 'a/b' must be letters"):
        plan_rename(Mend(store), {"q": "a/b"})


def test_dropped_streams_leave_episodes_and_schema(tmp_path: Path):
    store = multi_rate(tmp_path / "s")
    apply_plan(plan_drop(Mend(store), ["camera", "force", "reward"]))
    again = EpisodeStore.open(store.url)
    assert set(again.read("a").streams) == {"q", "action", "action_executed", "by_human"}
    assert "camera" not in again.schema.streams
    assert "reward" in again.schema.streams, "every store may have a reward"
    assert again.episode("a").reward.sum() == 0
    with pytest.raises(ConfigError, match="streams other than the action"):
        plan_drop(Mend(again), ["action"])


def test_fields_cannot_change_while_somebody_records(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    writer = store.writer(RecordingMeta())
    with pytest.raises(StoreError, match=f"fields cannot change while .* is recorded to \\({writer.id}\\)"):
        apply_plan(plan_rename(Mend(store), {"q": "joints"}))
    writer.discard()
    plan = plan_rename(Mend(store), {"q": "joints"})
    store.append(sink_recording(5), id="late")
    with pytest.raises(StoreError, match="episode late came since and does not have the fields"):
        apply_plan(plan)
    assert store.ids() == ["g", "h", "late"]


def test_a_program_that_opened_the_store_before_cannot_add_old_fields(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    old = EpisodeStore.open(store.url)
    apply_plan(plan_rename(Mend(store), {"q": "joints"}))
    with pytest.raises(StoreError, match=r"the fields of .* were renamed or dropped after this program opened it"):
        old.append(sink_recording(5), id="stale")
    again = EpisodeStore.open(store.url)
    assert again.ids() == ["g", "h"]
    assert [(f.id, f.state) for f in again.found] == [("stale", "quarantined")]
    assert "unknown stream `q`" in again.found[0].reason


def test_undoing_a_rename_refuses_when_episodes_came_with_the_new_names(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    before = state(tmp_path / "s")
    apply_plan(plan_rename(Mend(store), {"q": "joints"}))
    again = EpisodeStore.open(store.url)
    again.append(again.read("g"), id="late")
    with pytest.raises(StoreError, match="episode late came since and does not have the fields"):
        undo(tmp_path / "s")
    again.delete("late")
    undo(tmp_path / "s")
    assert state(tmp_path / "s") == before


def test_reward_is_worked_out_from_the_outcome(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    store.append(sink_recording(3, outcome="unknown"), id="i")
    store.relabel("h", outcome="failure")
    plan = plan_recompute(Mend(store), store.ids(), "reward_from_outcome")
    assert plan.skipped == {"i": "its outcome is unknown; relabel it first"}
    apply_plan(plan)
    rewards = {id: store.episode(id).reward.tolist() for id in store.ids()}
    assert rewards == {"g.m1": [0, 0, 0, 0, 0, 1], "h.m1": [0] * 6, "i": [1] * 6}
    assert plan_recompute(Mend(store), ["g.m1"], "reward_from_outcome").skipped == {"g.m1": "it is so already"}


def test_who_drove_is_worked_out_from_the_source(tmp_path: Path):
    store = multi_rate(tmp_path / "s")
    apply_plan(plan_recompute(Mend(store), ["a"], "by_human_from_source"))
    assert store.episode("a.m1").by_human.all()
    grid = on_grid(tmp_path / "g")
    skipped = plan_recompute(Mend(grid), ["g"], "by_human_from_source").skipped
    assert skipped["g"] == "its source is 'unknown'; only ['human', 'policy', 'scripted'] say who drove"


@pytest.mark.parametrize("on_clock", [True, False])
def test_action_is_worked_out_from_the_state_some_steps_later(tmp_path: Path, on_clock: bool):
    spec = RobotSpec(
        name="arm", obs={"q": ArraySpec(name="q", shape=(2,)), "force": ArraySpec(name="force", shape=())},
        action=ActionSpec(name="action", shape=(2,)), control_hz=30.0,
    )  # fmt: skip
    store = EpisodeStore.create(tmp_path / "s", spec)
    stamps = np.round(np.arange(8) * 1e9 / 30).astype(np.int64)
    row = np.arange(8, dtype=np.float32)
    streams = {
        "q": Stream(stamps, np.stack([row, -row], 1)), "force": Stream(stamps, row),
        "action": Stream(stamps[:7] if on_clock else stamps[:7] + 5, np.zeros((7, 2), np.float32)),
    }  # fmt: skip
    store.append(Recording(streams, RecordingMeta(on_grid=on_clock)), id="x")
    apply_plan(plan_recompute(Mend(store), ["x"], "action_from_state", state="q", lag=2))
    np.testing.assert_array_equal(store.episode("x.m1").action[:, 0], [2, 3, 4, 5, 6, 7, 7])
    with pytest.raises(ConfigError, match=r"of the action's shape \(2,\): \['q'\]; got 'force'"):
        plan_recompute(Mend(store), ["x.m1"], "action_from_state", state="force")
    with pytest.raises(ConfigError, match="`lag` must be 1 or more"):
        plan_recompute(Mend(store), ["x.m1"], "action_from_state", state="q", lag=0)


def test_checksums_follow_bytes_that_were_changed_on_purpose(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    chunk = tmp_path / "s" / "episodes" / "g" / "q" / "data" / "c.0.0"
    old = chunk.read_bytes()
    chunk.write_bytes(bytes([1]) + old[1:])
    store = EpisodeStore.open(store.url)
    with pytest.raises(StoreError, match="checksum must be"):
        store.verify("g")
    plan = plan_recompute(Mend(store), store.ids(), "checksums")
    assert [(change.episode, change.what) for change in plan.changes] == [("g", "checksums of q/data")]
    assert plan.skipped == {"h": "every checksum is right"}
    digest = store.digest()
    apply_plan(plan)
    store.verify("g")
    assert store.digest() != digest
    undo(tmp_path / "s")
    assert store.digest() == digest


def test_the_index_is_written_anew(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    wanted = store.entries()
    index = tmp_path / "s" / "index.jsonl"
    index.write_bytes(index.read_bytes().replace(b'"outcome":"success"', b'"outcome":"failure"'))
    store = EpisodeStore.open(store.url)
    assert store.entries() != wanted
    apply_plan(plan_recompute(Mend(store), [], "index"))
    assert EpisodeStore.open(store.url).entries() == wanted


def test_an_unknown_recomputation_lists_what_there_is(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"must be one of \['action_from_state', 'by_human_from_source', 'checksums'"):
        plan_recompute(Mend(on_grid(tmp_path / "s")), ["g"], "magic")
