"""Known answers of the agent's action unit (specs, off-policy: rows 27, 28)."""

import numpy as np
import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.rl.actions import ActionScaler


def test_the_demonstrated_range_is_widened_by_the_residuals_bound():
    scaler = ActionScaler.fit(np.array([-0.2]), np.array([0.4]))
    assert (scaler.middle[0], scaler.half[0]) == (pytest.approx(0.1), pytest.approx(0.33))
    assert scaler.to_agent(np.array([0.4]))[0] == pytest.approx(0.9090909)
    assert scaler.to_agent(np.array([0.4]))[0] + 0.1 == pytest.approx(1.0090909)


def test_there_and_back_is_the_identity_in_numpy_and_torch():
    scaler = ActionScaler.fit(np.array([-0.2, 3.0]), np.array([0.4, 9.0]))
    action = np.random.default_rng(0).normal(size=(5, 4, 2))
    np.testing.assert_allclose(scaler.to_physical(scaler.to_agent(action)), action, atol=1e-12)
    same = scaler.to_agent(torch.from_numpy(action))
    np.testing.assert_allclose(same.numpy(), scaler.to_agent(action), atol=1e-12)


def test_an_element_that_never_moves_has_the_floor_as_its_range():
    scaler = ActionScaler.fit(np.array([0.1]), np.array([0.1]))
    assert scaler.half[0] == pytest.approx(0.055)
    assert np.isfinite(scaler.to_agent(np.array([0.1]))).all()


def test_a_range_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="must be finite with low <= high"):
        ActionScaler.fit(np.array([1.0]), np.array([0.0]))
    with pytest.raises(ConfigError, match="`floor` must be positive"):
        ActionScaler.fit(np.array([0.0]), np.array([1.0]), floor=0.0)
