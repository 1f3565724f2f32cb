"""Statistics of relative actions: one row per step of the chunk, closed forms, nothing from beyond an episode."""

import dataclasses

import numpy as np
import pytest

from robot_rl.data.relative import fit_relative_stats
from robot_rl.data.windows import WindowDataset, WindowSpec
from robot_rl.errors import ConfigError
from robot_rl.values import Episode
from tests.data.window_episodes import make_episode


def _with_pose(episode: Episode) -> Episode:
    """Give the episode a pose that equals its action of the same step, so that relative action h is h * (1, -1)."""
    return dataclasses.replace(episode, obs={**episode.obs, "pose": np.asarray(episode.action)})


def test_each_step_has_its_own_statistics() -> None:
    episodes = [_with_pose(make_episode(0, 12)), _with_pose(make_episode(1, 7))]
    data = WindowDataset(episodes, WindowSpec(n_obs=2, horizon=5), obs_names=["pose"])
    stats = fit_relative_stats(data, ["pose"])
    expected = np.stack([np.arange(5), -np.arange(5)], axis=1).astype(np.float64)
    for name in ("min", "max", "mean", "q01", "q99"):
        np.testing.assert_array_equal(getattr(stats, name), expected)
    np.testing.assert_array_equal(stats.std, 0.0)
    assert stats.count == (12 - 4) + (7 - 4), "the last step of the chunk counts only where it lies in the episode"


def test_the_reference_is_the_newest_observation_joined_in_order() -> None:
    episode = make_episode(0, 9)
    halves = {"a": np.asarray(episode.action)[:, :1], "b": np.asarray(episode.action)[:, 1:]}
    data = WindowDataset([dataclasses.replace(episode, obs=halves)], WindowSpec(3, 2), obs_names=["a", "b"])
    np.testing.assert_array_equal(fit_relative_stats(data, ["a", "b"]).mean, [[0, 0], [1, -1]])
    np.testing.assert_array_equal(fit_relative_stats(data, ["b", "a"]).min[0], [0, -16])


def test_a_reference_of_another_width_is_refused() -> None:
    data = WindowDataset([make_episode(0, 9)], WindowSpec(1, 2), obs_names=["state"])
    with pytest.raises(ConfigError, match=r"\['state'\] join to 1 elements, the action has 2"):
        fit_relative_stats(data, ["state"])
