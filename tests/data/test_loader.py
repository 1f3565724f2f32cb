import json
import threading
import time

import numpy as np
import pytest

from robot_rl.data.loader import BatchLoader
from robot_rl.data.windows import WindowDataset, WindowSpec
from robot_rl.errors import ConfigError, StoreError
from tests.data.window_episodes import make_episode


@pytest.fixture
def data():
    return WindowDataset([make_episode(e, 7) for e in range(3)], WindowSpec(1, 1), obs_names=["state"])


def newest(batch):
    return batch.obs["state"][:, -1, 0].tolist()


def take(loader, n):
    with loader:
        return [newest(next(loader)) for _ in range(n)]


def test_an_epoch_uses_no_window_twice_and_drops_the_short_batch(data):
    loader = BatchLoader(data, 4, seed=3)
    assert len(loader) == 5
    first, second = np.ravel(take(loader, 5)), np.ravel(take(loader, 5))
    assert len(set(first)) == len(set(second)) == 20
    assert first.tolist() != second.tolist()


def test_batches_depend_on_the_seed_only(data):
    expected = take(BatchLoader(data, 4, seed=3, prefetch=0), 12)
    for prefetch in (1, 2, 7):
        assert take(BatchLoader(data, 4, seed=3, prefetch=prefetch), 12) == expected
    assert take(BatchLoader(data, 4, seed=4), 12) != expected


def test_order_is_a_function_of_seed_and_epoch(data):
    order = np.random.default_rng([9, 1]).permutation(21)
    np.testing.assert_array_equal(BatchLoader(data, 4, seed=9).index(6), order[4:8])  # epoch 1, batch 1


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("done", [0, 3, 5, 8])
def test_state_continues_mid_epoch_to_the_bit(data, prefetch, done):
    expected = take(BatchLoader(data, 4, seed=1), 14)
    loader = BatchLoader(data, 4, seed=1, prefetch=prefetch)
    assert take(loader, done) == expected[:done]
    state = json.loads(json.dumps(loader.state_dict()))
    assert (state["epoch"], state["batch"]) == divmod(done, 5)
    other = BatchLoader(data, 4, seed=1, prefetch=prefetch)
    take(other, 2)
    other.load_state_dict(state)
    assert take(other, 14 - done) == expected[done:]


def test_state_of_another_run_is_refused(data):
    state = BatchLoader(data, 4, seed=1).state_dict()
    with pytest.raises(ConfigError, match=r"does not fit: seed 1 \(here 2\), batch_size 4 \(here 3\); resume with"):
        BatchLoader(data, 3, seed=2).load_state_dict(state)


def test_an_error_reaches_the_caller_and_keeps_the_position(data, monkeypatch):
    loader, whole, broken = BatchLoader(data, 4, seed=1), data.gather, [True]
    expected = take(BatchLoader(data, 4, seed=1), 4)

    def gather(index):
        if broken[0] and np.array_equal(index, loader.index(2)):
            raise StoreError("frame 7 is damaged")
        return whole(index)

    monkeypatch.setattr(data, "gather", gather)
    with loader:
        got = [newest(next(loader)) for _ in range(2)]
        for _ in range(2):
            with pytest.raises(StoreError, match="frame 7 is damaged"):
                next(loader)
        broken[0] = False
        got += [newest(next(loader)) for _ in range(2)]
    assert got == expected


def test_prefetch_runs_ahead_by_no_more_than_asked(data, monkeypatch):
    whole, made = data.gather, []
    monkeypatch.setattr(data, "gather", lambda index: made.append(len(index)) or whole(index))
    with BatchLoader(data, 4, prefetch=3) as loader:
        next(loader)
        deadline = time.monotonic() + 10
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(made) == 4  # the one delivered and three ahead


def test_close_leaves_no_thread_and_can_be_repeated(data):
    before = threading.active_count()
    loader = BatchLoader(data, 4, prefetch=2)
    next(loader)
    assert threading.active_count() == before + 1
    loader.close()
    loader.close()
    assert threading.active_count() == before
    assert len(next(loader)) == 4
    loader.close()


def test_bad_settings_are_named(data):
    with pytest.raises(ConfigError, match=r"`batch_size` must lie within \[1, 21\] \(windows there are\), got 22"):
        BatchLoader(data, 22)
    with pytest.raises(ConfigError, match="`prefetch` must not be negative, got -1"):
        BatchLoader(data, 2, prefetch=-1)
