from __future__ import annotations

import numpy as np
import pytest

from robot_rl.errors import ConfigError, SimulationError
from sim.env import ArmEnv
from sim.robots import ARM7
from sim.tasks import Lift
from tests.contracts.env import check_env

HOME = np.append(np.asarray(ARM7.home), 0.08).astype(np.float32)


@pytest.fixture(scope="module")
def env():
    arm_env = ArmEnv()
    yield arm_env
    arm_env.close()


def test_lift_holds_the_contract():
    check_env(lambda: ArmEnv(max_steps=15), n_steps=8)


def test_lift_with_cameras_holds_the_contract():
    check_env(lambda: ArmEnv(max_steps=4, cameras=("front", "wrist"), image_size=(24, 32)), n_steps=3)


def test_spec_names_shapes_and_published_limits(env):
    spec = env.spec
    shapes = {name: (s.shape, s.dtype) for name, s in spec.obs.items()}
    assert shapes == {
        "joint_position": ((7,), "float32"), "joint_velocity": ((7,), "float32"), "gripper_width": ((1,), "float32"),
        "tcp_pose": ((9,), "float32"), "cube_pose": ((9,), "float32"),
    }  # fmt: skip
    assert (spec.name, spec.control_hz, spec.step_ns) == ("arm7", 20.0, 50_000_000)
    assert (spec.action.kind, spec.action.gripper, spec.action.shape) == ("joint_position", "width_m", (8,))
    assert spec.action.low == (-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973, 0.0)
    assert spec.action.high == (2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973, 0.08)


def test_observations_agree_with_forward_kinematics(env):
    obs = env.reset(5).obs
    T = ARM7.kinematics().forward(obs["joint_position"].astype(np.float64))
    np.testing.assert_allclose(obs["tcp_pose"], [*T[:3, 3], *T[:3, 0], *T[:3, 1]], atol=1e-6)
    np.testing.assert_array_equal(obs["joint_velocity"], np.zeros(7))
    assert obs["gripper_width"][0] == pytest.approx(0.08)
    np.testing.assert_allclose(obs["joint_position"], ARM7.home, atol=0.02)


def test_reset_spreads_over_the_area_and_nothing_else(env):
    cubes = np.stack([env.reset(seed).obs["cube_pose"] for seed in range(60)])
    x, y, z = cubes[:, :3].T
    assert 0.4 <= x.min() < 0.42 < 0.58 < x.max() <= 0.6
    assert -0.15 <= y.min() < -0.12 < 0.12 < y.max() <= 0.15
    np.testing.assert_allclose(z, 0.02, atol=1e-6)
    yaw = np.arctan2(cubes[:, 4], cubes[:, 3])
    assert np.abs(yaw).max() <= np.pi / 4 + 1e-6
    assert yaw.min() < -0.6 < 0.6 < yaw.max()


def test_holding_still_stays_put_and_the_cube_rests(env):
    start = env.reset(0)
    hold = np.append(start.obs["joint_position"], 0.08).astype(np.float32)
    for _ in range(20):
        tick = env.step(hold)
    # The arm's weight is cancelled, so it does not sag.
    np.testing.assert_allclose(tick.obs["joint_position"], start.obs["joint_position"], atol=1e-4)
    np.testing.assert_allclose(tick.obs["cube_pose"], start.obs["cube_pose"], atol=1e-3)
    assert tick.reward == 0.0
    assert not tick.success


def test_tracking_lags_by_damping_over_stiffness(env):
    """Position control with velocity damping follows a ramp kv/kp = 40 ms late (docs/simulation.md)."""
    target = np.append(env.reset(0).obs["joint_position"], 0.08).astype(np.float64)
    speed = 0.5
    for _ in range(16):
        target[0] += speed * 0.05
        tick = env.step(target.astype(np.float32))
    lag_s = (target[0] - tick.obs["joint_position"][0]) / speed
    assert lag_s == pytest.approx(0.04, abs=0.004)
    assert tick.obs["joint_velocity"][0] == pytest.approx(speed, abs=0.01)


def test_executed_action_is_clamped_to_speed_and_range(env):
    env.reset(0)
    start = np.asarray(env.step(HOME).action_executed, dtype=np.float64)
    wanted = HOME.copy()
    wanted[0], wanted[6], wanted[7] = 9.0, -9.0, -1.0
    tick = env.step(wanted)
    np.testing.assert_array_equal(tick.action, wanted)
    change = tick.action_executed - start
    np.testing.assert_allclose(change[[0, 6, 7]], [2.175 / 20, -2.61 / 20, -0.1 / 20], atol=1e-6)
    for _ in range(60):
        tick = env.step(wanted)
    np.testing.assert_allclose(tick.action_executed[[0, 6, 7]], [2.8973, -2.8973, 0.0], atol=1e-6)
    assert tick.obs["joint_position"][0] == pytest.approx(2.8973, abs=0.02)


def test_gripper_opens_and_closes_to_the_width_asked_for(env):
    env.reset(0)
    hold = HOME.copy()
    for width in (0.03, 0.06):
        hold[7] = width
        for _ in range(30):
            tick = env.step(hold)
        assert tick.obs["gripper_width"][0] == pytest.approx(width, abs=1e-3)


def test_truncates_at_max_steps_and_needs_a_reset():
    env = ArmEnv(max_steps=2)
    env.reset(0)
    assert not env.step(HOME).truncated
    tick = env.step(HOME)
    assert (tick.truncated, tick.terminated, tick.success) == (True, False, False)
    with pytest.raises(SimulationError, match="no episode is running"):
        env.step(HOME)


def test_diverged_physics_stops_the_episode(env):
    env.reset(0)
    env._data.qvel[:] = 1e12
    with pytest.raises(SimulationError, match=r"`arm7` with task `lift` diverged at step 0 .*BADQ"):
        env.step(HOME)
    with pytest.raises(SimulationError, match="no episode is running"):
        env.step(HOME)
    env.reset(0)
    env.step(HOME)


def test_settings_that_do_not_fit_are_named():
    with pytest.raises(ConfigError, match=r"`control_hz` must be 1 / \(n \* 0.002 s\).*got 30"):
        ArmEnv(control_hz=30)
    with pytest.raises(ConfigError, match=r"`control_hz`.*got 0"):
        ArmEnv(control_hz=0)
    with pytest.raises(ConfigError, match="max_steps >= 1"):
        ArmEnv(max_steps=0)
    with pytest.raises(ConfigError, match=r"no camera `top`; robot and scene have \['front', 'view', 'wrist'\]"):
        ArmEnv(cameras=("top",))
    with pytest.raises(ConfigError, match="lift: cube_size_m"):
        Lift(cube_size_m=0.0)
    with pytest.raises(ConfigError, match=r"`arm7` needs a gripper that opens more than 0.1 m, got 0.08 m"):
        ArmEnv(task=Lift(cube_size_m=0.1)).reset(0)


def test_another_control_rate_moves_as_far_per_second():
    env = ArmEnv(control_hz=50)
    target = np.append(env.reset(0).obs["joint_position"], 0.08).astype(np.float32)
    target[0] += 2.0
    for _ in range(10):
        tick = env.step(target)
    assert tick.stamp_ns == 200_000_000
    assert tick.action_executed[0] - target[0] + 2.0 == pytest.approx(0.2 * 2.175, abs=1e-5)
