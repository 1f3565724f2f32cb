import threading
from dataclasses import replace

import numpy as np
import pytest

from robot_rl.data.dataset import EpisodeTable, LazyEpisodes, RecentEpisodes
from robot_rl.data.rows import RowView
from robot_rl.data.store import EpisodeStore
from robot_rl.data.windows import WindowDataset, WindowSpec
from robot_rl.errors import StoreError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream
from tests.data.window_episodes import make_episode


class CountingFrames:
    """Pictures of one value each that remember which were read."""

    def __init__(self, n, broken=None):
        self.shape, self.dtype, self.read, self.broken = (n, 4, 4, 3), np.dtype(np.uint8), [], broken

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        if index == self.broken:
            raise StoreError(f"frame {index} is damaged")
        self.read.append(int(index))
        return np.full(self.shape[1:], index, np.uint8)


def with_camera(episode, frames):
    return replace(episode, obs={**episode.obs, "camera": frames})


def test_lazy_episodes_open_when_asked():
    opened = []

    def open_episode(id):
        opened.append(id)
        return make_episode(int(id), 3)

    episodes = LazyEpisodes(["4", "5", "6"], open_episode)
    assert (len(episodes), opened) == (3, [])
    assert episodes[1].id == "e5"
    assert [e.id for e in episodes[1:]] == ["e5", "e6"]
    assert opened == ["5", "5", "6"]


def test_recent_episodes_keeps_the_last_used():
    opened = []
    recent = RecentEpisodes(lambda e: opened.append(e) or make_episode(e, 1), max_open=2)
    for e in (0, 1, 0, 2, 0, 1):
        assert recent.get(e).id == f"e{e}"
        assert len(recent) <= 2
    assert opened == [0, 1, 2, 1]


def test_columns_in_memory_need_no_episode_again():
    opened = []
    episodes = LazyEpisodes([str(e) for e in range(50)], lambda e: opened.append(e) or make_episode(int(e), 4))
    data = WindowDataset(episodes, WindowSpec(1, 2), max_open=3)
    seen = len(opened)
    data.gather(np.arange(len(data)))
    assert (seen, len(opened)) == (50, 50)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_decodes_each_picture_once(threads):
    frames = [CountingFrames(20), CountingFrames(9)]
    episodes = [with_camera(make_episode(e, len(f)), f) for e, f in enumerate(frames)]
    data = WindowDataset(episodes, WindowSpec(3, 1), threads=threads)
    index = np.array([0, 5, 6, 5, 20, 28, 19])
    batch = data.gather(index)
    assert sorted(frames[0].read) == [0, 3, 4, 5, 6, 17, 18, 19]
    assert sorted(frames[1].read) == [0, 6, 7, 8]
    expected = batch.obs["state"][..., 0] % 1000
    np.testing.assert_array_equal(
        batch.obs["camera"], np.broadcast_to(expected[..., None, None, None], (7, 3, 4, 4, 3))
    )
    data.close()


def test_ticks_that_see_one_frame_decode_it_once():
    frames = CountingFrames(4)
    slow = RowView(RowView(frames, np.arange(4)), np.array([0, 0, 0, 1, 1, 2, 2, 3]))
    data = WindowDataset([with_camera(make_episode(0, 8), slow)], WindowSpec(2, 1), threads=1)
    batch = data.gather(np.array([1, 4, 6]))
    assert frames.read == [0, 1, 2]
    assert batch.obs["camera"][..., 0, 0, 0].tolist() == [[0, 0], [1, 1], [2, 2]]


def test_an_error_in_a_reading_thread_reaches_the_caller():
    data = WindowDataset([with_camera(make_episode(0, 40), CountingFrames(40, broken=31))], WindowSpec(1, 1), threads=2)
    assert data.gather(np.arange(30)).obs["camera"].max() == 29
    with pytest.raises(StoreError, match="frame 31 is damaged"):
        data.gather(np.arange(40))
    data.close()


def test_close_ends_the_reading_threads():
    before = threading.active_count()
    data = WindowDataset([with_camera(make_episode(0, 40), CountingFrames(40))], WindowSpec(1, 1), threads=2)
    data.gather(np.arange(40))
    assert threading.active_count() > before
    data.close()
    assert threading.active_count() == before


def test_episode_rows_are_the_valid_rows(monkeypatch):
    monkeypatch.setattr("robot_rl.data.dataset._BLOCK_ROWS", 4)
    valid = np.array([1, 0, 0, 1, 0, 0, 0, 0, 1, 1], bool)
    for budget in (0, 2**20):
        table = EpisodeTable([make_episode(0, 10, valid=valid), make_episode(1, 5)], None, max_memory_bytes=budget)
        blocks = [b[:, 0].astype(int).tolist() for b in table.episode_rows("state")]
        assert blocks == [[0, 3], [8, 9], [1000, 1001, 1002, 1003], [1004]]


def test_windows_of_a_store_equal_windows_of_what_was_appended(tmp_path):
    obs = {
        "camera": ArraySpec(name="camera", shape=(16, 24, 3), dtype="uint8"),
        "joint": ArraySpec(name="joint", shape=(2,)),
    }
    spec = RobotSpec(name="r", obs=obs, action=ActionSpec(name="action", shape=(2,)), control_hz=10)
    store = EpisodeStore.create(tmp_path / "store", spec, codecs={"camera": "png"})
    rng, n = np.random.default_rng(0), 12
    stamp_ns = np.arange(n, dtype=np.int64) * spec.step_ns
    arrays = []
    for _ in range(6):
        data = {"camera": rng.integers(0, 256, (n, 16, 24, 3), dtype=np.uint8)}
        data |= {name: rng.normal(size=(n, 2)).astype(np.float32) for name in ("joint", "action")}
        store.append(Recording({k: Stream(stamp_ns, v) for k, v in data.items()}, RecordingMeta(on_grid=True)))
        arrays.append(data)
    windows = WindowDataset(LazyEpisodes(store.ids(), store.episode), WindowSpec(2, 3), max_memory_bytes=0, max_open=2)
    assert windows.table.in_memory == ()
    batch = windows.gather(np.array([17, 70, 5]))
    for i, (e, t) in enumerate([(1, 5), (5, 10), (0, 5)]):
        for name in obs:
            np.testing.assert_array_equal(batch.obs[name][i], arrays[e][name][t - 1 : t + 1])
        targets = np.minimum(np.arange(t, t + 3), n - 1)
        np.testing.assert_array_equal(batch.action[i], arrays[e]["action"][targets])
    windows.close()
