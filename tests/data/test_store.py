from __future__ import annotations

import json
import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from robot_rl.data.store import EpisodeStore
from robot_rl.errors import SpecError, StoreError
from robot_rl.specs import ArraySpec
from robot_rl.values import Recording, RecordingMeta, Stream
from tests.contracts.episode_sink import SINK_SPEC, assert_same, sink_recording
from tests.data.store_data import SPEC, command, joints, picture, recording

PNG = {"camera": "png"}


@pytest.mark.parametrize("codec", ["png", "raw"])
@pytest.mark.parametrize("url", ["{tmp}/store", "memory://lossless"])
def test_what_was_appended_is_read_bit_for_bit(tmp_path: Path, url: str, codec: str):
    store = EpisodeStore.create(url.format(tmp=tmp_path) + codec, SPEC, codecs={"camera": codec})
    given = recording(0.2, seed=7, extra={"note": [1, "two"]})
    id = store.append(given)
    assert_same(EpisodeStore.open(store.url).read(id), given)
    store.verify(id)


def test_jpeg_is_the_default_and_close(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SPEC)
    given = recording(0.2)
    camera = store.read(store.append(given)).streams["camera"].data
    assert store.schema.streams["camera"].codec == "jpeg"
    difference = np.abs(camera[:].astype(int) - given.streams["camera"].data[:].astype(int))
    assert difference.mean() < 2.0


def test_an_episode_is_a_plain_zarr_group(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SPEC, codecs=PNG)
    given = recording(0.2)
    id = store.append(given)
    group = zarr.open_group(str(tmp_path / "s" / "episodes" / id), mode="r", zarr_format=3)
    np.testing.assert_array_equal(group["q/data"][:], given.streams["q"].data[:])
    np.testing.assert_array_equal(group["q/stamp_ns"][:], given.streams["q"].stamp_ns)
    np.testing.assert_array_equal(group["action/data"][3], command(3))
    offset = group["camera/offset"][:]
    frame = group["camera/frames"][offset[2] : offset[3]]
    assert bytes(frame) == store.read(id).streams["camera"].data.encoded(2)  # type: ignore[attr-defined]
    assert group["camera"].attrs["codec"] == "png"


def test_live_writer_row_by_row_equals_append_of_the_whole(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SPEC, codecs=PNG)
    given = recording(0.2)
    writer = store.writer(RecordingMeta(task="start"))
    events = [(int(s), name, i) for name, stream in given.streams.items() for i, s in enumerate(stream.stamp_ns)]
    for stamp, name, i in sorted(events):
        writer.append(name, stamp, given.streams[name].data[i])
    assert store.ids() == []
    live = writer.commit(given.meta)
    whole = store.append(given)
    assert_same(store.read(live), given)
    first, second = store.entries()
    assert (first.checksum, first.steps, first.nbytes) == (second.checksum, second.steps, second.nbytes)
    assert {live, whole} == {first.id, second.id}


def test_rows_come_by_int_slice_and_array_and_survive_pickling(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SPEC, codecs=PNG)
    rows = pickle.loads(pickle.dumps(store.read(store.append(recording(0.2)))))
    camera, q = rows.streams["camera"].data, rows.streams["q"].data
    assert (camera.shape, camera.dtype) == ((6, 24, 32, 3), np.uint8)
    np.testing.assert_array_equal(camera[-1], picture(5))
    np.testing.assert_array_equal(camera[1:4], np.stack([picture(i) for i in (1, 2, 3)]))
    np.testing.assert_array_equal(camera[np.array([4, 0, 4])], np.stack([picture(4), picture(0), picture(4)]))
    np.testing.assert_array_equal(q[np.array([9, 9, 2])], np.stack([joints(9), joints(9), joints(2)]))
    np.testing.assert_array_equal(q[98:], np.stack([joints(98), joints(99)]))
    with pytest.raises(IndexError):
        camera[6]


def test_slices_of_raw_streams_are_views_of_the_map(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SPEC, codecs={"camera": "raw"})
    camera = store.read(store.append(recording(0.2))).streams["camera"].data
    view = camera[2:4]
    assert not view.flags.owndata
    assert not view.flags.writeable
    np.testing.assert_array_equal(view[1], picture(3))


def test_many_threads_read_the_same_frames(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SPEC, codecs=PNG)
    camera = store.read(store.append(recording(0.5))).streams["camera"].data
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in np.random.default_rng(seed).integers(0, len(camera), 50):
            if not np.array_equal(camera[int(i)], picture(int(i))):
                wrong.append(int(i))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("stream", "stamp", "value", "message"),
    [
        ("elbow", 1, joints(0), "unknown stream `elbow`; this store's streams are"),
        ("q", 1, np.zeros(6, np.float32), r"`q` must be float32\(7\) \[rad\], got float32\(6,\)"),
        ("q", 1, np.zeros(7), r"`q` must be float32\(7\) \[rad\], got float64\(7,\)"),
        ("action", 1, np.array([0, np.nan], np.float32), r"`action` must be finite, got nan at index \[1\]"),
        ("camera", 1, picture(0).astype(np.float32), r"`camera` must be uint8\(24, 32, 3\), got float32"),
        ("q", 0, joints(0), r"`q`: stamp_ns must grow, got 0 after 0 \(0 ns\)"),
        ("q", -5, joints(0), r"`q`: stamp_ns must grow, got -5 after 0"),
    ],
)
def test_a_refused_sample_names_itself_and_costs_nothing(tmp_path: Path, stream, stamp, value, message):
    store = EpisodeStore.create(tmp_path / "s", SPEC, codecs=PNG)
    before = store.append(recording(0.1))
    writer = store.writer(RecordingMeta())
    for name, first in (("q", joints(0)), ("camera", picture(0)), ("action", command(0))):
        writer.append(name, 0, first)
    with pytest.raises(SpecError, match=message):
        writer.append(stream, stamp, value)
    id = writer.commit()
    np.testing.assert_array_equal(store.read(id).streams["q"].data[:], joints(0)[None])
    np.testing.assert_array_equal(store.read(id).streams["camera"].data[0], picture(0))
    store.verify(id)
    store.verify(before)


def test_commit_names_a_stream_that_lacks_and_can_be_tried_again(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SPEC)
    writer = store.writer(RecordingMeta())
    writer.append("q", 0, joints(0))
    writer.append("action", 0, command(0))
    with pytest.raises(SpecError, match=r"streams \['camera'\] are required and have no sample"):
        writer.commit()
    writer.append("camera", 0, picture(1))
    id = writer.commit()
    assert store.ids() == [id]
    with pytest.raises(StoreError, match="was closed"):
        writer.append("q", 1, joints(1))


def test_a_refused_append_and_a_discard_leave_no_trace(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SINK_SPEC)
    bad = sink_recording(0)
    bad.streams["q"].data[4] = np.inf  # type: ignore[index]
    with pytest.raises(SpecError, match="`q` must be finite, got inf"):
        store.append(bad)
    writer = store.writer(RecordingMeta())
    writer.append("force", 0, np.float32(1))
    writer.discard()
    writer.discard()
    assert list((tmp_path / "s" / "staging").iterdir()) == []
    assert EpisodeStore.open(tmp_path / "s").found == ()


def test_meta_that_is_not_json_is_refused_before_anything_is_written(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SINK_SPEC)
    with pytest.raises(SpecError, match=r"`meta.extra`: only plain JSON"):
        store.append(sink_recording(0, extra={"array": np.zeros(2)}))
    assert list((tmp_path / "s" / "staging").iterdir()) == []


def test_encoded_frames_are_kept_as_they_came(tmp_path: Path):
    source = EpisodeStore.create(tmp_path / "a", SPEC)
    given = source.read(source.append(recording(0.2))).streams["camera"].data.encoded(2)  # type: ignore[attr-defined]
    store = EpisodeStore.create(tmp_path / "b", SPEC)
    writer = store.writer(RecordingMeta())
    writer.append_encoded("camera", 0, given)
    with pytest.raises(SpecError, match="`camera` must be whole jpeg bytes"):
        writer.append_encoded("camera", 1, given[:-1])
    with pytest.raises(SpecError, match="`q` is stored raw"):
        writer.append_encoded("q", 1, given)
    writer.append("q", 0, joints(0))
    writer.append("action", 0, command(0))
    assert store.read(writer.commit()).streams["camera"].data.encoded(0) == given  # type: ignore[attr-defined]


def test_a_truncated_or_missing_chunk_names_episode_array_and_bytes(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SINK_SPEC)
    id, other = (store.append(sink_recording(i)) for i in range(2))
    chunk = tmp_path / "s" / "episodes" / id / "q" / "data" / "c.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-4])
    with pytest.raises(StoreError, match=rf"episode {id}, array `q/data`: its chunk must be 84 bytes, got 80 bytes"):
        store.read(id)
    chunk.unlink()
    with pytest.raises(StoreError, match="must be 84 bytes, got no file"):
        store.read(id)
    assert_same(store.read(other), sink_recording(1))


def test_verify_finds_a_flipped_bit_and_mends_zarr_metadata(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SINK_SPEC)
    id = store.append(sink_recording(0))
    metadata = tmp_path / "s" / "episodes" / id / "q" / "data" / "zarr.json"
    metadata.write_bytes(b"")
    store.verify(id)
    assert zarr.open_array(str(metadata.parent), mode="r").shape == (7, 3)
    chunk = metadata.parent / "c.0.0"
    data = bytearray(chunk.read_bytes())
    data[10] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(StoreError, match=rf"episode {id}, array `q/data`: checksum must be"):
        store.verify(id)


@pytest.mark.parametrize("url", ["{tmp}/store", "memory://labels"])
def test_relabel_delete_and_digest(tmp_path: Path, url: str):
    store = EpisodeStore.create(url.format(tmp=tmp_path), SINK_SPEC)
    ids = [store.append(sink_recording(i)) for i in range(3)]
    digest = store.digest()
    store.relabel(ids[1], outcome="success", task="pour")
    assert store.digest() == digest, "labels are not data"
    again = EpisodeStore.open(store.url)
    assert [(e.outcome, e.task) for e in again.entries()] == [
        ("unknown", "count"), ("success", "pour"), ("unknown", "count"),
    ]  # fmt: skip
    assert again.read(ids[1]).meta.outcome == "success"
    with pytest.raises(SpecError, match="`outcome` must be one of"):
        store.relabel(ids[0], outcome="great")  # type: ignore[arg-type]
    store.delete(ids[0])
    assert store.ids() == ids[1:] == again.ids()
    assert store.digest() != digest
    with pytest.raises(StoreError, match=f"there is no episode '{ids[0]}'"):
        store.read(ids[0])
    with pytest.raises(StoreError, match="there is no episode"):
        store.delete(ids[0])
    store.empty_trash()
    assert EpisodeStore.open(store.url).ids() == ids[1:]


def test_deleted_episodes_wait_in_the_trash(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SINK_SPEC)
    id = store.append(sink_recording(0))
    store.delete(id)
    assert (tmp_path / "s" / "trash" / id / "episode.json").exists()
    store.empty_trash()
    assert not (tmp_path / "s" / "trash").exists()


def test_merge_copies_what_lacks_and_refuses_what_clashes(tmp_path: Path):
    a, b = (EpisodeStore.create(tmp_path / name, SPEC) for name in "ab")
    a.append(recording(0.1), id="one")
    b.append(recording(0.2, outcome="success"), id="two")
    b.append(recording(0.1), id="one")
    assert a.merge(b) == ["two"]
    assert a.merge(b) == []
    assert a.digest() == b.digest(), "JPEG bytes are copied, not coded again"
    assert_same(a.read("two"), b.read("two"))
    a.append(recording(0.3), id="three")
    b.append(recording(0.4), id="three")
    with pytest.raises(StoreError, match=r"different episodes with the same ids: \['three'\]"):
        a.merge(b)
    with pytest.raises(StoreError, match="their schemas differ"):
        a.merge(EpisodeStore.create(tmp_path / "c", SINK_SPEC))


def test_ids_can_be_chosen_once(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SINK_SPEC)
    assert store.append(sink_recording(0), id="chosen") == "chosen"
    with pytest.raises(StoreError, match="episode chosen already exists"):
        store.append(sink_recording(1), id="chosen")
    with pytest.raises(SpecError, match=r"episode id '../x' must be letters"):
        store.append(sink_recording(1), id="../x")
    assert_same(store.read("chosen"), sink_recording(0))


def test_two_writers_with_one_id_cannot_overwrite_each_other(tmp_path: Path):
    first, second = EpisodeStore.create(tmp_path / "s", SINK_SPEC), EpisodeStore.open(tmp_path / "s")
    writer = first.writer(RecordingMeta(), id="same")
    with pytest.raises(StoreError, match="episode same is already in"):
        second.writer(RecordingMeta(), id="same")
    writer.discard()


def test_follow_sees_new_episodes_of_another_store_object_once(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SINK_SPEC)
    store.append(sink_recording(0))
    seen: list[str] = []
    follower = EpisodeStore.open(tmp_path / "s")
    stop_at = time.monotonic() + 20
    tail = follower.follow(stop=lambda: len(seen) == 3 or time.monotonic() > stop_at, poll_s=0.005)
    thread = threading.Thread(target=lambda: [seen.append(id) for id in tail])
    thread.start()
    late = [store.append(sink_recording(i)) for i in (1, 2, 3)]
    thread.join()
    assert seen == late


def test_follow_can_start_from_the_beginning(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SINK_SPEC)
    ids = [store.append(sink_recording(i)) for i in range(2)]
    tail = store.follow(stop=lambda: False, seen=())
    assert [next(tail), next(tail)] == ids


def test_create_and_open_say_what_is_wrong(tmp_path: Path):
    with pytest.raises(StoreError, match=r"there is no episode store at .*store.json is missing"):
        EpisodeStore.open(tmp_path / "none")
    assert not EpisodeStore.exists(tmp_path / "none")
    EpisodeStore.create(tmp_path / "s", SINK_SPEC)
    assert EpisodeStore.exists(tmp_path / "s")
    with pytest.raises(StoreError, match="there is a store at"):
        EpisodeStore.create(tmp_path / "s", SINK_SPEC)
    path = tmp_path / "s" / "store.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "format_version": 99}))
    with pytest.raises(StoreError, match="format_version is 99, this robot_rl reads up to 1; install a newer"):
        EpisodeStore.open(tmp_path / "s")
    path.write_text(path.read_text()[:40])
    with pytest.raises(StoreError, match=r"store.json is not JSON .*cut short"):
        EpisodeStore.open(tmp_path / "s")


def test_extra_streams_are_kept_and_may_hold_nan(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SINK_SPEC, extra={"base": ArraySpec(name="base", shape=(2,))})
    base = np.full((6, 2), np.nan, np.float32)
    given = sink_recording(0)
    streams = {**given.streams, "base": Stream(given.streams["action"].stamp_ns, base)}
    episode = EpisodeStore.open(tmp_path / "s").episode(store.append(Recording(streams, given.meta)))
    np.testing.assert_array_equal(episode.extras["base"][:], base)
