"""Mends taken back, beside other programs, and refused: what a transaction promises while nobody is killed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.data import transaction
from robot_rl.data.mend.apply import apply_plan, last, undo
from robot_rl.data.mend.operations import plan_delete, plan_merge
from robot_rl.data.mend.plan import Mend
from robot_rl.data.store import EpisodeStore
from robot_rl.data.store_lock import mending
from robot_rl.errors import ConfigError, StoreError
from tests.contracts.episode_sink import sink_recording
from tests.data.mend_stores import PLANNERS, every_byte, multi_rate, on_grid, state


@settings(max_examples=8, deadline=None, derandomize=True)
@given(names=st.lists(st.sampled_from(sorted(PLANNERS)), min_size=1, max_size=4), grid=st.booleans())
def test_undoing_any_sequence_brings_back_every_document_and_the_digest(names: Sequence[str], grid: bool):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "s"
        if grid:
            on_grid(root)
        else:
            multi_rate(root, 0.4)
        states = [state(root)]
        for name in names:
            try:
                done = apply_plan(PLANNERS[name](Mend(EpisodeStore.open(root))))
            except (ConfigError, StoreError):
                continue  # not possible in this state, such as joining one episode
            if done is not None:
                states.append(state(root))
        while len(states) > 1:
            assert state(root) == states.pop()
            undo(root)
        assert state(root) == states[0]
        with pytest.raises(StoreError, match="left to undo"):
            undo(root)


@pytest.mark.parametrize("operation", sorted(PLANNERS))
def test_a_plan_changes_no_byte(tmp_path: Path, operation: str):
    store = multi_rate(tmp_path / "s")
    before = every_byte(tmp_path)
    plan = PLANNERS[operation](Mend(store))
    assert plan.changes
    assert every_byte(tmp_path) == before


def test_numbers_and_ids_are_never_used_twice(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    seen: list[str] = []
    for _ in range(3):
        plan = PLANNERS["split"](Mend(store))
        apply_plan(plan)
        seen += [product.id for product in plan.products]
        undo(tmp_path / "s")
    assert len(set(seen)) == 6
    assert [(r.number, r.undone) for r in transaction.journal(tmp_path / "s")] == [(1, True), (2, True), (3, True)]


def test_what_changed_since_the_plan_is_refused(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    plan = PLANNERS["trim"](Mend(store))
    store.relabel("g", task="pour")
    with pytest.raises(StoreError, match=r"episodes/g/episode\.json was changed by another process meanwhile"):
        apply_plan(plan)
    plan, other = PLANNERS["trim"](Mend(store)), PLANNERS["delete"](Mend(store))
    apply_plan(other)
    with pytest.raises(StoreError, match="another mend of this store came between"):
        apply_plan(plan)


def test_undo_refuses_when_what_it_made_was_changed_since(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    apply_plan(PLANNERS["split"](Mend(store)))
    part = last(tmp_path / "s").into[0]
    store.relabel(part, outcome="success")
    before = state(tmp_path / "s")
    with pytest.raises(
        StoreError, match=rf"transaction 1 \(split\) cannot be undone: episodes/{part}/episode.json was"
    ):
        undo(tmp_path / "s")
    assert state(tmp_path / "s") == before


def test_undo_refuses_when_a_deleted_id_was_added_again(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    apply_plan(plan_delete(Mend(store), ["g"]))
    store.append(sink_recording(8), id="g")
    with pytest.raises(StoreError, match=r"episodes \['g'\] were added again after it"):
        undo(tmp_path / "s")


def test_an_emptied_trash_cannot_be_undone(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    apply_plan(plan_delete(Mend(store), ["g"]))
    with mending(tmp_path / "s"), pytest.raises(StoreError, match="another process mends the store"):
        store.empty_trash()
    store.empty_trash()
    assert not (tmp_path / "s" / "trash").exists()
    with pytest.raises(StoreError, match="no longer in the trash, which was emptied"):
        undo(tmp_path / "s")
    assert store.ids() == ["h"]


def test_only_one_may_mend_at_a_time(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    plan = PLANNERS["trim"](Mend(store))
    with mending(tmp_path / "s"), pytest.raises(StoreError, match="another process mends the store"):
        apply_plan(plan)
    apply_plan(plan)


def test_a_recorder_goes_on_beside_a_mend(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    writer = store.writer(sink_recording(5).meta)
    given = sink_recording(5)
    for name, stream in given.streams.items():
        writer.append_stream(name, stream)
    apply_plan(PLANNERS["split"](Mend(store)))
    id = writer.commit()
    undo(tmp_path / "s")
    assert set(store.ids()) == {"g", "h", id}
    store.verify(id)


def test_a_tail_sees_parts_as_new_episodes_and_nothing_of_what_left(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    stop_at = time.monotonic() + 20
    seen: list[str] = []
    tail = store.follow(stop=lambda: len(seen) == 2 or time.monotonic() > stop_at, poll_s=0.005)
    plan = PLANNERS["split"](Mend(EpisodeStore.open(store.url)))
    apply_plan(plan)
    for id in tail:
        seen.append(id)
    assert seen == [product.id for product in plan.products]
    with pytest.raises(StoreError, match="there is no episode"):
        store.read(plan.out[0])


def test_a_merge_can_be_undone(tmp_path: Path):
    store, other = on_grid(tmp_path / "s"), on_grid(tmp_path / "o")
    other.append(sink_recording(7), id="new")
    old = state(tmp_path / "s")
    apply_plan(plan_merge(Mend(store), other))
    assert store.ids() == ["g", "h", "new"]
    undo(tmp_path / "s")
    assert state(tmp_path / "s") == old
