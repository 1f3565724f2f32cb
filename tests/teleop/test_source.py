import numpy as np
import pytest

import robot_rl.teleop
from robot_rl.errors import ConfigError, SpecError
from robot_rl.teleop.source import Speeds, TeleopState, with_deadband


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"twist": np.zeros(6), "joints": np.zeros(7)}, "either by `twist` or to `joints`, got both"),
        ({"gripper_width_m": 0.0, "gripper_rate_m_s": 0.0}, "either `gripper_width_m` or `gripper_rate_m_s`"),
        ({"twist": np.zeros(3)}, r"`twist` must have 6 elements \[m/s, rad/s\], got shape \(3,\)"),
        ({"joints": np.zeros((1, 7))}, r"`joints` must be a vector \[rad\], got shape \(1, 7\)"),
        ({"twist": np.array([0, 0, np.nan, 0, 0, 0])}, "`twist` must be finite"),
        ({"joints": np.array([np.inf])}, "`joints` must be finite"),
        ({"gripper_rate_m_s": float("nan")}, "`gripper_rate_m_s` must be finite"),
        ({"gripper_width_m": -0.001}, "`gripper_width_m` must not be negative, got -0.001"),
    ],
)
def test_a_state_that_says_nonsense_is_refused(fields, message):
    with pytest.raises(SpecError, match=message):
        TeleopState(stamp_ns=0, **fields)


def test_deflections_become_speeds_and_a_diagonal_is_not_faster():
    speeds = Speeds(linear_m_s=0.2, angular_rad_s=0.5)
    np.testing.assert_allclose(speeds.twist(np.array([1, 0, 0, 0, 0, -0.5])), [0.2, 0, 0, 0, 0, -0.25])
    np.testing.assert_allclose(speeds.twist(np.array([3, 4, 0, 0, 0, 0])), [0.12, 0.16, 0, 0, 0, 0])


def test_zero_switches_a_motion_off_and_nonsense_is_refused():
    assert not Speeds(linear_m_s=0.0).twist(np.ones(6))[:3].any()
    with pytest.raises(ConfigError, match=r"`angular_rad_s` must be zero or more, got -1"):
        Speeds(angular_rad_s=-1)
    with pytest.raises(ConfigError, match=r"`linear_m_s` must be zero or more, got nan"):
        Speeds(linear_m_s=float("nan"))


def test_the_deadband_is_continuous_and_keeps_the_ends():
    assert [with_deadband(x, 0.1) for x in (-1.0, -0.1, 0.05, 0.1, 1.0, 1.5)] == [-1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    assert with_deadband(0.55, 0.1) == pytest.approx(0.5)


def test_every_exported_name_is_there():
    assert all(hasattr(robot_rl.teleop, name) for name in robot_rl.teleop.__all__)
    assert robot_rl.teleop.__all__ == sorted(robot_rl.teleop.__all__)
