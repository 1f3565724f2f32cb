import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.evaluation.delayed_env import DelayedEnv
from robot_rl.latency_calibration import LatencyCalibration, LatencySamples
from sim.pusht import PushTEnv
from tests.contracts.env import check_env
from tests.evaluation.point_mass import STEP_NS, PointMass


def late(*, position: float = 0.0, action: float = 0.0, count: int = 40) -> DelayedEnv:
    """The point mass with latencies in control steps."""
    cell = LatencyCalibration(
        observation={"position": LatencySamples(np.array([position * STEP_NS]))},
        action=LatencySamples(np.array([action * STEP_NS])),
    )
    return DelayedEnv(PointMass(count), cell, hold=lambda tick: np.zeros(1, np.float32))


def test_a_delayed_environment_keeps_the_contract() -> None:
    cell = LatencyCalibration(
        observation={"agent_pos": LatencySamples(np.array([150_000_000]))},
        action=LatencySamples(np.array([50_000_000])),
    )
    check_env(lambda: DelayedEnv(PushTEnv(), cell, hold=lambda tick: tick.obs["agent_pos"]))


def test_an_action_arrives_late_and_the_arm_holds_before() -> None:
    env = late(action=2.0)
    env.reset(seed=9)
    moved = [float(env.step(np.array([0.1], np.float32)).obs["position"][0]) for _ in range(4)]
    np.testing.assert_allclose(moved, [0.9, 0.9, 1.0, 1.1], atol=1e-6)


def test_an_observation_is_shown_late_and_others_are_not() -> None:
    env = late(position=3.0)
    env.reset(seed=9)
    ticks = [env.step(np.array([0.1], np.float32)) for _ in range(5)]
    np.testing.assert_allclose([float(t.obs["position"][0]) for t in ticks], [0.9, 0.9, 0.9, 1.0, 1.1], atol=1e-6)
    assert [int(t.obs["count"][0]) for t in ticks] == [1, 2, 3, 4, 5]
    assert ticks[-1].reward == pytest.approx(-1.4)


def test_latencies_between_steps_are_right_on_average_and_repeat_with_the_seed() -> None:
    env = late(action=1.3)
    steps = []
    for seed in range(300):
        env.reset(seed)
        steps.append(env.action_steps)
    assert set(steps) == {1, 2}
    assert np.mean(steps) == pytest.approx(1.3, abs=0.1)
    env.reset(7)
    assert env.action_steps == steps[7]


def test_a_latency_of_an_unknown_stream_is_refused() -> None:
    cell = LatencyCalibration(observation={"camera": LatencySamples(np.array([1]))})
    with pytest.raises(ConfigError, match=r"unknown streams \['camera'\]; the environment has \['count', 'position'\]"):
        DelayedEnv(PointMass(), cell, hold=lambda tick: np.zeros(1))
