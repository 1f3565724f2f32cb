import numpy as np
import pytest

from robot_rl.deploy.history import ObsHistory
from robot_rl.errors import ConfigError, SpecError


def obs(i: int) -> dict[str, np.ndarray]:
    return {"q": np.full(2, i, dtype=np.float32), "image": np.full((4, 4, 3), i, dtype=np.uint8)}


def test_first_observation_stands_in_for_those_before_it():
    history = ObsHistory(3)
    assert history.push(obs(5))["q"][:, 0].tolist() == [5, 5, 5]
    assert history.push(obs(6))["q"][:, 0].tolist() == [5, 5, 6]
    assert history.push(obs(7))["q"][:, 0].tolist() == [5, 6, 7]
    stacked = history.push(obs(8))
    assert stacked["q"][:, 0].tolist() == [6, 7, 8]
    assert stacked["image"].dtype == np.uint8
    assert stacked["image"].shape == (3, 4, 4, 3)


def test_reset_forgets():
    history = ObsHistory(2)
    history.push(obs(1))
    history.reset()
    assert history.push(obs(9))["q"][:, 0].tolist() == [9, 9]


def test_history_keeps_copies():
    history, value = ObsHistory(2), obs(1)
    history.push(value)
    value["q"][:] = 99
    assert history.push(obs(2))["q"][:, 0].tolist() == [1, 2]


def test_bad_input():
    with pytest.raises(ConfigError, match="`n_obs` must be at least 1, got 0"):
        ObsHistory(0)
    history = ObsHistory(2)
    history.push(obs(1))
    with pytest.raises(SpecError, match=r"names must stay \['image', 'q'\], got \['q'\]; reset first"):
        history.push({"q": np.zeros(2)})
