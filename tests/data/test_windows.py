import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.data.windows import WindowDataset, WindowSpec
from robot_rl.errors import ConfigError, SpecError
from tests.data.window_episodes import make_episode

LOWDIM = ("state", "keypoint")


def steps_of(batch):
    """Return observed and commanded values of a batch as plain lists."""
    return batch.obs["state"][..., 0].astype(int).tolist(), batch.action[..., 0].astype(int).tolist()


def test_deltas_of_horizon_16_and_two_observations():  # T46
    spec = WindowSpec(n_obs=2, horizon=16, action_offset=-1)
    assert spec.obs_deltas.tolist() == [-1, 0]
    assert spec.action_deltas.tolist() == list(range(-1, 15))
    assert WindowSpec(n_obs=1, horizon=4).action_deltas.tolist() == [0, 1, 2, 3]


def test_action_of_the_newest_observation_stands_at_index_o_minus_1():  # T34
    data = WindowDataset([make_episode(0, 40)], WindowSpec(n_obs=3, horizon=8, action_offset=-2))
    batch = data.gather(np.array([20]))
    observed, commanded = steps_of(batch)
    assert observed == [[18, 19, 20]]
    assert commanded[0][3 - 1 :] == [20, 21, 22, 23, 24, 25]
    assert batch.mask.all()


def test_edges_repeat_and_are_masked():  # T34
    data = WindowDataset([make_episode(0, 5), make_episode(1, 4)], WindowSpec(2, 4, -1), obs_names=LOWDIM)
    batch = data.gather(np.array([0, 4, 5, 8]))
    observed, commanded = steps_of(batch)
    assert observed == [[0, 0], [3, 4], [1000, 1000], [1002, 1003]]
    assert commanded == [[0, 0, 1, 2], [3, 4, 4, 4], [1000, 1000, 1001, 1002], [1002, 1003, 1003, 1003]]
    assert batch.mask.tolist() == [[0, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1], [1, 1, 0, 0]]


def test_every_column_is_gathered_from_the_same_steps():
    data = WindowDataset([make_episode(e, 6 + e, image=True) for e in range(3)], WindowSpec(2, 3))
    batch = data.gather(np.arange(len(data)))
    state = batch.obs["state"][..., 0]
    assert batch.obs["keypoint"].shape == (21, 2, 3, 2)
    np.testing.assert_array_equal(batch.obs["keypoint"], np.broadcast_to(state[..., None, None], (21, 2, 3, 2)))
    np.testing.assert_array_equal(batch.obs["camera"][..., 2, 3, 0], state // 1000)
    np.testing.assert_array_equal(batch.obs["camera"][..., 0, 1, 1], state % 1000)
    np.testing.assert_array_equal(batch.action[..., 1], -batch.action[..., 0])
    assert [batch.obs[k].dtype for k in ("state", "keypoint", "camera")] == [np.float32, np.float32, np.uint8]
    assert (batch.action.dtype, batch.mask.dtype) == (np.float32, np.bool_)


def test_an_invalid_tick_is_neither_newest_nor_target():
    valid = np.array([1, 1, 0, 1, 1], bool)
    data = WindowDataset([make_episode(0, 5, valid=valid)], WindowSpec(2, 3))
    batch = data.gather(np.arange(len(data)))
    observed, commanded = steps_of(batch)
    assert [o[-1] for o in observed] == [0, 1, 3, 4]
    assert commanded == [[0, 1, 2], [1, 2, 3], [3, 4, 4], [4, 4, 4]]
    assert batch.mask.tolist() == [[1, 1, 0], [1, 0, 1], [1, 1, 0], [1, 0, 0]]


def test_stride_and_subset():
    valid = np.array([0, 1, 1, 1, 1, 1], bool)
    episodes = [make_episode(0, 4), make_episode(1, 6, valid=valid), make_episode(2, 3)]
    data = WindowDataset(episodes, WindowSpec(1, 1), subset=[2, 1], stride=2)
    batch = data.gather(np.arange(len(data)))
    assert steps_of(batch)[0] == [[2000], [2002], [1001], [1003], [1005]]


def test_budget_changes_where_rows_lie_and_nothing_else():
    episodes = [make_episode(e, 20, image=True) for e in range(5)]
    spec, index = WindowSpec(2, 4, -1), np.random.default_rng(0).permutation(100)
    sizes = {"state": 100 * 4, "action": 100 * 8, "keypoint": 100 * 24}
    reference = WindowDataset(episodes, spec)
    assert set(reference.table.in_memory) == set(sizes)
    for budget, held in ((0, set()), (2 * 400, {"state"}), (400 + 2 * 800, {"state", "action"})):
        data = WindowDataset(episodes, spec, max_memory_bytes=budget, max_open=2, threads=3)
        assert set(data.table.in_memory) == held
        expected, got = reference.gather(index), data.gather(index)
        for name in reference.obs_names:
            np.testing.assert_array_equal(got.obs[name], expected.obs[name])
            assert got.obs[name].dtype == expected.obs[name].dtype
        np.testing.assert_array_equal(got.action, expected.action)
        np.testing.assert_array_equal(got.mask, expected.mask)
        data.close()


def test_batches_visit_every_window_once():
    data = WindowDataset([make_episode(0, 5), make_episode(1, 5)], WindowSpec(1, 1))
    batches = list(data.batches(4))
    assert [len(b) for b in batches] == [4, 4, 2]
    seen = np.concatenate([b.obs["state"][:, 0, 0] for b in batches])
    assert seen.tolist() == [0, 1, 2, 3, 4, 1000, 1001, 1002, 1003, 1004]


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    n_obs=st.integers(1, 4),
    horizon=st.integers(1, 6),
    offset=st.integers(-4, 3),
    seed=st.integers(0, 99),
)
def test_windows_match_the_definition(lengths, n_obs, horizon, offset, seed):
    rng = np.random.default_rng(seed)
    flags = [rng.random(n) < 0.8 for n in lengths]
    flags[0][0] = True
    episodes = [make_episode(e, n, valid=v) for e, (n, v) in enumerate(zip(lengths, flags, strict=True))]
    data = WindowDataset(episodes, WindowSpec(n_obs, horizon, offset), obs_names=["state"])
    newest = [(e, t) for e, v in enumerate(flags) for t in np.flatnonzero(v).tolist()]
    batch = data.gather(np.arange(len(data)))
    assert len(data) == len(newest)
    for i, (e, t) in enumerate(newest):
        last = lengths[e] - 1
        wanted = [min(max(t + d, 0), last) + 1000 * e for d in range(1 - n_obs, 1)]
        assert batch.obs["state"][i, :, 0].tolist() == wanted
        targets = [t + offset + h for h in range(horizon)]
        assert batch.action[i, :, 0].tolist() == [min(max(s, 0), last) + 1000 * e for s in targets]
        assert batch.mask[i].tolist() == [0 <= s <= last and bool(flags[e][s]) for s in targets]


def test_bad_settings_are_named():
    one = [make_episode(0, 3)]
    for text, make in {
        "`horizon` must be at least 1 step, got 0": lambda: WindowSpec(1, 0),
        "`n_obs` must be at least 1 step, got 0": lambda: WindowSpec(0, 1),
        "`stride` must be at least 1 step, got 0": lambda: WindowDataset(one, WindowSpec(1, 1), stride=0),
        "at least one of 1 episodes by position, got [1]": lambda: WindowDataset(one, WindowSpec(1, 1), subset=[1]),
        "at least one of 0 episodes by position, got []": lambda: WindowDataset([], WindowSpec(1, 1)),
        "`max_open` must be at least 1 episode, got 0": lambda: WindowDataset(one, WindowSpec(1, 1), max_open=0),
        "`threads` must be at least 1, got 0": lambda: WindowDataset(one, WindowSpec(1, 1), threads=0),
    }.items():
        with pytest.raises(ConfigError, match=re.escape(text)):
            make()
    nothing = make_episode(0, 3, valid=np.zeros(3, bool))
    with pytest.raises(ConfigError, match="none of the 3 steps is valid"):
        WindowDataset([nothing], WindowSpec(1, 1))


def test_unlike_episodes_are_named():
    with pytest.raises(SpecError, match=r"episode `e0` has no observation `depth`; it has \['keypoint', 'state'\]"):
        WindowDataset([make_episode(0, 3)], WindowSpec(1, 1), obs_names=["depth"])
    odd = make_episode(1, 3)
    odd.obs["state"] = np.zeros((3, 2))
    expected = re.escape("episode `e1`: `state` must be (3, 1), as in the first one, got (3, 2)")
    with pytest.raises(SpecError, match=expected):
        WindowDataset([make_episode(0, 3), odd], WindowSpec(1, 1))


def test_index_outside_is_refused():
    data = WindowDataset([make_episode(0, 3)], WindowSpec(1, 1))
    for bad in ([3], [-1], [[0]]):
        with pytest.raises(IndexError, match=re.escape("`index` must be int64[B] within [0, 3)")):
            data.gather(np.array(bad))
