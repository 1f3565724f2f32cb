from __future__ import annotations

import shutil
from pathlib import Path

from robot_rl.data.store import EpisodeStore
from tests.contracts.episode_sink import SINK_SPEC, sink_recording


def filled(tmp_path: Path, n: int = 4) -> tuple[EpisodeStore, list[str], Path]:
    store = EpisodeStore.create(tmp_path / "s", SINK_SPEC)
    return store, [store.append(sink_recording(i, n=i + 1)) for i in range(n)], tmp_path / "s" / "index.jsonl"


def test_entries_tell_what_an_episode_is(tmp_path: Path):
    store, ids, _ = filled(tmp_path)
    entry = store.entries()[2]
    assert (entry.id, entry.task, entry.steps, entry.on_grid, entry.seed) == (ids[2], "count", 3, True, 2)
    assert entry.duration_ns == 3 * 100_000_000
    # q 4x3, force 4, action 3x2, reward 3 floats, and 4 + 4 + 3 + 3 stamps.
    assert entry.nbytes == 4 * (12 + 4 + 6 + 3) + 8 * 14


def test_a_lost_index_is_rebuilt_from_the_episodes(tmp_path: Path):
    store, ids, index = filled(tmp_path)
    before, digest = store.entries(), store.digest()
    index.unlink()
    again = EpisodeStore.open(tmp_path / "s")
    assert again.entries() == before
    index.write_bytes(b"garbage\n\x00\xff{\n")
    again = EpisodeStore.open(tmp_path / "s")
    assert (again.entries(), again.digest()) == (before, digest)
    store.rebuild_index()
    assert index.read_bytes().count(b"\n") == len(ids)
    assert again.ids() == store.ids() == ids


def test_a_torn_line_does_not_swallow_the_next_one(tmp_path: Path):
    store, ids, index = filled(tmp_path)
    with index.open("ab") as file:
        file.write(b'{"put": {"id": "to')
    new = store.append(sink_recording(9))
    assert EpisodeStore.open(tmp_path / "s").ids() == sorted([*ids, new])


def test_episodes_removed_by_hand_leave_the_index(tmp_path: Path):
    store, ids, _ = filled(tmp_path)
    shutil.rmtree(tmp_path / "s" / "episodes" / ids[1])
    assert EpisodeStore.open(tmp_path / "s").ids() == [ids[0], *ids[2:]]
    assert store.ids() == [ids[0], *ids[2:]]


def test_an_unreadable_episode_is_reported_and_the_others_stay(tmp_path: Path):
    _, ids, index = filled(tmp_path)
    (tmp_path / "s" / "episodes" / ids[0] / "episode.json").write_bytes(b'{"format_version": 1')
    index.unlink()
    again = EpisodeStore.open(tmp_path / "s")
    assert again.ids() == ids[1:]
    assert [(f.id, f.state) for f in again.found] == [(ids[0], "unreadable")]
    assert f"episode {ids[0]}: episode.json is not JSON" in again.found[0].reason


def test_two_store_objects_see_each_other(tmp_path: Path):
    a, ids, _ = filled(tmp_path, 1)
    b = EpisodeStore.open(tmp_path / "s")
    ids.append(b.append(sink_recording(1)))
    assert a.ids() == ids
    a.delete(ids[0])
    assert b.ids() == ids[1:]
    a.rebuild_index()
    ids.append(b.append(sink_recording(2)))
    assert a.ids() == b.ids() == ids[1:]
