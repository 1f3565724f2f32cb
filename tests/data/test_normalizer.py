import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robot_rl.data.normalizer import NORM_MODES, Affine, FieldStats, StatsAccumulator, affine_for, fit_stats
from robot_rl.data.windows import WindowDataset, WindowSpec
from robot_rl.errors import ConfigError, DataFormatError
from tests.data.window_episodes import make_episode

ROWS = hnp.arrays(np.float64, st.tuples(st.integers(1, 40), st.just(3)), elements=st.floats(-1e4, 1e4))


def stats_of(rows, **settings_):
    accumulator = StatsAccumulator(**settings_)
    for block in np.array_split(rows, min(3, len(rows))):
        accumulator.update(block)
    return accumulator.finish()


def reference(rows):
    q01, q99 = np.quantile(rows, [0.01, 0.99], axis=0)
    return FieldStats(rows.min(0), rows.max(0), rows.mean(0), rows.std(0), q01, q99, len(rows))


def assert_close(a, b, names=("min", "max", "mean", "std", "q01", "q99")):
    assert a.count == b.count
    for name in names:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-7, err_msg=name)


@settings(max_examples=50, deadline=None)
@given(rows=ROWS)
def test_blocks_give_numpys_statistics(rows):
    assert_close(stats_of(rows), reference(rows))


def test_a_large_mean_costs_no_precision():
    rows = 1e9 + np.array([[0.0], [1.0], [2.0], [3.0]])
    accumulator = StatsAccumulator()
    for row in rows:
        accumulator.update(row[None])
    assert accumulator.finish().std == pytest.approx([np.sqrt(1.25)], rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(a=ROWS, b=ROWS)
def test_merge_equals_one_pass(a, b):
    both = reference(np.concatenate([a, b]))
    assert_close(stats_of(a).merge(stats_of(b)), both, names=("min", "max", "mean", "std"))
    left, right = StatsAccumulator(seed=0), StatsAccumulator(seed=1)
    left.update(a)
    right.update(b)
    left.merge(right)
    assert_close(left.finish(), both)


def test_quantiles_beyond_the_reservoir_are_a_fair_estimate():
    rows = np.random.default_rng(0).permutation(200_000)[:, None] / 200_000
    stats = stats_of(rows, reservoir_rows=20_000)
    assert stats.q01[0] == pytest.approx(0.01, abs=0.003)
    assert stats.q99[0] == pytest.approx(0.99, abs=0.003)
    again = stats_of(rows, reservoir_rows=20_000)
    np.testing.assert_array_equal(stats.q01, again.q01)


def test_fit_counts_each_valid_step_once_and_no_padding():
    valid = np.array([0, 1, 1, 1], bool)
    episodes = [
        make_episode(0, 4, valid=valid, image=True),
        make_episode(1, 2, image=True),
        make_episode(9, 5, image=True),
    ]
    kept = np.array([1, 2, 3, 1000, 1001], np.float64)
    for budget in (0, 2**20):
        data = WindowDataset(episodes, WindowSpec(3, 8, -2), subset=[0, 1], stride=2, max_memory_bytes=budget)
        stats = fit_stats(data)
        assert set(stats) == {"action", "state", "keypoint"}
        assert_close(stats["state"], reference(kept[:, None]))
        assert_close(stats["action"], reference(np.stack([kept, -kept], axis=1)))
        assert stats["keypoint"].mean.shape == (3, 2)


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, mode=st.sampled_from(NORM_MODES))
def test_round_trip(rows, mode):  # T44
    affine = affine_for(stats_of(rows), mode)
    there = affine.normalise(rows)
    assert np.isfinite(there).all()
    np.testing.assert_allclose(affine.unnormalise(there), rows, rtol=1e-12, atol=1e-9)


def test_modes_map_what_they_say():
    rows = np.random.default_rng(1).normal([3.0, -50.0], [0.2, 9.0], (5000, 2))
    stats = stats_of(rows)
    for mode, low, high in (("min_max", rows.min(0), rows.max(0)), ("quantile", stats.q01, stats.q99)):
        there = affine_for(stats, mode).normalise(np.stack([low, high, (low + high) / 2]))
        np.testing.assert_allclose(there, [[-1, -1], [1, 1], [0, 0]], atol=1e-12)
    standard = affine_for(stats, "mean_std").normalise(rows)
    np.testing.assert_allclose([standard.mean(0), standard.std(0)], [[0, 0], [1, 1]], atol=1e-12)
    np.testing.assert_array_equal(affine_for(stats, "identity").normalise(rows), rows)


@pytest.mark.parametrize("mode", NORM_MODES)
@pytest.mark.parametrize("wobble", [0.0, 9e-5])
def test_a_constant_feature_stays_finite_and_returns(mode, wobble):  # T44
    rows = np.array([[5.25, 0.0], [5.25 + wobble, 1.0]])
    affine = affine_for(stats_of(rows), mode)
    there = affine.normalise(rows)
    if mode != "identity":
        assert affine.scale[0] == 1.0
        assert there[0, 0] == 0.0
    assert affine.unnormalise(there)[0, 0] == 5.25
    assert affine.unnormalise(there.astype(np.float32))[0, 0] == np.float32(5.25)


@pytest.mark.parametrize("mode", ["quantile", "mean_std"])
def test_a_rare_spike_falls_back_to_its_range(mode):
    rows = np.zeros((200_000, 1))
    rows[7] = 0.01
    affine = affine_for(stats_of(rows), mode)
    np.testing.assert_allclose(affine.normalise(np.array([[0.0], [0.01]])), [[-1], [1]], atol=1e-12)


def test_float32_stays_float32():
    affine = Affine(np.array([2.0]), np.array([1.0]))
    x = np.array([[3.0]], np.float32)
    assert affine.normalise(x).dtype == np.float32
    assert affine.unnormalise(affine.normalise(x)) == 3.0
    assert affine.normalise(np.array([[3]])).dtype == np.float64


def test_json_round_trip():
    stats = stats_of(np.random.default_rng(2).normal(size=(50, 3, 2)))
    again = FieldStats.from_dict(json.loads(json.dumps(stats.to_dict())))
    for name in ("min", "max", "mean", "std", "q01", "q99"):
        np.testing.assert_array_equal(getattr(again, name), getattr(stats, name))
    assert again.count == 50
    affine = affine_for(stats, "min_max")
    other = Affine.from_dict(json.loads(json.dumps(affine.to_dict())))
    np.testing.assert_array_equal(other.scale, affine.scale)
    np.testing.assert_array_equal(other.offset, affine.offset)


def test_bad_input_is_named():
    stats = stats_of(np.zeros((2, 1)))
    with pytest.raises(ConfigError, match=r"`mode` of normalisation must be one of \('min_max', .*\), got 'zscore'"):
        affine_for(stats, "zscore")
    with pytest.raises(ConfigError, match="need at least one valid row, got none"):
        StatsAccumulator().finish()
    with pytest.raises(ConfigError, match="finite numbers and no zero scale"):
        Affine(np.array([0.0]), np.array([0.0]))
    with pytest.raises(DataFormatError, match=r"field statistics need \['count', .*\], got \['min'\]"):
        FieldStats.from_dict({"min": [0.0]})
    with pytest.raises(DataFormatError, match=r"needs \['offset', 'scale'\], got \['scale'\]"):
        Affine.from_dict({"scale": [1.0]})
