"""The arm that goes on by itself: targets, time-out, faults, homing; stepped by the test instead of by time."""

import numpy as np
import pytest

from robot_rl.errors import ConfigError, SimulationError
from sim.env import ArmEnv
from sim.realtime import RealtimeArm
from sim.robots import ARM7

PERIOD = 5  # physics steps of a command period, 10 ms


def drive(arm: RealtimeArm, target: np.ndarray, seconds: float) -> np.ndarray:
    for _ in range(round(seconds / 0.01)):
        arm.set_target(target)
        arm.step(PERIOD)
    return arm.observe().position


def test_starts_where_the_environment_starts_for_the_same_seed():
    arm, env = RealtimeArm(), ArmEnv()
    for seed in (0, 5):
        arm.reset(seed)
        tick = env.reset(seed)
        state = arm.observe()
        assert state.position[:7] == pytest.approx(tick.obs["joint_position"], abs=1e-6)
        assert state.objects["cube_pose"] == pytest.approx(tick.obs["cube_pose"], abs=1e-6)
        assert state.tcp_pose == pytest.approx(tick.obs["tcp_pose"], abs=1e-6)


def test_follows_and_reports_rates():
    arm = RealtimeArm()
    start = arm.observe().position
    target = start.copy()
    target[0] += 0.3
    target[7] = 0.02
    drive(arm, target, 0.1)
    moving = arm.observe()
    assert moving.velocity[0] > 0.5
    assert moving.velocity[7] == pytest.approx(-0.1, abs=0.03)
    assert drive(arm, target, 1.5) == pytest.approx(target, abs=5e-3)
    assert arm.names == (*ARM7.joints, "gripper")


def test_targets_move_no_faster_than_the_joints_may():
    arm = RealtimeArm()
    start = arm.observe().position
    target = start.copy()
    target[0] += 2.0
    after = drive(arm, target, 0.5)
    assert 0.9 * 0.46 * 2.175 < after[0] - start[0] < 0.5 * 2.175  # the controller lags 40 ms


def test_holds_when_commands_stop():
    arm = RealtimeArm(command_timeout_s=0.1)
    target = arm.observe().position
    target[0] += 2.0
    drive(arm, target, 0.2)
    arm.step(44)  # 98 ms since the command
    assert not arm.holding
    arm.step(3)
    assert arm.holding
    arm.step(200)
    held = arm.observe()
    arm.step(200)
    assert arm.observe().position == pytest.approx(held.position, abs=1e-4)
    assert held.position[0] < 0.3 * 2.175 + 0.05


def test_a_command_that_no_arm_can_follow_is_a_fault_until_cleared():
    arm = RealtimeArm()
    start = arm.observe().position
    arm.set_target(np.full(8, np.inf))
    assert "command must be 8 finite numbers, got [inf" in arm.fault
    assert drive(arm, start + 0.1, 0.3) == pytest.approx(start, abs=1e-3)
    arm.clear_fault()
    assert arm.fault == ""
    assert drive(arm, start - 0.02, 0.5) == pytest.approx(start - 0.02, abs=2e-3)


def test_diverged_physics_is_a_fault_that_only_a_reset_ends():
    arm = RealtimeArm()
    arm._data.qpos[0] = np.nan
    arm.step(2)
    assert arm.fault == "the physics of `arm7` diverged; reset it"
    arm.reset(0)
    assert arm.fault == ""
    arm.step(10)
    assert np.isfinite(arm.observe().position).all()


def test_homing_ignores_commands_and_disabling_ends_it():
    arm = RealtimeArm()
    away = arm.observe().position
    away[0] += 0.3
    drive(arm, away, 1.0)
    arm.go_home()
    drive(arm, away, 0.5)
    assert arm.observe().position[0] == pytest.approx(0.3 - 0.5 * 0.46, abs=0.02)  # 0.5 rad/s, 40 ms late
    arm.step(250)
    assert arm.observe().position[:7] == pytest.approx(np.array(ARM7.home), abs=0.012)
    arm.enable(False)
    with pytest.raises(SimulationError, match="cannot go home: the arm is disabled"):
        arm.go_home()
    start = arm.observe().position
    assert drive(arm, start + 0.1, 0.2) == pytest.approx(start, abs=1e-3)


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match="need command_timeout_s > 0"):
        RealtimeArm(command_timeout_s=0.0)
