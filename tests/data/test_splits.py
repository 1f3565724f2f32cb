import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.data.splits import split_episodes
from robot_rl.errors import ConfigError


@given(n=st.integers(0, 60), fraction=st.floats(0, 0.99), seed=st.integers(0, 9))
def test_sides_are_disjoint_complete_and_not_empty(n, fraction, seed):
    split = split_episodes([f"e{i}" for i in range(n)], val_fraction=fraction, seed=seed)
    assert sorted(split.train + split.val) == list(range(n))
    if n >= 2 and fraction > 0:
        assert split.train
        assert split.val
    if n >= 4:
        assert abs(len(split.val) - fraction * n) <= 1


def test_split_is_pinned_and_follows_the_seed():
    ids = [f"e{i}" for i in range(10)]
    assert split_episodes(ids, val_fraction=0.2, seed=0).val == (0, 2)  # held-out data must not change with a release
    assert split_episodes(ids, val_fraction=0.2, seed=0) == split_episodes(ids, val_fraction=0.2, seed=0)
    assert len({split_episodes(ids, val_fraction=0.2, seed=s).val for s in range(20)}) > 5


def test_split_follows_ids_not_positions():
    ids = [f"e{i}" for i in range(30)]
    val = {ids[i] for i in split_episodes(ids, val_fraction=0.2, seed=5).val}
    turned = ids[::-1]
    assert {turned[i] for i in split_episodes(turned, val_fraction=0.2, seed=5).val} == val
    more = [*ids, "new"]
    grown = {more[i] for i in split_episodes(more, val_fraction=0.2, seed=5).val}
    assert len(val - grown) <= 1


def test_one_episode_trains():
    assert split_episodes(["a"], val_fraction=0.5, seed=0) == ((0,), ())


def test_bad_input_is_named():
    with pytest.raises(ConfigError, match=re.escape("`val_fraction` must lie within [0, 1), got 1.0")):
        split_episodes(["a", "b"], val_fraction=1.0, seed=0)
    with pytest.raises(ConfigError, match="`ids` must be unique, got 2 ids of which 1 differ"):
        split_episodes(["a", "a"], val_fraction=0.5, seed=0)
