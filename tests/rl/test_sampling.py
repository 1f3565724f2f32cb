"""Known answers of symmetric sampling (specs, off-policy: rows 16-18)."""

import math

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.rl.sampling import SymmetricSampler, interleaved, update_slices


def test_half_the_batch_comes_from_ten_demonstrations_with_replacement():
    demo, online = SymmetricSampler(256).sample(10, 5000, np.random.default_rng(0))
    assert (len(demo), len(online)) == (128, 128)
    assert set(demo) == set(range(10))
    assert online.max() < 5000


@pytest.mark.parametrize(("n_demo", "n_online", "expected"), [(0, 7, (0, 64)), (7, 0, (64, 0))])
def test_an_empty_side_leaves_its_share_to_the_other(n_demo, n_online, expected):
    demo, online = SymmetricSampler(64).sample(n_demo, n_online, np.random.default_rng(0))
    assert (len(demo), len(online)) == expected


def test_slices_of_an_interleaved_batch_hold_both_sides():
    batch = np.array([0, 1, 2, 3, 10, 11, 12, 13])[interleaved(4, 4)]
    assert [batch[part].tolist() for part in update_slices(8, 4)] == [[0, 10], [1, 11], [2, 12], [3, 13]]


def test_uneven_shares_are_spread_too():
    source = np.array([0] * 2 + [1] * 6)[interleaved(2, 6)]
    assert [int((source[part] == 0).sum()) for part in update_slices(8, 2)] == [1, 1]


def test_oversampling_is_the_ratio_of_the_pools():
    assert SymmetricSampler(256).oversampling(2000, 30000) == 15
    assert math.isnan(SymmetricSampler(256).oversampling(0, 10))


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(ConfigError, match="nothing to sample"):
        SymmetricSampler(4).sample(0, 0, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="`ratio` in"):
        SymmetricSampler(4, 1.5)
    with pytest.raises(ConfigError, match="does not divide into 3"):
        list(update_slices(8, 3))
