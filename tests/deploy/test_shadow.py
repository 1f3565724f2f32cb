import numpy as np
import pytest

from robot_rl.deploy.shadow import ShadowComparison
from robot_rl.errors import ConfigError, SpecError

MS = 1_000_000


def test_actions_are_compared_with_the_command_in_force():
    shadow = ShadowComparison(2, max_age_ns=100 * MS)
    shadow.commanded(np.array([1.0, 2.0]), 0)
    for k in range(5):
        difference = shadow.tick(np.array([1.0 + 0.1 * k, 2.0]), 10 * MS)
        np.testing.assert_allclose(difference, [0.1 * k, 0.0])
    found = shadow.to_dict()
    assert (found["compared"], found["without_command"], found["without_action"]) == (5, 0, 0)
    assert found["difference_median"] == pytest.approx([0.2, 0.0])
    assert found["difference_max"] == pytest.approx([0.4, 0.0])
    assert found["largest"] == pytest.approx(0.4)


def test_a_tick_without_command_or_action_is_counted_and_not_compared():
    shadow = ShadowComparison(1, max_age_ns=100 * MS)
    assert shadow.tick(np.zeros(1), 0) is None
    shadow.commanded(np.zeros(1), 0)
    assert shadow.tick(np.zeros(1), 101 * MS) is None
    assert shadow.tick(None, 10 * MS) is None
    found = shadow.to_dict()
    assert (found["compared"], found["without_command"], found["without_action"]) == (0, 2, 1)
    assert (found["difference_p95"], found["largest"]) == ([], None)


def test_memory_is_bounded_and_the_maximum_is_over_all():
    shadow = ShadowComparison(1, max_age_ns=MS)
    shadow.commanded(np.zeros(1), 0)
    shadow.tick(np.array([9.0]), 0)
    for _ in range(20_000):
        shadow.tick(np.array([1.0]), 0)
    found = shadow.to_dict()
    assert (found["compared"], found["difference_max"], found["difference_p95"]) == (20_001, [9.0], [1.0])


def test_what_is_no_command_is_refused():
    shadow = ShadowComparison(2, max_age_ns=MS)
    with pytest.raises(SpecError, match="a command must be 2 finite numbers"):
        shadow.commanded(np.array([1.0, np.nan]), 0)
    with pytest.raises(SpecError, match="2 finite numbers"):
        shadow.commanded(np.zeros(3), 0)
    with pytest.raises(ConfigError, match="a width of at least 1"):
        ShadowComparison(0, max_age_ns=MS)
