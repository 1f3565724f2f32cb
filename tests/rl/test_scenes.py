"""New scenes, and those that were failed at."""

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.rl.scenes import Scenes


def play(scenes, n, hard=lambda seed, tries: False):
    """Play n episodes; `hard(seed, tries)` says whether one fails. Returns the seeds in order."""
    seeds = []
    for _ in range(n):
        seeds.append(scenes.next())
        scenes.remember([(seeds[-1], not hard(seeds[-1], seeds.count(seeds[-1])))])
    return seeds


def test_scenes_are_new_ones_in_order_unless_asked():
    assert play(Scenes(100), 5, hard=lambda *_: True) == [100, 101, 102, 103, 104]
    assert play(Scenes(100, 0.9), 5) == [100, 101, 102, 103, 104]


def test_what_was_failed_at_comes_back_until_it_succeeds():
    seeds = play(Scenes(0, 0.8), 80, hard=lambda seed, tries: seed < 6 and tries < 3)
    failed_at = {seed for seed in seeds if seed < 6}
    assert len(failed_at) >= 2
    assert all(seeds.count(seed) == (3 if seed in failed_at else 1) for seed in seeds)


def test_what_cannot_be_managed_comes_back_ever_more_seldom():
    seeds = np.array(play(Scenes(0, 0.9), 600, hard=lambda seed, tries: seed == 0))
    gaps = np.diff(np.flatnonzero(seeds == 0))
    assert 5 <= len(gaps) <= 8
    assert np.all(gaps > 2 ** np.arange(1, len(gaps) + 1))
    assert np.all(gaps < 2 ** np.arange(1, len(gaps) + 1) + 20)


def test_a_run_that_is_continued_chooses_as_one_that_never_stopped():
    hard = lambda seed, tries: seed % 3 == 0  # noqa: E731
    whole = play(Scenes(7, 0.5), 40, hard)
    first = play(Scenes(7, 0.5), 15, hard)
    back = Scenes(7, 0.5)
    back.remember((seed, seed % 3 != 0) for seed in first)
    assert first + play(back, 25, hard) == whole
    assert len(set(whole)) < len(whole)


def test_episodes_without_a_seed_count_and_cannot_come_back():
    scenes = Scenes(0, 0.99)
    scenes.remember([(None, False)] * 3)
    assert play(scenes, 3) == [3, 4, 5]


@pytest.mark.parametrize("chance", [-0.1, 1.0])
def test_a_chance_that_leaves_no_new_scene_is_refused(chance):
    with pytest.raises(ConfigError, match="repeat_failed"):
        Scenes(0, chance)
