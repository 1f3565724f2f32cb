"""A loop faster than its policy: straight lines from row to row, and the same motion as at the policy's own rate."""

import numpy as np
import pytest

from robot_rl.deploy.clock import SimulatedClock
from robot_rl.deploy.loop import ControlLoop
from robot_rl.deploy.policy_grid import PolicyGrid, Retimed
from robot_rl.deploy.runners import SyncRunner
from robot_rl.deploy.safety import UNLIMITED, SafetyFilter, SafetyLimits
from robot_rl.errors import ConfigError, SafetyStop
from robot_rl.values import ActionChunk, PolicyInput, Tick
from sim.env import ArmEnv
from tests.deploy.test_loop import START, STEP, PointEnv, RampPolicy, delayed, free

FAST = STEP // 25  # 500 Hz beside 20 Hz


def drive(env: PointEnv, policy: RampPolicy, *, ticks: int, **kwargs) -> tuple[list[Tick], ControlLoop]:
    seen: list[Tick] = []
    loop = ControlLoop(
        env, policy, kwargs.pop("safety", free()), rest_action=lambda obs: obs["q"], clock=env.clock,
        on_tick=seen.append, control_hz=kwargs.pop("control_hz", 500.0), policy_hz=20.0, **kwargs,
    )  # fmt: skip
    loop.run(seed=0, ticks=ticks)
    return seen, loop


def commands(seen: list[Tick]) -> np.ndarray:
    return np.array([tick.action[0] for tick in seen[1:]])


class Stairs(RampPolicy):
    """Row h of the n-th chunk is 10 n + h; the first chunk starts at 1."""

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        self.asked.append(policy_input)
        rows = 10.0 * (len(self.asked) - 1) + np.arange(self.horizon)[:, None] + 1
        return ActionChunk(policy_input.stamp_ns, STEP, np.repeat(rows, 2, axis=1))


def test_each_row_is_reached_at_the_last_tick_of_its_step_in_equal_steps():
    seen, _ = drive(PointEnv(SimulatedClock(START)), Stairs(n_execute=2), ticks=100, make_runner=SyncRunner)
    # Rows 1, 2 of the first chunk and 11, 12 of the second: straight lines 0 -> 1 -> 2 -> 11 -> 12.
    expected = np.interp(np.arange(1, 101), [0, 25, 50, 75, 100], [0, 1, 2, 11, 12])
    np.testing.assert_allclose(commands(seen), expected, atol=1e-9)
    assert commands(seen)[[24, 49, 74, 99]].tolist() == [1, 2, 11, 12]  # exactly, without rounding


def test_the_policy_observes_and_is_asked_at_its_own_rate():
    policy = Stairs(n_execute=2)
    drive(PointEnv(SimulatedClock(START)), policy, ticks=101, make_runner=SyncRunner)
    assert [(given.stamp_ns - START - FAST) / STEP for given in policy.asked] == [0, 2, 4]
    np.testing.assert_allclose(policy.asked[1].obs["q"][:, 0], [1, 2])  # one policy step apart, not one tick


def test_no_command_leaves_the_way_between_the_last_one_and_the_row():
    """Whatever ticks are slept through: never beyond the row, never back, and on it when its step ends."""
    rng = np.random.default_rng(0)
    grid, last, tick, row = PolicyGrid(500.0, 20.0), np.zeros(2), 0, np.zeros(2)
    grid.start(0)
    for _ in range(2000):
        if grid.due(tick):
            row = rng.normal(size=2)
        command = grid.toward(last, row, tick)
        assert (command >= np.minimum(last, row) - 1e-12).all()
        assert (command <= np.maximum(last, row) + 1e-12).all()
        if (tick + FAST) % STEP == 0:
            np.testing.assert_array_equal(command, row)
        last, tick = command, grid.snap(tick + FAST * int(rng.choice([1, 1, 1, 1, 4, 30])))


def test_late_chunks_and_overruns_never_make_the_loop_overshoot():
    costs = np.random.default_rng(0).choice([0, 0, 0, 3 * FAST, STEP + 7], size=600)
    env, policy = PointEnv(SimulatedClock(START), cost=lambda n: int(costs[n])), Stairs(n_execute=4, horizon=5)
    seen, _ = drive(env, policy, ticks=600, make_runner=delayed(0.5, 2.5, 0.7), safety=free(command_gap_s=5.0))
    promised = 10.0 * (len(policy.asked) - 1) + policy.horizon
    assert len(seen) == 601
    assert len(policy.asked) > 20
    assert (np.diff(commands(seen)) >= 0).all()  # rows rise, so a command that fell would have left the way
    assert commands(seen).max() <= promised


def test_without_interpolation_a_row_is_commanded_as_a_whole():
    seen, _ = drive(
        PointEnv(SimulatedClock(START)), Stairs(n_execute=2), ticks=50, make_runner=SyncRunner, interpolate=False
    )
    assert commands(seen).tolist() == [1.0] * 25 + [2.0] * 25


def test_a_starved_loop_holds_where_it_is():
    seen, _ = drive(PointEnv(SimulatedClock(START)), Stairs(n_execute=9), ticks=75, make_runner=delayed(1.4, 99))
    held = commands(seen)
    assert held[:50].tolist() == [0.0] * 50  # no chunk before 70 ms; its row of 100 ms is the first in time
    assert held[74] == 3.0


def test_a_stop_of_the_policy_between_its_ticks_holds():
    class Fails(Stairs):
        def act(self, policy_input: PolicyInput) -> ActionChunk:
            if len(self.asked) == 1:
                raise SafetyStop("NaN")
            return super().act(policy_input)

    seen, _ = drive(PointEnv(SimulatedClock(START)), Fails(n_execute=1), ticks=75, make_runner=delayed(0.5))
    assert len(seen) - 1 < 75
    assert seen[-1].action_executed.tolist() == seen[-2].action_executed.tolist()


def test_rounded_periods_do_not_let_the_grids_drift_apart():
    """30 Hz in 300 Hz: neither period is a whole number of nanoseconds."""
    grid, tick, due, left = PolicyGrid(300.0, 30.0), 0, [], []
    grid.start(0)
    zero, one = np.zeros(1), np.ones(1)
    for n in range(3000):
        if grid.due(tick):
            due.append(n)
        left.append(grid.toward(zero, one, tick)[0])
        tick = grid.snap(tick + grid.step_ns)
    assert due == list(range(0, 3000, 10))
    np.testing.assert_allclose(left[:10], 1 / np.arange(10, 0, -1))
    assert tick == 300 * 33_333_333


def test_a_slept_through_tick_of_the_policy_is_due_at_the_next():
    grid = PolicyGrid(500.0, 20.0)
    grid.start(1000)
    assert grid.due(1000)
    assert not grid.due(1000 + STEP - FAST)
    assert grid.due(1000 + STEP + 3 * FAST)
    assert not grid.due(1000 + STEP + 4 * FAST)
    assert grid.toward(np.zeros(1), np.ones(1), 1000 + STEP + 5 * FAST).item() == pytest.approx(1 / 20)
    assert grid.due(1000 + 2 * STEP)


@pytest.mark.parametrize(("fast", "slow"), [(30.0, 20.0), (10.0, 20.0), (0.0, 20.0), (20.0, float("inf"))])
def test_rates_that_do_not_go_together_are_refused(fast, slow):
    with pytest.raises(ConfigError, match=r"must be positive|must be a whole multiple of the 20 Hz"):
        PolicyGrid(fast, slow)


def test_deltas_are_never_carried_out_more_than_once():
    with pytest.raises(ConfigError, match="would carry out each action of kind 'delta_pose' 25 times"):
        drive(PointEnv(SimulatedClock(START), kind="delta_pose"), Stairs(), ticks=1, hold=np.zeros_like)


class Waves:
    """Joint targets that swing; the same at the same time since the first request."""

    n_obs, n_execute = 2, 4

    def __init__(self, home: np.ndarray) -> None:
        self.home, self.asked = home, []

    def reset(self) -> None:
        self.asked = []

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        self.asked.append(policy_input)
        since = (policy_input.stamp_ns - self.asked[0].stamp_ns) / 1e9 + 0.05 * np.arange(8)
        swing = 0.15 * np.sin(4.0 * since)[:, None] * np.array([1.0] * 7 + [0.1])
        return ActionChunk(policy_input.stamp_ns, STEP, (self.home + swing).astype(np.float32))


def test_the_simulated_arm_moves_as_it_does_at_the_policys_own_rate():
    """Between two ticks at 20 Hz the arm's targets move in straight lines; at 500 Hz the loop draws the same lines."""
    slow = ArmEnv()
    fast = slow.at_rate(500.0)
    assert isinstance(slow, Retimed)
    states, asked = {}, {}
    for env, every in ((slow, 1), (fast, 25)):
        clock, seen = SimulatedClock(START), []
        tick = env.reset(3)
        home = np.concatenate([tick.obs["joint_position"], tick.obs["gripper_width"]])
        policy = Waves(home)
        limits = dict.fromkeys(("low", "high", "velocity", "acceleration", "start_jump", "workspace"), UNLIMITED)
        safety = SafetyFilter(
            SafetyLimits(8, **limits, obs_age_s=9.0, command_gap_s=9.0, slow_start_s=0.0), step_ns=env.spec.step_ns
        )
        loop = ControlLoop(
            env, policy, safety, policy_hz=20.0, clock=clock, make_runner=SyncRunner, on_tick=seen.append,
            rest_action=lambda obs: np.concatenate([obs["joint_position"], obs["gripper_width"]]),
            obs_names=["joint_position"],
        )  # fmt: skip
        loop.run(seed=3, ticks=20 * every)
        env.close()
        states[every] = np.array([tick.obs["joint_position"] for tick in seen[::every]])
        asked[every] = np.array([given.obs["joint_position"] for given in policy.asked])
    assert np.ptp(states[1], axis=0).min() > 0.05
    np.testing.assert_allclose(states[25], states[1], atol=2e-4)
    np.testing.assert_allclose(asked[25], asked[1], atol=2e-4)


def test_an_episode_at_another_rate_lasts_as_long():
    env = ArmEnv(max_steps=4).at_rate(100.0)
    tick, n = env.reset(0), 0
    hold = np.concatenate([tick.obs["joint_position"], tick.obs["gripper_width"]]).astype(np.float32)
    while not tick.truncated:
        tick, n = env.step(hold), n + 1
    env.close()
    assert n == 20
    assert env.spec.control_hz == 100
