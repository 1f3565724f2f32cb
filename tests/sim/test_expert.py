from __future__ import annotations

import numpy as np
import pytest

from robot_rl.errors import ConfigError, SpecError
from robot_rl.interfaces import Policy
from robot_rl.values import PolicyInput
from sim.env import ArmEnv
from sim.expert import LiftExpert, Phase
from sim.robots import ARM7, load_robot


@pytest.fixture(scope="module")
def env():
    return ArmEnv()


@pytest.fixture(scope="module")
def expert():
    return LiftExpert()


def ask(expert, tick):
    return expert.act(PolicyInput(obs={k: v[None] for k, v in tick.obs.items()}, stamp_ns=tick.stamp_ns))


def lift(env, expert, seed):
    tick = env.reset(seed)
    expert.reset()
    ticks, phases = [tick], []
    while not (tick.terminated or tick.truncated):
        tick = env.step(ask(expert, tick).action[0])
        ticks.append(tick)
        phases.append(expert.phase)
    return ticks, phases


def test_lifts_ten_cubes(env, expert):
    assert isinstance(expert, Policy)
    for seed in range(10):
        ticks, phases = lift(env, expert, seed)
        assert ticks[-1].terminated
        assert ticks[-1].success
        assert ticks[-1].reward == 1.0
        assert sum(tick.reward for tick in ticks) == 1.0
        assert ticks[-1].obs["cube_pose"][2] - 0.02 > 0.095
        assert 35 <= len(phases) <= 90
        order = [phase for n, phase in enumerate(phases) if n == 0 or phase is not phases[n - 1]]
        assert order == [Phase.APPROACH, Phase.DESCEND, Phase.CLOSE, Phase.LIFT]
        assert phases.count(Phase.CLOSE) <= 12


def test_actions_are_smooth_and_within_limits(env, expert):
    ticks, _ = lift(env, expert, 3)
    actions = np.stack([tick.action for tick in ticks[1:]])
    executed = np.stack([tick.action_executed for tick in ticks[1:]])
    np.testing.assert_array_equal(executed[:, :7], actions[:, :7])  # nothing was clamped but the gripper's speed
    acceleration = np.abs(np.diff(actions[:, :7], n=2, axis=0)) * 20.0**2
    assert (acceleration.max(axis=0) < ARM7.acceleration_limit).all()
    assert set(np.unique(actions[:, 7])) == {np.float32(0.0), np.float32(0.08)}


def test_an_episode_repeats_whatever_came_before_and_differs_by_seed(env, expert):
    first = np.stack([tick.action for tick in lift(env, expert, 1)[0][1:]])
    lift(env, expert, 2)
    again = np.stack([tick.action for tick in lift(env, expert, 1)[0][1:]])
    np.testing.assert_array_equal(first, again)
    other = np.stack([tick.action for tick in lift(env, LiftExpert(seed=1), 1)[0][1:]])
    n = min(len(first), len(other))
    assert np.abs(first[:n] - other[:n]).max() > 1e-3


def test_goes_back_for_a_cube_that_was_taken_away(env, expert):
    tick = env.reset(4)
    expert.reset()
    while expert.phase is not Phase.CLOSE:
        tick = env.step(ask(expert, tick).action[0])
    env._data.joint("cube").qpos[:2] += [0.0, -0.1]
    phases = []
    while not (tick.terminated or tick.truncated):
        tick = env.step(ask(expert, tick).action[0])
        phases.append(expert.phase)
    assert Phase.APPROACH in phases
    assert tick.success


def test_chunk_is_due_now_and_one_action_long(env, expert):
    expert.reset()
    tick = env.reset(0)
    chunk = ask(expert, tick)
    assert (chunk.start_ns, chunk.step_ns, chunk.action.shape) == (tick.stamp_ns, 50_000_000, (1, 8))
    env.spec.action.validate(chunk.action[0])
    assert (expert.n_obs, expert.n_execute) == (1, 1)


def test_mistakes_are_named(env, expert):
    obs = {k: v[None] for k, v in env.reset(0).obs.items() if k != "cube_pose"}
    with pytest.raises(SpecError, match=r"needs observations \['cube_pose'\]; got"):
        expert.act(PolicyInput(obs=obs, stamp_ns=0))
    with pytest.raises(SpecError, match=r"`cube_pose` must be float32\(\*, 9\) \[m, rot6d\], got float64"):
        expert.act(PolicyInput(obs={**obs, "cube_pose": np.zeros((1, 9))}, stamp_ns=0))
    with pytest.raises(ConfigError, match="`arm7` has none"):
        LiftExpert(load_robot(gripper=None))
