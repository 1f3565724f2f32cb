"""How many actions the consensus rule executes."""

import numpy as np
import pytest

from robot_rl.deploy.consensus import Consensus, due_steps
from robot_rl.errors import ConfigError

HORIZONS = range(3, 31, 3)


@pytest.mark.parametrize(("stop", "most"), [("fewer", 18), ("at_most", 15)])
def test_t29_agreement_executes_as_far_as_enough_horizons_reach(stop, most):
    rule = Consensus(n_min=5, min_active=5, stop=stop)
    assert rule.steps(np.zeros(30), HORIZONS) == most


@pytest.mark.parametrize("bad", [np.inf, np.nan, 1.2])
def test_t29_a_step_that_is_disputed_ends_it(bad):
    apart = np.ones(30)
    apart[5] = bad
    assert Consensus(ratio=1.1).steps(apart, HORIZONS) == 5
    apart[5], apart[9] = 1.1, bad
    assert Consensus(ratio=1.1).steps(apart, HORIZONS) == 9


def test_t29_a_ratio_of_zero_executes_the_first_steps_alone():
    assert Consensus(ratio=0.0).steps(np.full(30, 0.1), HORIZONS) == 5


def test_equal_to_the_threshold_goes_on_unless_strict():
    apart = np.ones(30)
    assert Consensus().steps(apart, HORIZONS) == 18
    assert Consensus(strict=True).steps(apart, HORIZONS) == 5


def test_one_active_horizon_is_enough_to_execute_the_whole_chunk():
    assert Consensus(min_active=1).steps(np.zeros(30), HORIZONS) == 30
    assert Consensus(min_active=1, stop="at_most").steps(np.zeros(30), HORIZONS) == 27


def test_unit_of_the_disagreement_does_not_matter():
    apart = np.linspace(1.0, 2.0, 30)
    rule = Consensus(ratio=1.2)
    assert rule.steps(apart, HORIZONS) == rule.steps(1e-3 * apart, HORIZONS) == 9


def test_steps_before_the_newest_observation_do_not_count():
    """Of a chunk of 8 from one step before, horizons 2, 4, 8 reach 1, 3, 7 steps; its first row is never executed."""
    apart = np.array([[99.0, 1, 1, 1, 1, 1, 1, 1], [0.0, 1, 1, 9, 1, 1, 1, 1]])
    rule = Consensus(n_min=1, min_active=2)
    assert due_steps(rule, apart, (2, 4, 8), action_offset=-1).tolist() == [3, 2]
    assert due_steps(Consensus(n_min=1, min_active=1), apart, (2, 4, 8), action_offset=-1).tolist() == [7, 2]


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"n_min": 0}, "`n_min` must be at least 1, got 0"),
        ({"min_active": 0}, "`min_active` must be at least 1, got 0"),
        ({"ratio": -0.1}, "`ratio` must be 0 or more, got -0.1"),
        ({"stop": "never"}, r"`stop` must be one of \('fewer', 'at_most'\), got 'never'"),
    ],
)
def test_bad_settings_say_what_was_expected(kwargs, text):
    with pytest.raises(ConfigError, match=text):
        Consensus(**kwargs)


def test_a_chunk_shorter_than_what_is_always_executed_is_refused():
    with pytest.raises(ConfigError, match="`n_min` is 5, but a chunk has only 4 steps to execute"):
        Consensus().steps(np.zeros(4), (4,))
    with pytest.raises(ConfigError, match="`n_min` is 5, but a chunk has only 4 steps to execute"):
        Consensus().check((2, 4), 4)
    with pytest.raises(ConfigError, match="`consensus` needs a policy with a mixture of horizons"):
        Consensus().check((), 16)
