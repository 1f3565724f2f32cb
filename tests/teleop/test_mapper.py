"""Twists and joint angles become targets that start where the arm is and never run away from it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.errors import ConfigError, SpecError
from robot_rl.teleop.mapper import ArmKinematics, CartesianMapper, JointMapper, MapperLimits
from robot_rl.teleop.source import TeleopState
from sim.robots import ARM7

MS = 1_000_000
S = 1_000 * MS
HOME = np.array(ARM7.home)
POSE = np.append(HOME, 0.06)
ARM = ARM7.kinematics()
WIDE = {"joint_speed_rad_s": 10.0, "lag_rad": 10.0}


def twist(now_ns: int, *values: float, **fields) -> TeleopState:
    return TeleopState(stamp_ns=now_ns, engaged=True, twist=np.array([*values, *[0.0] * (6 - len(values))]), **fields)


def drive(mapper, state_at, ticks: int, *, measured=POSE, follow: bool = True, start_ns: int = S):
    """Step at 50 Hz with an arm that follows at once (or stands still); return every command."""
    commands = []
    for n in range(ticks):
        now = start_ns + n * 20 * MS
        commands.append(mapper.step(state_at(now), measured, now))
        measured = commands[-1] if follow else measured
    return np.array(commands)


def test_our_kinematics_is_what_the_mapper_asks_for():
    assert isinstance(ARM, ArmKinematics)


def test_the_first_command_is_the_measured_pose_whatever_the_twist():
    mapper = CartesianMapper(ARM)
    np.testing.assert_array_equal(mapper.step(twist(S, 1, 1, 1, 1, 1, 1, gripper_rate_m_s=1.0), POSE, S), POSE)


def test_a_twist_moves_the_tool_in_the_base_frame_at_its_speed():
    commands = drive(CartesianMapper(ARM, MapperLimits(**WIDE)), lambda now: twist(now, 0.05, -0.1, 0.08), 26)
    T0, T1 = ARM.forward(HOME), ARM.forward(commands[-1, :7])
    np.testing.assert_allclose(T1[:3, 3] - T0[:3, 3], np.array([0.05, -0.1, 0.08]) * 0.5, atol=5e-4)
    np.testing.assert_allclose(T1[:3, :3], T0[:3, :3], atol=2e-3)


def test_a_turn_is_about_the_axis_of_the_base():
    commands = drive(CartesianMapper(ARM, MapperLimits(**WIDE)), lambda now: twist(now, 0, 0, 0, 0, 0, 0.6), 26)
    T0, T1 = ARM.forward(HOME), ARM.forward(commands[-1, :7])
    c, s = np.cos(0.3), np.sin(0.3)
    np.testing.assert_allclose(T1[:3, :3] @ T0[:3, :3].T, [[c, -s, 0], [s, c, 0], [0, 0, 1]], atol=2e-3)
    np.testing.assert_allclose(T1[:3, 3], T0[:3, 3], atol=5e-4)


def test_speed_scales_motion_and_gripper():
    mapper = CartesianMapper(ARM, MapperLimits(speed=0.25, **WIDE))
    commands = drive(mapper, lambda now: twist(now, 0, 0, 0.1, gripper_rate_m_s=-0.1), 26)
    lifted = ARM.forward(commands[-1, :7])[2, 3] - ARM.forward(HOME)[2, 3]
    assert lifted == pytest.approx(0.25 * 0.1 * 0.5, abs=2e-4)
    assert commands[-1, 7] == pytest.approx(0.06 - 0.25 * 0.1 * 0.5)


def test_no_twist_holds_still():
    commands = drive(CartesianMapper(ARM), lambda now: twist(now), 50)
    np.testing.assert_array_equal(commands, np.broadcast_to(POSE, (50, 8)))


def test_opening_the_clutch_ends_commands_and_closing_it_starts_from_the_measured_pose():
    mapper = CartesianMapper(ARM)
    drive(mapper, lambda now: twist(now, 0.1), 10)
    assert mapper.step(TeleopState(stamp_ns=2 * S), POSE, 2 * S) is None
    moved = POSE + np.array([0.05] * 7 + [-0.02])
    np.testing.assert_array_equal(mapper.step(twist(3 * S, 0.1), moved, 3 * S), moved)


def test_a_stale_state_never_drives():
    mapper = CartesianMapper(ARM)
    assert mapper.step(twist(S, 0.1), POSE, S + 100 * MS) is not None
    assert mapper.step(twist(S, 0.1), POSE, S + 101 * MS) is None
    assert mapper.step(twist(S, 0.1), POSE, S - 1) is None  # from the future: a clock jumped


def test_a_late_tick_moves_no_farther_than_the_time_out():
    mapper = CartesianMapper(ARM, MapperLimits(**WIDE))
    mapper.step(twist(S, 0, 0, 0.1), POSE, S)
    late = mapper.step(twist(9 * S, 0, 0, 0.1), POSE, 9 * S)
    assert ARM.forward(late[:7])[2, 3] - ARM.forward(HOME)[2, 3] == pytest.approx(0.01, abs=2e-4)


def test_out_of_reach_the_target_waits_so_that_turning_back_takes_effect_at_once():
    mapper = CartesianMapper(ARM, MapperLimits(**WIDE))
    out = drive(mapper, lambda now: twist(now, 0.5), 150)
    stuck = ARM.forward(out[-1, :7])[0, 3]
    back = drive(mapper, lambda now: twist(now, -0.1), 26, measured=out[-1], start_ns=S + 150 * 20 * MS)
    assert ARM.forward(back[-1, :7])[0, 3] < stuck - 0.03
    assert (out[:, :7] <= ARM.high + 1e-9).all()
    assert (out[:, :7] >= ARM.low - 1e-9).all()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_no_joint_is_faster_than_its_limit_whatever_the_twist(values):
    mapper = CartesianMapper(ARM, MapperLimits(joint_speed_rad_s=0.5, lag_rad=10.0))
    commands = drive(mapper, lambda now: twist(now, *values), 20)
    assert np.abs(np.diff(commands[:, :7], axis=0)).max() <= 0.5 * 0.02 + 1e-9


def test_an_arm_that_cannot_follow_is_not_left_behind():
    mapper = CartesianMapper(ARM, MapperLimits(lag_rad=0.05))
    commands = drive(mapper, lambda now: twist(now, 0, 0, -0.3), 100, follow=False)
    assert np.abs(commands[:, :7] - HOME).max() <= 0.05 + 1e-12


def test_the_gripper_keeps_to_its_opening_and_speed():
    mapper = CartesianMapper(ARM, MapperLimits(gripper_speed_m_s=0.1))
    widths = drive(mapper, lambda now: twist(now, gripper_rate_m_s=5.0), 30)[:, 7]
    assert np.diff(widths).max() <= 0.1 * 0.02 + 1e-12
    assert widths[-1] == 0.08
    widths = drive(mapper, lambda now: twist(now, gripper_width_m=0.01), 60, start_ns=9 * S)[:, 7]
    assert widths[-1] == pytest.approx(0.01)
    arm_only = CartesianMapper(ARM, MapperLimits(gripper_width_m=0.0))
    assert arm_only.step(twist(S), HOME, S).shape == (7,)


def test_a_leader_moves_the_arm_from_where_both_stand():
    mapper = JointMapper(ARM.low, ARM.high, MapperLimits(**WIDE))
    leader = np.linspace(-1.0, 1.0, 7)

    def state(now: int) -> TeleopState:
        return TeleopState(stamp_ns=now, engaged=True, joints=leader + 0.1 * (now - S) / S)

    commands = drive(mapper, state, 51)
    np.testing.assert_array_equal(commands[0], POSE)
    np.testing.assert_allclose(commands[-1, :7], HOME + 0.1, atol=1e-12)


def test_a_script_goes_to_its_own_angles_no_faster_than_the_limit():
    mapper = JointMapper(ARM.low, ARM.high, MapperLimits(joint_speed_rad_s=0.5), relative=False)
    target = HOME + np.array([0.2, -0.1, 0, 0, 0, 0, 0.05])
    commands = drive(mapper, lambda now: TeleopState(stamp_ns=now, engaged=True, joints=target), 40)
    np.testing.assert_array_equal(commands[0], POSE)
    np.testing.assert_allclose(commands[1, :7] - HOME, (target - HOME) * (0.01 / 0.2), atol=1e-12)
    np.testing.assert_allclose(commands[-1, :7], target, atol=1e-12)
    beyond = JointMapper(ARM.low, ARM.high, MapperLimits(**WIDE), relative=False)
    wild = drive(beyond, lambda now: TeleopState(stamp_ns=now, engaged=True, joints=np.full(7, 9.0)), 80)
    np.testing.assert_allclose(wild[-1, :7], ARM.high)


def test_mistakes_are_named():
    with pytest.raises(SpecError, match=r"`measured` must be 8 finite numbers \(joints, gripper width\)"):
        CartesianMapper(ARM).step(twist(S), HOME, S)
    with pytest.raises(SpecError, match="use JointMapper"):
        CartesianMapper(ARM).step(TeleopState(stamp_ns=S, engaged=True, joints=HOME), POSE, S)
    with pytest.raises(SpecError, match="needs 7 joint angles from its device, got none"):
        JointMapper(ARM.low, ARM.high).step(twist(S), POSE, S)
    with pytest.raises(ConfigError, match=r"need speed <= 1 and state_timeout_s > 0, got 2.0"):
        MapperLimits(speed=2.0)
    with pytest.raises(ConfigError, match=r"`lag_rad` must be zero or more, got nan"):
        MapperLimits(lag_rad=float("nan"))
    with pytest.raises(ConfigError, match="joint limits contradict"):
        JointMapper(ARM.high, ARM.low)
