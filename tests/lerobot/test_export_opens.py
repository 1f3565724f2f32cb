"""What we export, LeRobot's own reader opens, and finds in it what the store holds."""

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="lerobot is not installed here; `make test-lerobot` runs this where it is")

from benchmarks.lerobot_opens import open_in_lerobot
from robot_rl.data.foreign import import_dataset
from robot_rl.data.formats import open_dataset
from robot_rl.data.lerobot_export import export_lerobot
from robot_rl.data.store import EpisodeStore
from tests.data.lerobot_stores import grid_store, multi_rate_store


@pytest.mark.parametrize("codec", ["av1", "h264"])
def test_videos_open_with_equal_numbers_and_near_pictures(tmp_path, codec):
    store = grid_store(tmp_path / "store")
    export_lerobot(store, tmp_path / "out", codec=codec)
    found = open_in_lerobot(store, tmp_path / "out")
    assert (found.episodes, found.frames, found.unequal) == (3, 5 + 6 + 7, 0)
    assert found.pictures == 2 * 18
    assert found.worst_psnr_db > 30


def test_pictures_in_the_tables_open_exactly(tmp_path):
    store = grid_store(tmp_path / "store")
    export_lerobot(store, tmp_path / "out", videos=False)
    found = open_in_lerobot(store, tmp_path / "out")
    assert (found.unequal, found.worst_psnr_db) == (0, np.inf)


def test_recordings_at_many_rates_open_as_the_control_clock_sees_them(tmp_path):
    store = multi_rate_store(tmp_path / "store")
    export_lerobot(store, tmp_path / "out", videos=False)
    found = open_in_lerobot(store, tmp_path / "out")
    assert found.unequal == 0
    assert found.frames == sum(len(store.episode(id)) for id in store.ids())


def test_episodes_that_start_new_files_open_too(tmp_path):
    store = grid_store(tmp_path / "store")
    export_lerobot(store, tmp_path / "out", table_mb=0.0, video_mb=0.0)
    assert len(list((tmp_path / "out" / "data").glob("*/*.parquet"))) == 3
    assert open_in_lerobot(store, tmp_path / "out").unequal == 0


def test_tasks_and_statistics_are_what_training_reads(tmp_path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    store = grid_store(tmp_path / "store")
    export_lerobot(store, tmp_path / "out")
    dataset = LeRobotDataset("local/x", root=tmp_path / "out")
    assert [dataset[i]["task"] for i in (0, 5, 11)] == ["task 0", "task 1", "task 0"]
    state = np.concatenate(
        [np.concatenate([e.obs["q"][:], e.obs["grip"][:]], 1) for e in map(store.episode, store.ids())]
    )
    stats = dataset.meta.stats["observation.state"]
    np.testing.assert_allclose(stats["mean"], state.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["std"], state.std(0), atol=1e-6)
    assert dataset.meta.stats["observation.images.cam"]["mean"].shape == (3, 1, 1)


def test_the_real_g1_data_come_back_equal(tmp_path, shared_data):
    source = shared_data / "lerobot_g1_v21"
    if not source.is_dir():
        pytest.skip(f"{source} is not there")
    import_dataset(open_dataset(source, videos=False), tmp_path / "store", limit=12)
    store = EpisodeStore.open(tmp_path / "store")
    export_lerobot(store, tmp_path / "out")
    found = open_in_lerobot(store, tmp_path / "out")
    assert (found.episodes, found.unequal) == (12, 0)
    assert found.numbers == found.frames * 52
