"""An expert that is as bad as asked for, and the distance that an operator watches."""

from __future__ import annotations

import numpy as np
import pytest

from robot_rl.errors import ConfigError, SpecError
from robot_rl.interfaces import Policy
from robot_rl.values import ActionChunk, PolicyInput
from sim.env import ArmEnv
from sim.expert import LiftExpert, Phase
from sim.insert import Insert
from sim.insert_expert import InsertExpert
from sim.misjudging import SPREAD_M, MisjudgingExpert, spread_for
from sim.to_go import ToGo


class Believes:
    """An expert whose action is where it believes the cube to be."""

    n_obs, n_execute = 1, 1

    def reset(self):
        pass

    def act(self, policy_input):
        return ActionChunk(policy_input.stamp_ns, 1, policy_input.obs["cube_pose"][-1:, :3])


def errors(expert, n):
    """Return in what the expert errs in n episodes, [n, 3], and that it errs alike throughout each."""
    found = []
    for episode in range(n):
        pose = np.zeros((1, 9), np.float32)
        pose[0, 0] = 0.01 * episode
        expert.reset()
        seen = []
        for move in (0.0, 0.3):
            shown = pose + np.float32(move)
            seen.append(expert.act(PolicyInput(obs={"cube_pose": shown}, stamp_ns=0)).action[0] - shown[0, :3])
        assert seen[0] == pytest.approx(seen[1], abs=1e-6)
        found.append(seen[0])
    return np.array(found)


def test_errors_lie_on_one_horizontal_side_with_the_given_spread():
    found = errors(MisjudgingExpert(Believes(), task="lift", spread_m=0.02), 400)
    assert np.abs(found[:, 2]).max() < 1e-6
    side = found[0, :2] / np.linalg.norm(found[0, :2])
    along = found[:, :2] @ side
    assert (along >= 0).all()
    assert np.abs(found[:, :2] - along[:, None] * side).max() < 1e-5
    assert np.sqrt(np.mean(along**2)) == pytest.approx(0.02, rel=0.1)


def test_an_episode_repeats_and_another_seed_errs_to_another_side():
    first = errors(MisjudgingExpert(Believes(), task="lift", spread_m=0.02), 5)
    again = errors(MisjudgingExpert(Believes(), task="lift", spread_m=0.02), 5)
    other = errors(MisjudgingExpert(Believes(), task="lift", spread_m=0.02, seed=1), 5)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_full_quality_is_the_expert_itself():
    assert isinstance(MisjudgingExpert(Believes(), task="lift"), Policy)
    assert (errors(MisjudgingExpert(Believes(), task="lift", quality=1.0), 5) == 0).all()


def test_quality_is_read_off_the_measured_rates():
    for task, measured in SPREAD_M.items():
        rates = sorted(measured)
        assert [spread_for(task, rate) for rate in rates] == [measured[rate] for rate in rates]
        assert (np.diff([measured[rate] for rate in rates]) < 0).all()
        middle = (rates[0] + rates[1]) / 2
        assert measured[rates[1]] < spread_for(task, middle) < measured[rates[0]]


@pytest.mark.parametrize(("quality", "least", "most"), [(0.9, 13, 20), (0.2, 0, 9)])
def test_a_bad_operator_inserts_as_rarely_as_asked(quality, least, most):
    env = ArmEnv(task=Insert(), max_steps=80)
    expert = MisjudgingExpert(InsertExpert(), task="insert", quality=quality)
    wins = 0
    for seed in range(500_000, 500_020):
        tick = env.reset(seed)
        expert.reset()
        while not (tick.terminated or tick.truncated):
            obs = {name: value[None] for name, value in tick.obs.items()}
            tick = env.step(expert.act(PolicyInput(obs=obs, stamp_ns=tick.stamp_ns)).action[0])
        wins += tick.success
    assert least <= wins <= most


def test_the_way_to_go_shrinks_while_an_expert_works():
    for name, env, expert in (
        ("insert", ArmEnv(task=Insert(), max_steps=80), InsertExpert()),
        ("lift", ArmEnv(), LiftExpert()),
    ):
        tick, to_go = env.reset(0), ToGo(name)
        expert.reset()
        ways = [to_go(tick.obs)]
        while not (tick.terminated or tick.truncated):
            obs = {key: value[None] for key, value in tick.obs.items()}
            tick = env.step(expert.act(PolicyInput(obs=obs, stamp_ns=tick.stamp_ns)).action[0])
            ways.append(to_go(tick.obs))
        assert tick.success
        assert ways[0] > 0.15
        assert ways[-1] < 0.1
        best = np.minimum.accumulate(ways)
        gains = np.flatnonzero(np.diff(best) < -0.003)
        assert np.diff(gains).max() < 10  # an operator with a patience of 10 steps leaves a good policy alone


def test_a_lift_taken_over_with_the_cube_in_the_hand_goes_on_upwards():
    env, expert = ArmEnv(), LiftExpert()
    tick = env.reset(2)
    expert.reset()

    def act(script):
        obs = {key: value[None] for key, value in tick.obs.items()}
        return script.act(PolicyInput(obs=obs, stamp_ns=tick.stamp_ns)).action[0]

    while expert.phase is not Phase.LIFT:
        tick = env.step(act(expert))
    other = LiftExpert(seed=1)
    steps = 0
    while not (tick.terminated or tick.truncated):
        tick = env.step(act(other))
        steps += 1
        assert tick.action[-1] == 0.0
    assert tick.success
    assert steps < 30


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match=r"`task` must be one of \['insert', 'lift'\], got 'pusht'"):
        MisjudgingExpert(Believes(), task="pusht")
    with pytest.raises(ConfigError, match=r"`quality` must be from 0.2 to 1, the rates measured for `lift`; got 0.1"):
        MisjudgingExpert(Believes(), task="lift", quality=0.1)
    with pytest.raises(ConfigError, match=r"`spread_m` must not be negative, got -1"):
        MisjudgingExpert(Believes(), task="lift", spread_m=-1.0)
    with pytest.raises(SpecError, match=r"needs `cube_pose`; got \['hole_pose'\]"):
        MisjudgingExpert(Believes(), task="lift").act(PolicyInput(obs={"hole_pose": np.zeros((1, 9))}, stamp_ns=0))
    with pytest.raises(ConfigError, match=r"`task` must be one of \['insert', 'lift'\], whose distance is known"):
        ToGo("pusht")
