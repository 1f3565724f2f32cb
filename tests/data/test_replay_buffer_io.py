from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from robot_rl.data.replay_buffer_io import export_replay_buffer, import_replay_buffer
from robot_rl.data.replay_layout import ObsSource, pusht_layout
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import DataFormatError, StoreError
from tests.contracts.episode_sink import SINK_SPEC, sink_recording

ENDS = [4, 5, 13]


def arrays() -> dict[str, np.ndarray]:
    """Return PushT's arrays in small; the value tells the row."""
    n = ENDS[-1]
    rng = np.random.default_rng(0)
    row = np.arange(n, dtype=np.float32)
    return {
        "action": np.stack((row, row + 0.5), 1),
        "state": row[:, None] + np.arange(5, dtype=np.float32) / 8,
        "keypoint": row[:, None, None] + np.zeros((n, 9, 2), np.float32),
        "n_contacts": row[:, None] % 2,
        "img": rng.integers(0, 256, (n, 8, 8, 3)).astype(np.float32),
        "clock": np.arange(n, dtype=np.int64) * 7,
    }


BLOSC = {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 2, "blocksize": 0}


def write_buffer(path: Path, data: dict[str, np.ndarray], ends: list[int] = ENDS, *, compressor=BLOSC) -> Path:
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    for key, values in data.items():
        chunks = (5, *values.shape[1:])
        group.create_array(
            f"data/{key}", data=values, chunks=chunks, compressors=compressor, config={"write_empty_chunks": True}
        )
    group.create_array("meta/episode_ends", data=np.array(ends, np.int64))
    return path


def assert_same_buffer(path: Path, wanted_path: Path) -> None:
    got, wanted = (zarr.open_group(str(p), mode="r", zarr_format=2) for p in (path, wanted_path))
    assert set(got["data"].array_keys()) == set(wanted["data"].array_keys())
    for key in [*(f"data/{k}" for k in wanted["data"].array_keys()), "meta/episode_ends"]:
        assert (got[key].dtype, got[key].shape) == (wanted[key].dtype, wanted[key].shape), key
        assert got[key][:].tobytes() == wanted[key][:].tobytes(), key


def test_import_splits_states_and_keeps_every_array(tmp_path: Path):
    source = write_buffer(tmp_path / "in.zarr", arrays())
    done: list[tuple[int, int]] = []
    layout = pusht_layout()
    store = import_replay_buffer(source, tmp_path / "s", layout, progress=lambda i, n: done.append((i, n)))
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert store.ids() == ["pusht-000000", "pusht-000001", "pusht-000002"]
    episode, data = store.episode("pusht-000002"), arrays()
    np.testing.assert_array_equal(episode.stamp_ns, np.arange(8) * 100_000_000)
    np.testing.assert_array_equal(episode.obs["agent_pos"][:], data["state"][5:13, :2])
    np.testing.assert_array_equal(episode.obs["block_pose"][:], data["state"][5:13, 2:])
    np.testing.assert_array_equal(episode.obs["image"][:], data["img"][5:13].astype(np.uint8))
    np.testing.assert_array_equal(episode.action, data["action"][5:13])
    np.testing.assert_array_equal(episode.extras["clock"][:], data["clock"][5:13])
    assert (episode.final_obs, episode.meta.source, episode.meta.task, episode.truncated) == (
        None, "human", "pusht", True,
    )  # fmt: skip
    assert store.schema.streams["image"].codec == "png"
    assert (store.spec.action.unit, store.spec.action.high, store.spec.control_hz) == ("px", 512.0, 10.0)


def test_export_gives_the_source_back_byte_for_byte(tmp_path: Path):
    source = write_buffer(tmp_path / "in.zarr", arrays())
    store = import_replay_buffer(source, tmp_path / "s", pusht_layout())
    export_replay_buffer(store, tmp_path / "out.zarr")
    assert_same_buffer(tmp_path / "out.zarr", source)
    again = import_replay_buffer(tmp_path / "out.zarr", tmp_path / "again", pusht_layout())
    assert again.digest() == store.digest()
    with pytest.raises(StoreError, match="needs a new folder"):
        export_replay_buffer(store, tmp_path / "out.zarr")


def test_observations_that_use_only_some_columns_still_keep_the_rest(tmp_path: Path):
    source = write_buffer(tmp_path / "in.zarr", arrays())
    obs = {"agent": ObsSource(key="state", columns=(0, 2)), "n_contacts": ObsSource(key="n_contacts", columns=(0, 1))}
    layout = replace(pusht_layout(), obs=obs, skip=("keypoint",))
    store = import_replay_buffer(source, tmp_path / "s", layout)
    assert set(store.schema.extra) == {"clock", "img", "state"}
    export_replay_buffer(store, tmp_path / "out.zarr")
    shutil.rmtree(source / "data" / "keypoint")
    assert_same_buffer(tmp_path / "out.zarr", source)


def test_an_interrupted_import_goes_on_and_a_store_of_something_else_is_refused(tmp_path: Path):
    source = write_buffer(tmp_path / "in.zarr", arrays())
    first = import_replay_buffer(source, tmp_path / "s", pusht_layout(), limit=1)
    assert len(first) == 1
    saved = (tmp_path / "s" / "episodes" / "pusht-000000").stat().st_mtime_ns
    assert len(import_replay_buffer(source, tmp_path / "s", pusht_layout())) == 3
    assert (tmp_path / "s" / "episodes" / "pusht-000000").stat().st_mtime_ns == saved
    with pytest.raises(StoreError, match=r"does not hold .*in.zarr"):
        import_replay_buffer(source, tmp_path / "s", pusht_layout(images=False))


def test_a_zip_is_read_like_a_folder(tmp_path: Path):
    source = write_buffer(tmp_path / "in.zarr", arrays())
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", source)
    a = import_replay_buffer(packed, tmp_path / "a", pusht_layout(images=False))
    assert a.digest() == import_replay_buffer(source, tmp_path / "b", pusht_layout(images=False)).digest()


def broken(tmp_path: Path, change: str, compressor: dict | None = BLOSC) -> Path:
    data, ends = arrays(), list(ENDS)
    if change == "key":
        del data["state"]
    elif change == "length":
        data["keypoint"] = data["keypoint"][:-1]
    elif change == "order":
        ends = [4, 4, 13]
    elif change == "end":
        ends = [4, 5, 14]
    elif change == "nan":
        data["action"][5, 1] = np.nan
    elif change == "image":
        data["img"][6, 0, 0, 0] = 0.5
    elif change == "negative zero":
        data["img"][6, 0, 0, 0] = -0.0
    source = write_buffer(tmp_path / "in.zarr", data, ends, compressor=compressor)
    if change == "no ends":
        shutil.rmtree(source / "meta")
    elif change == "lost chunk":
        (source / "data" / "state" / "1.0").unlink()
    elif change == "cut chunk":
        chunk = source / "data" / "state" / "1.0"
        chunk.write_bytes(chunk.read_bytes()[:-9])
    return source


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("key", r"data/ lacks arrays \['state'\]; it has \['action', 'clock'"),
        ("length", "data/keypoint must have 13 rows, as episode_ends says, got 12"),
        ("order", "episode_ends must grow from above 0, got 4 at episode 1"),
        ("end", "data/action must have 14 rows, as episode_ends says, got 13"),
        ("nan", r"in.zarr, episode 2: `action` must be finite, got nan at index \[0, 1\]"),
        ("image", "data/img from row 5 on is not whole numbers in 0..255"),
        ("negative zero", "data/img from row 5 on is not whole numbers"),
        ("no ends", "meta/episode_ends is missing; this is not a replay buffer"),
        ("lost chunk", "data/state lacks 1 of 3 chunk files"),
        ("cut chunk", r"data/state/1.0: this chunk must be \d+ bytes, as its Blosc header says, got \d+"),
    ],
)
def test_a_broken_source_is_named(tmp_path: Path, change: str, message: str):
    with pytest.raises(DataFormatError, match=message):
        import_replay_buffer(broken(tmp_path, change), tmp_path / "s", pusht_layout())
    if EpisodeStore.exists(tmp_path / "s"):
        store = EpisodeStore.open(tmp_path / "s")
        assert store.found == ()
        for id in store.ids():
            store.verify(id)


@pytest.mark.parametrize("compressor", [None, {"id": "zstd", "level": 1}, {"id": "zlib", "level": 1}])
def test_a_chunk_cut_short_is_named_whatever_compressed_it(tmp_path: Path, compressor: dict | None):
    with pytest.raises(DataFormatError, match=r"data/state rows 4 to 5|data/state rows 5 to 13 cannot be read"):
        import_replay_buffer(broken(tmp_path, "cut chunk", compressor), tmp_path / "s", pusht_layout())


def test_what_is_no_replay_buffer_is_named(tmp_path: Path):
    with pytest.raises(DataFormatError, match="is not a Zarr v2 group"):
        import_replay_buffer(tmp_path / "none", tmp_path / "s", pusht_layout())
    zarr.open_group(str(tmp_path / "empty"), mode="w", zarr_format=2)
    with pytest.raises(DataFormatError, match="has no group data/"):
        import_replay_buffer(tmp_path / "empty", tmp_path / "s", pusht_layout())


def test_any_on_grid_store_can_be_exported(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SINK_SPEC)
    store.append(sink_recording(0, n=3))
    store.append(sink_recording(1, n=2))
    export_replay_buffer(store, tmp_path / "out.zarr")
    group = zarr.open_group(str(tmp_path / "out.zarr"), mode="r")
    np.testing.assert_array_equal(group["meta/episode_ends"][:], [3, 5])
    np.testing.assert_array_equal(group["data/force"][:], [0, 10, 20, 1000, 1010])


def test_pusht_demonstrations_come_back_exactly(tmp_path: Path, shared_data: Path):
    source = shared_data / "pusht_cchi_v7" / "pusht_cchi_v7_replay.zarr"
    layout = replace(pusht_layout(images=False), skip=("img",))
    store = import_replay_buffer(source, tmp_path / "s", layout)
    assert (len(store), sum(entry.steps for entry in store.entries())) == (206, 25650)
    export_replay_buffer(store, tmp_path / "out.zarr")
    got, wanted = (zarr.open_group(str(p), mode="r", zarr_format=2) for p in (tmp_path / "out.zarr", source))
    for key in ("data/action", "data/state", "data/keypoint", "data/n_contacts", "meta/episode_ends"):
        assert got[key].dtype == wanted[key].dtype
        assert got[key][:].tobytes() == wanted[key][:].tobytes()


def test_pusht_pictures_come_back_exactly(tmp_path: Path, shared_data: Path):
    source = shared_data / "pusht_cchi_v7" / "pusht_cchi_v7_replay.zarr"
    store = import_replay_buffer(source, tmp_path / "s", pusht_layout(), limit=2)
    export_replay_buffer(store, tmp_path / "out.zarr")
    got, wanted = (zarr.open_group(str(p), mode="r", zarr_format=2) for p in (tmp_path / "out.zarr", source))
    n = int(wanted["meta/episode_ends"][1])
    assert got["data/img"][:].tobytes() == wanted["data/img"][:n].tobytes()
