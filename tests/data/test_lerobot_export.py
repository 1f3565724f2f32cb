"""A store as a LeRobot v3.0 data set, and back."""

import json

import numpy as np
import pytest

from robot_rl.data.foreign import import_dataset
from robot_rl.data.formats import open_dataset
from robot_rl.data.lerobot_export import export_lerobot
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, StoreError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream
from tests.data.lerobot_stores import HZ, SPEC, grid_store, multi_rate_store

pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: pip install 'robot-rl[lerobot]'")


def columns(root):
    return pq.read_table(root / "data").to_pydict()


def back(root, url, **options):
    """Import an export; nothing in it may look broken."""
    dataset = open_dataset(root, **options)
    assert list(dataset.defects) == []
    import_dataset(dataset, url)
    return EpisodeStore.open(url)


def test_an_export_without_video_comes_back_as_the_store_it_was(tmp_path):
    store = grid_store(tmp_path / "store")
    export_lerobot(store, tmp_path / "out", videos=False)
    again = back(tmp_path / "out", tmp_path / "again")
    assert again.schema.to_dict() == store.schema.to_dict()
    assert again.ids() == store.ids()
    for id in store.ids():
        mine, theirs = store.read(id), again.read(id)
        assert set(theirs.streams) == set(mine.streams)
        for name, stream in mine.streams.items():
            np.testing.assert_array_equal(theirs.streams[name].data[:], stream.data[:], err_msg=f"{id} {name}")
            np.testing.assert_array_equal(theirs.streams[name].stamp_ns, stream.stamp_ns)
        for field in ("task", "outcome", "source", "terminated", "truncated", "seed"):
            assert getattr(theirs.meta, field) == getattr(mine.meta, field)


def test_videos_change_pictures_a_little_and_nothing_else(tmp_path):
    store = grid_store(tmp_path / "store")
    lost = export_lerobot(store, tmp_path / "out")
    assert "pixels" in lost["observation.images.cam"]
    again = back(tmp_path / "out", tmp_path / "again")
    for id in store.ids():
        mine, theirs = store.read(id), again.read(id)
        for name in set(mine.streams) - {"cam"}:
            np.testing.assert_array_equal(theirs.streams[name].data[:], mine.streams[name].data[:], err_msg=name)
        error = np.abs(theirs.streams["cam"].data[:].astype(int) - mine.streams["cam"].data[:])
        assert 0 < error.mean() < 4


def test_float32_vectors_are_the_state_and_everything_else_has_a_feature(tmp_path):
    export_lerobot(grid_store(tmp_path / "store"), tmp_path / "out")
    info = json.loads((tmp_path / "out" / "meta" / "info.json").read_text())
    kinds = {name: (f["dtype"], tuple(f["shape"])) for name, f in info["features"].items()}
    assert kinds == {
        "observation.state": ("float32", (8,)), "observation.images.cam": ("video", (64, 96, 3)),
        "observation.images.small": ("image", (9, 12, 1)), "observation.cloud": ("float64", (5, 3)),
        "observation.count": ("int16", (1,)), "action": ("float32", (2,)), "action_executed": ("float32", (2,)),
        "next.reward": ("float32", (1,)), "complementary_info.is_intervention": ("bool", (1,)),
        "chain": ("float32", (2, 3)), "extra.index": ("int64", (1,)), "next.done": ("bool", (1,)),
        "next.success": ("bool", (1,)), "timestamp": ("float32", (1,)), "frame_index": ("int64", (1,)),
        "episode_index": ("int64", (1,)), "index": ("int64", (1,)), "task_index": ("int64", (1,)),
    }  # fmt: skip
    assert info["features"]["observation.state"]["names"] == [*(f"q.{i}" for i in range(7)), "grip"]
    assert (info["fps"], info["total_frames"], info["total_tasks"], info["codebase_version"]) == (20, 18, 2, "v3.0")


def test_frames_are_numbered_timed_and_ended(tmp_path):
    export_lerobot(grid_store(tmp_path / "store"), tmp_path / "out", videos=False)
    table = columns(tmp_path / "out")
    assert table["index"] == list(range(18))
    assert table["episode_index"] == [0] * 5 + [1] * 6 + [2] * 7
    assert table["frame_index"] == [*range(5), *range(6), *range(7)]
    np.testing.assert_allclose(table["timestamp"], np.array(table["frame_index"]) / HZ, rtol=1e-6)
    assert np.flatnonzero(table["next.done"]).tolist() == [4, 17]  # the second episode was cut short
    assert np.flatnonzero(table["next.success"]).tolist() == [10, 17]
    assert table["task_index"] == [0] * 5 + [1] * 6 + [0] * 7


def test_statistics_are_those_of_the_data(tmp_path):
    store = grid_store(tmp_path / "store")
    export_lerobot(store, tmp_path / "out")
    stats = json.loads((tmp_path / "out" / "meta" / "stats.json").read_text())
    episodes = [store.episode(id) for id in store.ids()]
    action = np.concatenate([e.action for e in episodes]).astype(np.float64)
    for name, value in (
        ("min", action.min(0)),
        ("max", action.max(0)),
        ("mean", action.mean(0)),
        ("std", action.std(0)),
    ):
        np.testing.assert_allclose(stats["action"][name], value, atol=1e-9)
    pixels = np.concatenate([e.obs["cam"][:] for e in episodes]).reshape(-1, 3) / 255.0
    np.testing.assert_allclose(np.ravel(stats["observation.images.cam"]["mean"]), pixels.mean(0), atol=1e-9)
    assert np.shape(stats["observation.images.cam"]["std"]) == (3, 1, 1)
    assert stats["action"]["count"] == [18]


def test_streams_at_their_own_rates_are_seen_from_the_control_clock_and_the_loss_is_told(tmp_path):
    store = multi_rate_store(tmp_path / "store")
    lost = export_lerobot(store, tmp_path / "out", videos=False)
    assert "2 of 2 episodes" in lost["streams at their own rates"]
    assert json.loads((tmp_path / "out" / "lost.json").read_text()) == lost
    again = back(tmp_path / "out", tmp_path / "again")
    for id in store.ids():
        mine, theirs = store.episode(id), again.episode(id)
        np.testing.assert_array_equal(theirs.obs["q"][:], mine.obs["q"][:])
        np.testing.assert_array_equal(theirs.obs["camera"][:], mine.obs["camera"][:])
        np.testing.assert_array_equal(theirs.action, mine.action)


def test_another_rate_picks_frames_and_says_so(tmp_path):
    store = multi_rate_store(tmp_path / "store")
    lost = export_lerobot(store, tmp_path / "out", fps=10, videos=False)
    assert "10 Hz" in lost["rate"]
    info = json.loads((tmp_path / "out" / "meta" / "info.json").read_text())
    assert info["fps"] == 10
    assert back(tmp_path / "out", tmp_path / "again").spec.control_hz == 10.0


def test_a_stream_that_some_episodes_lack_gets_nan_or_stays_behind(tmp_path):
    store = grid_store(tmp_path / "store", leave_out={1: ("chain", "index", "reward")})
    lost = export_lerobot(store, tmp_path / "out", videos=False)
    table = columns(tmp_path / "out")
    assert "extra.index" not in table
    assert "1 of 3 episodes lack it" in lost["index"]
    assert np.isnan(np.array(table["chain"][5:11])).all()
    assert table["next.reward"][5:11] == [0.0] * 6
    again = back(tmp_path / "out", tmp_path / "again")
    assert {"chain", "reward"} & set(again.read("ep-1").streams) == set()
    assert {"chain", "reward"} <= set(again.read("ep-2").streams)


def test_features_of_an_imported_data_set_go_back_under_their_names(tmp_path):
    export_lerobot(grid_store(tmp_path / "store"), tmp_path / "first", videos=False)
    taken = ["observation.state", "next.reward", "chain"]
    plain = back(tmp_path / "first", tmp_path / "plain", features=taken, rename={"observation.state": "joints"})
    assert "joints" in plain.spec.obs
    export_lerobot(plain, tmp_path / "second")
    first, second = (columns(tmp_path / name) for name in ("first", "second"))
    assert all(second[name] == first[name] for name in (*taken, "action"))
    names = [json.loads((tmp_path / n / "meta" / "info.json").read_text()) for n in ("first", "second")]
    assert names[0]["features"]["observation.state"] == names[1]["features"]["observation.state"]


def test_an_export_that_fails_leaves_nothing(tmp_path):
    store = grid_store(tmp_path / "store")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_lerobot(store, tmp_path / "out", progress=stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store"]


def test_a_place_that_is_taken_an_empty_store_and_wrong_settings_are_refused(tmp_path):
    store = grid_store(tmp_path / "store", episodes=1)
    (tmp_path / "taken").mkdir()
    with pytest.raises(StoreError, match="exists already; export to a new folder"):
        export_lerobot(store, tmp_path / "taken")
    with pytest.raises(ConfigError, match=r"`export.codec` must be one of \['av1', 'h264'\], got 'vp9'"):
        export_lerobot(store, tmp_path / "out", codec="vp9")
    with pytest.raises(ConfigError, match=r"`export.fps` must be above 0, got 0"):
        export_lerobot(store, tmp_path / "out", fps=0)
    with pytest.raises(StoreError, match="holds no episode"):
        export_lerobot(EpisodeStore.create(tmp_path / "empty", SPEC), tmp_path / "out")


def test_large_episodes_start_new_files(tmp_path):
    store = grid_store(tmp_path / "store")
    export_lerobot(store, tmp_path / "out", table_mb=0, video_mb=0)
    meta = pq.read_table(tmp_path / "out" / "meta" / "episodes").to_pylist()
    assert [row["data/file_index"] for row in meta] == [0, 1, 2]
    assert [row["videos/observation.images.cam/from_timestamp"] for row in meta] == [0.0, 0.0, 0.0]
    assert len(back(tmp_path / "out", tmp_path / "again")) == 3


def test_the_observation_after_the_last_action_is_told_as_lost(tmp_path):
    spec = RobotSpec(
        name="arm",
        obs={"q": ArraySpec(name="q", shape=(2,))},
        action=ActionSpec(name="action", shape=(1,)),
        control_hz=10,
    )
    store = EpisodeStore.create(tmp_path / "store", spec)
    stamps = np.arange(4, dtype=np.int64) * 100_000_000
    streams = {
        "q": Stream(stamps, np.ones((4, 2), np.float32)),
        "action": Stream(stamps[:3], np.ones((3, 1), np.float32)),
    }
    store.append(Recording(streams, RecordingMeta(on_grid=True)))
    assert "1 of 1 episodes" in export_lerobot(store, tmp_path / "out")["final_obs"]
