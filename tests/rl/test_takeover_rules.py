"""Known answers of the rules that simulated operators take over by (specs, off-policy: rows 39 to 41)."""

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.rl.interventions import intervention_reward, intervention_starts
from robot_rl.rl.takeover_rules import (
    RandomTakeover,
    ScheduledTakeover,
    StalledTakeover,
    TakeoverRule,
    ValueTakeover,
)
from robot_rl.values import ActionChunk, Tick


def at(x, n=0):
    return Tick(stamp_ns=n, obs={"x": np.array([x], np.float32)})


class Plus:
    """An expert that wants to go to 1, with the phase that a script has."""

    n_obs = n_execute = 1

    def __init__(self):
        self.asked = 0

    def reset(self):
        self.asked = 0

    def act(self, policy_input):
        self.asked += 1
        return ActionChunk(policy_input.stamp_ns, 1, np.full((1, 1), 1.0 if self.asked == 1 else -1.0, np.float32))


def flags(rule, n, *, seed=0):
    """Return who drives in interventions of one step, as an operator with `n_steps` 1 would ask."""
    rng, tick, human = np.random.default_rng(seed), at(0.0), np.zeros(n, bool)
    rule.reset()
    for t in range(n):
        human[t] = rule.wants(tick, np.zeros(1), rng)
        if human[t]:
            rule.reset()
    return human


@pytest.mark.parametrize(("p", "density"), [(0.3, 0.21), (0.5, 0.25), (0.85, 0.1275)])
def test_random_takeovers_of_one_step_start_with_density_p_times_one_minus_p(p, density):
    human = flags(RandomTakeover(p), 100_000)
    assert human.mean() == pytest.approx(p, abs=0.01)
    assert intervention_starts(human).mean() == pytest.approx(density, abs=0.005)


def test_a_takeover_every_ten_steps_has_the_value_of_the_series():
    human = flags(ScheduledTakeover(9), 4000)
    assert np.flatnonzero(human)[:3].tolist() == [9, 19, 29]
    reward = intervention_reward(human)[9:-20]  # from the first human step on, as if the episode began with it
    value = float(np.sum(0.99 ** np.arange(len(reward)) * reward))
    assert value == pytest.approx(-(0.99**9) / (1 - 0.99**10), abs=1e-6)
    assert value == pytest.approx(-9.553828, abs=1e-5)


VALUES = [(0.9, 1.0, True), (1.0, 1.0, False), (-1.0, -1.0, False), (-1.1, -1.0, True)]


@pytest.mark.parametrize(("q_policy", "q_expert", "better"), VALUES)
def test_the_value_rule_is_additive_so_negative_values_do_not_fool_it(q_policy, q_expert, better):
    values = {1.0: q_expert, -0.5: q_policy}
    rule = ValueTakeover(lambda obs, action: values[float(action[0])], Plus(), delta=0.05, beta=1.0)
    assert rule.wants(at(0.0), np.array([-0.5], np.float32), np.random.default_rng(0)) is better
    relative = q_policy < 0.97 * q_expert  # the released code's rule
    assert (relative != better) == ((q_policy, q_expert) == (-1.0, -1.0))


def test_the_value_rule_asks_its_expert_afresh_at_every_step_and_errs_as_often_as_told():
    rule = ValueTakeover(lambda obs, action: float(action[0]), Plus(), beta=0.9)
    rng = np.random.default_rng(1)
    taken = [rule.wants(at(0.0), np.array([0.0], np.float32), rng) for _ in range(4000)]
    assert np.mean(taken) == pytest.approx(0.9, abs=0.02)
    taken = [rule.wants(at(0.0), np.array([2.0], np.float32), rng) for _ in range(4000)]
    assert np.mean(taken) == pytest.approx(0.1, abs=0.02)


def test_standing_still_and_going_away_are_noticed_and_progress_is_not():
    rule, rng = StalledTakeover(lambda obs: float(obs["x"][0]), patience_steps=4, least_gain_m=0.01), None
    assert not any(rule.wants(at(1.0 - 0.02 * n), np.zeros(1), rng) for n in range(30))
    rule.reset()
    still = [rule.wants(at(1.0), np.zeros(1), rng) for _ in range(6)]
    assert still == [False, False, False, False, True, True]
    rule.reset()
    assert not rule.wants(at(5.0), np.zeros(1), rng)  # measured from where the arm now is
    slow = [rule.wants(at(5.0 - 0.001 * n), np.zeros(1), rng) for n in range(1, 7)]
    assert slow == [False, False, False, True, True, True]


def test_rules_are_checked():
    for rule in (RandomTakeover(0.5), ScheduledTakeover(1), StalledTakeover(lambda obs: 0.0)):
        assert isinstance(rule, TakeoverRule)
    with pytest.raises(ConfigError, match=r"`p` must be from 0 to 1, got 1\.5"):
        RandomTakeover(1.5)
    with pytest.raises(ConfigError, match="`after_steps` must be 0 or more, got -1"):
        ScheduledTakeover(-1)
    with pytest.raises(ConfigError, match="`beta` must be from 0 to 1, got 2"):
        ValueTakeover(lambda obs, action: 0.0, Plus(), beta=2)
    with pytest.raises(ConfigError, match="need patience_steps >= 1"):
        StalledTakeover(lambda obs: 0.0, patience_steps=0)
