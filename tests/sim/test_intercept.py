import math

import numpy as np
import pytest

from robot_rl.errors import ConfigError, SpecError
from robot_rl.evaluation.rollouts import run_episode
from robot_rl.values import PolicyInput
from sim.intercept import PILLAR_CENTER_M, PILLAR_RADIUS_M, SPEC, InterceptEnv
from sim.intercept_expert import InterceptExpert
from tests.contracts.env import check_env
from tests.contracts.policy import check_policy


def here(tick) -> np.ndarray:
    return tick.obs["agent_pos"].copy()


def test_holds_the_contract():
    check_env(InterceptEnv, seed=50, n_steps=8)


def test_the_expert_holds_the_policy_contract():
    check_policy(InterceptExpert, SPEC, noise_shape=None)


def test_the_expert_catches_every_target_and_touches_no_pillar():
    env, expert = InterceptEnv(), InterceptExpert()
    results = [run_episode(env, expert, seed, record=False)[1] for seed in range(60)]
    assert all(result.success and result.terminated for result in results)
    assert 20 < np.mean([result.steps for result in results]) < 60


def test_holding_still_is_holding_still_without_gusts():
    env = InterceptEnv(gust_m_s2=0.0, max_steps=20)
    tick = env.reset(1)
    start = here(tick)
    while not tick.truncated:
        tick = env.step(start)
    np.testing.assert_allclose(here(tick), start, atol=1e-6)
    assert not tick.success


def test_the_servo_goes_where_it_is_told_no_faster_than_it_can():
    env = InterceptEnv(gust_m_s2=0.0, max_acceleration_m_s2=4.0)
    tick = env.reset(4)
    outside = np.asarray(PILLAR_CENTER_M) + (here(tick) - PILLAR_CENTER_M) * 1.05
    goal, speeds = outside.astype(np.float32), [0.0]
    for _ in range(40):
        tick = env.step(goal)
        speeds.append(float(np.linalg.norm(tick.obs["agent_vel"])))
    np.testing.assert_allclose(here(tick), goal, atol=1e-3)
    assert np.abs(np.diff(speeds)).max() <= 4.0 / 20 + 1e-6


def test_touching_the_pillar_ends_the_episode_without_success():
    env = InterceptEnv(gust_m_s2=0.0)
    tick = env.reset(0)
    while not (tick.terminated or tick.truncated):
        tick = env.step(np.array(PILLAR_CENTER_M, dtype=np.float32))
    assert tick.terminated
    assert not tick.success
    assert tick.info["hit"]
    assert np.linalg.norm(here(tick) - PILLAR_CENTER_M) < PILLAR_RADIUS_M + 0.02


def test_the_target_turns_at_the_rate_it_should_and_stays_on_its_ground():
    env, turns, ticks = InterceptEnv(turn_every_s=0.6, gust_m_s2=0.0, max_steps=400), 0, 0
    for seed in range(10):
        tick = env.reset(seed)
        hold, before = here(tick), tick.obs["target_vel"]
        while not (tick.terminated or tick.truncated):
            tick = env.step(hold)
            position, velocity = tick.obs["target_pos"].astype(float), tick.obs["target_vel"]
            assert (np.abs(position - 0.5) < 0.47).all()
            assert np.linalg.norm(position - PILLAR_CENTER_M) > PILLAR_RADIUS_M + 0.05
            assert np.linalg.norm(velocity) == pytest.approx(0.3, abs=1e-5)
            away = (np.abs(position - 0.5) < 0.43).all() and np.linalg.norm(position - 0.5) > 0.26
            if away:
                ticks += 1
                turns += not np.array_equal(velocity, before)
            before = velocity
    rate = turns / ticks
    expected = 1 - math.exp(-0.05 / 0.6)
    assert ticks > 1000
    assert abs(rate - expected) < 5 * math.sqrt(expected / ticks)


def test_the_expert_goes_round_either_side():
    env, sides = InterceptEnv(), []
    for seed in range(40):
        expert = InterceptExpert()
        tick = env.reset(seed)
        expert.act(PolicyInput(obs={name: value[None] for name, value in tick.obs.items()}, stamp_ns=0))
        sides.append(expert._side)
    assert sides.count(1.0) >= 8
    assert sides.count(-1.0) >= 8


def test_bad_numbers_and_missing_observations_are_named():
    with pytest.raises(ConfigError, match="`catch_m` must be positive, got 0"):
        InterceptEnv(catch_m=0)
    with pytest.raises(ConfigError, match="`gust_m_s2` must be 0 or more, got -1"):
        InterceptEnv(gust_m_s2=-1)
    tick = InterceptEnv().reset(0)
    obs = {name: value[None] for name, value in tick.obs.items() if name != "target_vel"}
    with pytest.raises(SpecError, match=r"the intercept expert needs observations \['target_vel'\]"):
        InterceptExpert().act(PolicyInput(obs=obs, stamp_ns=0))
