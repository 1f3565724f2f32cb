"""Planar features against geometry worked out by hand and by complex numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policies.planar import PlanarEncoder
from robot_rl.errors import ConfigError
from tests.policies.helpers import SPEC, STATS

GOAL = (256.0, 256.0, np.pi / 4)


def _encoder(**changes: object) -> PlanarEncoder:
    settings = {
        "n_obs": 2, "point": "agent_pos", "body": "block_pose", "goal": GOAL, "arena": 256.0, "size": 100.0,
        "near": 15.0, "near_rad": 0.15, "speed": 20.0,
    }  # fmt: skip
    return PlanarEncoder(SPEC, STATS, **(settings | changes))


def _obs(point: list[list[float]], body: list[list[float]]) -> dict[str, torch.Tensor]:
    return {"agent_pos": torch.tensor([point]), "block_pose": torch.tensor([body])}


def test_on_the_goal_and_at_rest_every_error_and_motion_is_zero() -> None:
    features = _encoder().steps(_obs([[300.0, 256.0]] * 2, [list(GOAL)] * 2))[0, 1]
    np.testing.assert_allclose(features[8:10], 0.0, atol=1e-6)  # goal in the body's frame
    np.testing.assert_allclose(features[10:12], [0.0, 1.0], atol=1e-6)  # sine and cosine of the angle error
    np.testing.assert_allclose(features[12:], 0.0, atol=1e-6)


@given(st.tuples(*[st.floats(50, 450)] * 2), st.tuples(*[st.floats(50, 450)] * 2), st.floats(-7, 7), st.floats(-10, 10))
def test_features_agree_with_complex_numbers(
    point: tuple[float, float], place: tuple[float, float], angle: float, moved: float
) -> None:
    before, after = [point[0] - moved, point[1]], list(point)
    body = [*place, angle]
    f = _encoder().steps(_obs([before, after], [body, body]))[0, 1].double().numpy()
    turn_back = np.exp(-1j * angle)
    in_body = (complex(*point) - complex(*place)) * turn_back / 100
    goal = complex(256, 256) - complex(*place)
    np.testing.assert_allclose(f[6:8], [in_body.real, in_body.imag], atol=1e-4)
    np.testing.assert_allclose(f[8:10], [(goal * turn_back).real / 100, (goal * turn_back).imag / 100], atol=1e-4)
    np.testing.assert_allclose(f[10:12], [np.sin(angle - GOAL[2]), np.cos(angle - GOAL[2])], atol=1e-4)
    np.testing.assert_allclose(f[12:14], np.tanh([goal.real / 15, goal.imag / 15]), atol=1e-4)
    np.testing.assert_allclose(f[17:19], [moved / 20, 0.0], atol=1e-4)


def test_a_whole_turn_of_the_body_changes_nothing() -> None:
    encoder = _encoder()
    once = encoder(_obs([[100.0, 120.0]] * 2, [[200.0, 210.0, 0.3]] * 2))
    again = encoder(_obs([[100.0, 120.0]] * 2, [[200.0, 210.0, 0.3 + 2 * np.pi]] * 2))
    torch.testing.assert_close(once, again, atol=1e-4, rtol=0)


def test_the_oldest_step_has_no_motion() -> None:
    features = _encoder().steps(_obs([[100.0, 100.0], [120.0, 100.0]], [[200.0, 200.0, 0.0], [210.0, 200.0, 0.1]]))
    assert features[0, 0, 17:].abs().max() == 0
    np.testing.assert_allclose(features[0, 1, 17:], [1.0, 0.0, 1.0, 0.0, 10 * np.sin(0.1)], atol=1e-5)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs `block_pose` of shape \(2,\), got \(3,\)"):
        _encoder(point="block_pose")
    with pytest.raises(ConfigError, match=r"must be positive, got \[\('near', 0.0\)\]"):
        _encoder(near=0.0)
    with pytest.raises(ConfigError, match="`goal` must be x, y, angle"):
        _encoder(goal=(1.0, 2.0))
