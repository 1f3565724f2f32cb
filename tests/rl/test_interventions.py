"""Known answers of labels made from who drove (specs, off-policy: rows 35, 36, 38, 39, 41, 44)."""

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.rl.interventions import gripper_penalty, intervention_reward, intervention_starts, out_of_reach

HUMAN = np.array([0, 0, 1, 1, 1, 0, 0, 1, 0, 0], dtype=bool)


def test_the_step_that_led_into_an_intervention_is_penalised():
    reward = intervention_reward(HUMAN)
    assert reward.tolist() == [0, -1, 0, 0, 0, 0, -1, 0, 0, 0]
    assert np.sum(0.9 ** np.arange(10) * reward) == pytest.approx(-1.431441)


def test_every_step_before_a_human_one_can_be_penalised_instead():
    assert intervention_reward(HUMAN, rule="every").tolist() == [0, -1, -1, -1, 0, 0, -1, 0, 0, 0]


def test_an_episode_that_begins_with_a_person_has_nothing_to_penalise():
    assert intervention_reward(np.array([True, True, False])).tolist() == [0, 0, 0]
    assert intervention_starts(np.array([True, True, False])).tolist() == [True, False, False]


def test_a_late_reaction_reaches_back_but_never_into_human_steps():
    reward = intervention_reward(HUMAN, reaction_lag_steps=2)
    assert reward.tolist() == [-1, -1, 0, 0, 0, -1, -1, 0, 0, 0]


@pytest.mark.parametrize(("p", "density"), [(0.3, 0.21), (0.5, 0.25), (0.85, 0.1275)])
def test_random_interventions_start_with_density_p_times_one_minus_p(p, density):
    flags = np.random.default_rng(0).random(2_000_000) < p
    assert -intervention_reward(flags).mean() == pytest.approx(density, abs=1e-3)


def test_periodic_interventions_have_the_value_of_the_series():
    flags = np.arange(5000) % 10 == 0
    reward = intervention_reward(flags)[:-10]
    value = float(np.sum(0.99 ** np.arange(len(reward)) * reward))
    assert value == pytest.approx(-(0.99**9) / (1 - 0.99**10), abs=1e-6)


def test_only_a_change_of_the_grippers_state_costs():
    opening, command = np.array([1, 1, 0.2, 0.2, 1]), np.array([-1, 0, -1, 1, 0])
    assert gripper_penalty(opening, command).tolist() == [-0.02, 0, 0, -0.02, 0]


def test_the_share_of_corrections_beyond_the_residuals_bound():
    human, base = np.array([[0.05, 0.0], [0.3, 0.0], [0.0, -0.11]]), np.zeros((3, 2))
    assert out_of_reach(human, base, 0.1) == pytest.approx(2 / 3)
    assert np.isnan(out_of_reach(np.zeros((0, 2)), np.zeros((0, 2)), 0.1))


def test_unknown_rules_are_refused():
    with pytest.raises(ConfigError, match="`rule` must be `start` or `every`, got 'first'"):
        intervention_reward(HUMAN, rule="first")
    with pytest.raises(ConfigError, match="must not be negative"):
        intervention_reward(HUMAN, reaction_lag_steps=-1)
