"""A mend is done whole or not at all: killed at file operations and at random moments, and on a full disk."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from robot_rl.data import transaction
from robot_rl.data.mend.apply import apply_plan, undo
from robot_rl.data.mend.operations import plan_relabel
from robot_rl.data.mend.plan import Mend
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import StoreError
from tests.data.mend_stores import PLANNERS, every_byte, multi_rate, on_grid, state

CHANGES = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.remove", "os.truncate"}


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a child process and return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(3)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def die_at(count: int) -> None:
    """Let this process be killed with SIGKILL at its `count`-th file operation from now on."""
    left = [count]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in CHANGES:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def killed_at(count: int, work: Callable[[], object]) -> bool:
    """Run `work` in a child that is killed at a file operation; return whether it was still running then."""

    def child() -> None:
        die_at(count)
        work()

    status = in_child(child)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return os.WIFSIGNALED(status)


def count_operations(work: Callable[[], object], folder: Path) -> tuple[int, int]:
    """Return how many file operations `work` makes, and how many before the journal's note is there."""
    told = folder / "count"

    def child() -> None:
        seen = [0, 0]

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event in CHANGES and "count" not in str(arguments):
                seen[0] += 1
                if not seen[1] and "applying.json" in str(arguments):
                    seen[1] = seen[0]

        sys.addaudithook(hook)
        work()
        told.write_text(f"{seen[0]} {seen[1]}")

    assert in_child(child) == 0
    total, begins = told.read_text().split()
    return int(total), int(begins)


def clean(root: Path) -> None:
    """Remove what a killed mend had staged, so that each one makes the same file operations."""
    shutil.rmtree(root / "trash", ignore_errors=True)


def kill_half_way(root: Path, work: Callable[[], object], folder: Path) -> None:
    """Kill `work` when some files have moved and others not."""
    _, count = count_operations(work, folder)
    undo(root)
    moved = 0
    while moved < 4:
        clean(root)
        assert killed_at(count, work)
        moved = moved + 1 if transaction.unfinished(root) else 0
        count += 1
        if moved < 4:
            transaction.recover(root)
    assert transaction.unfinished(root)


@pytest.mark.parametrize("operation", ["split", "rename", "relabel"])
def test_a_mend_killed_at_any_file_operation_leaves_the_old_state(tmp_path: Path, operation: str):
    root = tmp_path / "s"
    on_grid(root)
    old = state(root)

    def work() -> None:
        apply_plan(PLANNERS[operation](Mend(EpisodeStore.open(root))))

    total, begins = count_operations(work, tmp_path)
    new = state(root)
    undo(root)
    assert state(root) == old != new
    early = max(1, begins // 8)
    count, killed = early, 0
    while killed_at(count, work):
        killed += 1
        done = [record for record in transaction.journal(root) if not record.undone]
        got = state(root)
        if done:  # killed after the journal had it: taking it back brings the old state
            undo(root)
            assert state(root) == old
            break
        assert got == old, f"killed at file operation {count} of {total}"
        clean(root)
        count += early if count + early < begins else 1
    assert killed >= 15


def test_an_undo_killed_at_any_file_operation_is_undone_or_not(tmp_path: Path):
    root = tmp_path / "s"
    on_grid(root)
    old = state(root)
    apply_plan(PLANNERS["split"](Mend(EpisodeStore.open(root))))
    outcomes = set()
    for count in range(1, 60, 3):
        new = state(root)
        killed_at(count, lambda: undo(root))
        got = state(root)
        assert got in (old, new)
        outcomes.add(got == old)
        if got == old:
            apply_plan(PLANNERS["split"](Mend(EpisodeStore.open(root))))
    assert outcomes == {True, False}


def test_putting_back_may_itself_be_killed(tmp_path: Path):
    root = tmp_path / "s"
    on_grid(root)
    old = state(root)

    def work() -> None:
        apply_plan(PLANNERS["rename"](Mend(EpisodeStore.open(root))))

    kill_half_way(root, work, tmp_path)
    recoveries = 0
    for count in range(1, 40, 2):
        recoveries += killed_at(count, lambda: transaction.recover(root))
        if not transaction.unfinished(root):
            break
    assert recoveries >= 3
    assert state(root) == old


def test_a_process_killed_at_random_moments_leaves_the_old_state_or_the_new_one(tmp_path: Path):
    root = tmp_path / "s"
    multi_rate(root)
    old = state(root)

    def work() -> None:
        apply_plan(PLANNERS["trim"](Mend(EpisodeStore.open(root))))

    for wait_ms in (1, 5, 10, 20, 40, 80, 160):
        child = os.fork()
        if child == 0:
            work()
            os._exit(0)
        time.sleep(wait_ms / 1000)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        state(root)
        if transaction.journal(root) and not transaction.journal(root)[-1].undone:
            undo(root)
        assert state(root) == old


def test_a_full_disk_while_staging_changes_nothing(tmp_path: Path):
    root = tmp_path / "s"
    multi_rate(root)
    old, files = state(root), set(every_byte(root / "episodes"))

    def work() -> None:
        plan = PLANNERS["trim"](Mend(EpisodeStore.open(root)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        with pytest.raises(StoreError, match=r"trim was not done, the store .* is as it was: disk full writing"):
            apply_plan(plan)

    assert in_child(work) == 0
    assert state(root) == old
    assert set(every_byte(root / "episodes")) == files
    assert not list((root / "trash" / ".mend").iterdir())


def test_a_full_disk_at_the_index_does_not_stop_a_mend(tmp_path: Path):
    root = tmp_path / "s"
    store = on_grid(root)

    def work() -> None:
        plan = plan_relabel(Mend(EpisodeStore.open(root)), ["h"], task="x" * 300)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        apply_plan(plan)

    while (root / "index.jsonl").stat().st_size < 4000:
        store.relabel("g", task="count")
    limit = (root / "index.jsonl").stat().st_size + 100
    assert in_child(work) == 0
    assert not (root / "index.jsonl").exists()
    assert [entry.task[:5] for entry in EpisodeStore.open(root).entries()] == ["count", "xxxxx"]


def test_a_tail_takes_back_what_a_killed_mend_left(tmp_path: Path):
    root = tmp_path / "s"
    store = on_grid(root)
    old = state(root)

    def work() -> None:
        apply_plan(PLANNERS["split"](Mend(EpisodeStore.open(root))))

    kill_half_way(root, work, tmp_path)
    stop_at = time.monotonic() + 20
    tail = store.follow(stop=lambda: not transaction.unfinished(root) or time.monotonic() > stop_at)
    assert list(tail) == []
    assert not transaction.unfinished(root)
    assert state(root) == old
