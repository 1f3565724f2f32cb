"""Killed writers, full disks, and what opening the store makes of them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks._store_writer import SPEC as KILL_SPEC
from benchmarks.store_kill import Tally, check_store, kill_once
from robot_rl.data import files
from robot_rl.data.store import EpisodeStore
from robot_rl.data.writer import EpisodeWriter
from robot_rl.errors import StoreError
from robot_rl.specs import RobotSpec
from robot_rl.values import RecordingMeta
from tests.contracts.episode_sink import SINK_SPEC, assert_same, sink_recording
from tests.data.store_data import MS, SPEC, command, joints, picture, recording

ROOT = Path(__file__).resolve().parents[2]


def abandon(writer: EpisodeWriter) -> Path:
    """Leave a writer as a killed process does: files as they are, lock gone."""
    writer._stop.set()
    writer._claim.release()
    return writer._claim.folder


def begin(store: EpisodeStore, n: int, *, meta: RecordingMeta | None = None) -> EpisodeWriter:
    writer = store.writer(meta or RecordingMeta(task="reach", outcome="success", terminated=True))
    for i in range(n):
        writer.append("q", i * MS, joints(i))
        writer.append("camera", i * MS, picture(i))
        writer.append("action", i * MS, command(i))
    return writer


def reopen(store: EpisodeStore) -> EpisodeStore:
    return EpisodeStore.open(store.url)


def test_what_a_dead_writer_left_is_salvaged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    store = EpisodeStore.create(tmp_path / "s", SPEC, codecs={"camera": "png"})
    writer = begin(store, 5)
    abandon(writer)
    again = reopen(store)
    assert [(f.id, f.state) for f in again.found] == [(writer.id, "salvaged")]
    assert "its writer ended before it committed" in caplog.text
    got = again.read(writer.id)
    np.testing.assert_array_equal(got.streams["q"].data[:], [joints(i) for i in range(5)])
    np.testing.assert_array_equal(got.streams["camera"].data[:], [picture(i) for i in range(5)])
    meta = got.meta
    assert (meta.task, meta.outcome, meta.terminated, meta.truncated) == ("reach", "unknown", False, True)
    assert meta.extra["salvaged"] == again.entries()[0].salvaged != ""
    again.verify(writer.id)
    assert reopen(store).found == ()


@pytest.mark.parametrize(
    ("cut", "rows"),
    [
        ({"q/data/c.0.0": 3}, {"q": 4, "camera": 5, "action": 5}),
        ({"q/stamp_ns/c.0": 1}, {"q": 4, "camera": 5, "action": 5}),
        ({"action/data/c.0.0": 9}, {"q": 5, "camera": 5, "action": 3}),
        ({"camera/frames/c.0": 2}, {"q": 5, "camera": 4, "action": 5}),
        ({"camera/offset/c.0": 8}, {"q": 5, "camera": 4, "action": 5}),
        ({"camera/offset/c.0": 12, "q/data/c.0.0": 28 * 4}, {"q": 1, "camera": 3, "action": 5}),
    ],
)
def test_torn_rows_are_cut_off(tmp_path: Path, cut: dict[str, int], rows: dict[str, int]):
    store = EpisodeStore.create(tmp_path / "s", SPEC)
    folder = abandon(begin(store, 5))
    for path, nbytes in cut.items():
        os.truncate(folder / path, (folder / path).stat().st_size - nbytes)
    again = reopen(store)
    got = again.read(folder.name)
    assert {name: len(stream) for name, stream in got.streams.items()} == rows
    np.testing.assert_array_equal(got.streams["q"].data[:], [joints(i) for i in range(rows["q"])])
    np.testing.assert_array_equal(got.streams["action"].data[:], [command(i) for i in range(rows["action"])])
    again.verify(folder.name)


def test_zeros_that_a_power_cut_leaves_at_the_end_are_cut_off(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SPEC)
    folder = abandon(begin(store, 5))
    for path, nbytes in {"q/data/c.0.0": 28 * 3, "q/stamp_ns/c.0": 8 * 3}.items():
        with (folder / path).open("ab") as file:
            file.write(bytes(nbytes))
    assert len(reopen(store).read(folder.name).streams["q"]) == 5


def test_on_grid_salvage_keeps_only_whole_ticks(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SPEC)
    writer = begin(store, 4, meta=RecordingMeta(on_grid=True))
    writer.append("q", 4 * MS, joints(4))
    abandon(writer)
    again = reopen(store)
    got = again.read(writer.id)
    assert {name: len(stream) for name, stream in got.streams.items()} == {"q": 4, "camera": 4, "action": 4}
    assert len(again.episode(writer.id)) == 4


def test_nothing_usable_is_quarantined_with_its_reason(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SPEC)
    writer = store.writer(RecordingMeta())
    writer.append("q", 0, joints(0))
    abandon(writer)
    again = reopen(store)
    assert again.found[0].state == "quarantined"
    assert "streams ['camera', 'action'] are required and have no sample" in again.found[0].reason
    assert "camera" in (tmp_path / "s" / "quarantine" / writer.id / "reason.json").read_text()
    assert again.ids() == []


def test_a_living_writer_is_left_alone(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SPEC)
    writer = begin(store, 2)
    again = reopen(store)
    assert [(f.id, f.state) for f in again.found] == [(writer.id, "in_progress")]
    writer.append("q", 10 * MS, joints(2))
    id = writer.commit()
    assert again.ids() == [id]
    assert len(again.read(id).streams["q"]) == 3


def test_a_crash_between_episode_json_and_rename_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = EpisodeStore.create(tmp_path / "s", SPEC)
    writer = begin(store, 3)

    def die(folder: Path, id: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store._backend, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            writer.commit()
    again = reopen(store)
    assert [(f.state, f.reason) for f in again.found] == [("salvaged", "it was whole but not yet published")]
    assert again.read(writer.id).meta == RecordingMeta(task="reach", outcome="success", terminated=True)


def test_a_crash_between_rename_and_index_line_loses_nothing(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SINK_SPEC)
    ids = [store.append(sink_recording(i)) for i in range(3)]
    index = tmp_path / "s" / "index.jsonl"
    lines = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(b"".join(lines[:2]) + lines[2][:50])
    again = reopen(store)
    assert again.ids() == ids
    assert again.append(sink_recording(4)) in reopen(store).ids()


def test_a_cut_append_of_a_whole_recording_is_not_taken_for_an_episode(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SPEC)
    writer = store._writer(RecordingMeta(), "imported-0", live=False)
    for name, stream in recording(0.1).streams.items():
        writer.append_stream(name, stream)
    abandon(writer)
    again = reopen(store)
    assert [(f.id, f.state) for f in again.found] == [("imported-0", "discarded")]
    assert again.append(recording(0.2), id="imported-0") == "imported-0"


def test_kill_minus_9_at_random_moments(tmp_path: Path):
    url, tally = tmp_path / "s", Tally()
    EpisodeStore.create(url, KILL_SPEC)
    rng = np.random.default_rng(1)
    for steps in (1, 100_000, 4, 30, 2):
        check_store(url, kill_once(url, wait_s=float(rng.uniform(0, 0.15)), steps=steps), tally)
    assert tally.wrong == []
    assert tally.loaded > 0


def test_full_disk_says_what_is_needed_and_keeps_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = EpisodeStore.create(tmp_path / "s", SPEC)
    before = store.append(recording(0.1))
    writer = begin(store, 3)
    real_write = os.write

    def short_then_full(fd: int, data: memoryview) -> int:
        if len(data) > 8:
            return real_write(fd, data[:8])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", short_then_full)
        with pytest.raises(
            StoreError, match=r"disk full .*q/data.*: 28 more bytes were needed, \d+ are free"
        ) as caught:
            writer.append("q", 10 * MS, joints(3))
    assert "episodes saved earlier are intact" in str(caught.value)
    store.verify(before)
    writer.append("q", 10 * MS, joints(3))  # space came back: the torn row is gone and the writer goes on
    abandon(writer)
    again = reopen(store)
    np.testing.assert_array_equal(again.read(writer.id).streams["q"].data[:], [joints(i) for i in range(4)])
    again.verify(writer.id)


def test_a_real_file_size_limit_ends_in_a_store_error_and_a_salvageable_episode(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SINK_SPEC)
    before = store.append(sink_recording(0))
    script = tmp_path / "full.py"
    script.write_text(
        "import resource, sys\n"
        "import numpy as np\n"
        "from robot_rl.data.store import EpisodeStore\n"
        "from robot_rl.errors import StoreError\n"
        "from robot_rl.values import RecordingMeta\n"
        "store = EpisodeStore.open(sys.argv[1])\n"
        "writer = store.writer(RecordingMeta())\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "try:\n"
        "    for i in range(1000):\n"
        "        writer.append('force', i, np.float32(i))\n"
        "        writer.append('q', i, np.full(3, i, np.float32))\n"
        "        writer.append('action', i, np.full(2, i, np.float32))\n"
        "except StoreError as error:\n"
        "    sys.exit(str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), store.url], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "disk full" in done.stderr
    assert "12 more bytes were needed" in done.stderr
    again = reopen(store)
    assert [f.state for f in again.found] == ["salvaged"]
    q = again.read(again.found[0].id).streams["q"].data
    np.testing.assert_array_equal(q[:], np.repeat(np.arange(333, dtype=np.float32)[:, None], 3, 1))
    assert_same(again.read(before), sink_recording(0))


def test_a_failed_upload_is_kept_and_sent_when_the_store_is_next_opened(monkeypatch: pytest.MonkeyPatch):
    store = EpisodeStore.create("memory://upload", SINK_SPEC)
    fs = store._backend._fs  # type: ignore[union-attr]
    with monkeypatch.context() as patch:
        patch.setattr(type(fs), "put_file", lambda *a, **k: (_ for _ in ()).throw(OSError("link down")))
        with pytest.raises(StoreError, match=r"could not be uploaded to memory://upload: link down; it is whole in"):
            store.append(sink_recording(0))
    assert store.ids() == []
    again = reopen(store)
    assert_same(again.read(again.found[0].id), sink_recording(0))


def test_a_schema_without_observations_can_be_stored(tmp_path: Path):
    spec = RobotSpec(name="blind", action=SINK_SPEC.action, control_hz=10.0)
    store = EpisodeStore.create(tmp_path / "s", spec)
    writer = store.writer(RecordingMeta())
    writer.append("action", 5, np.zeros(2, np.float32))
    assert len(store.episode(writer.commit())) == 1
