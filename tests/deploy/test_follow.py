"""Commands become a path: straight lines between slow ones, no overshoot, no lag behind one that moves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.deploy.follow import CommandFollower
from robot_rl.errors import ConfigError

STEP = 10_000_000


def follower(acceleration=np.inf, interpolate_s=0.05) -> CommandFollower:
    return CommandFollower(step_ns=STEP, interpolate_s=interpolate_s, acceleration=np.array([acceleration]))


def test_the_first_command_is_given_whole():
    follow = follower(acceleration=1.0)
    follow.take(np.array([9.0]), last=None, now_ns=0)
    assert follow.wanted(np.array([0.0]), 0).tolist() == [9.0]


@pytest.mark.parametrize("hz", [20, 50, 100])
def test_a_command_is_reached_when_the_next_one_is_due(hz):
    follow, period = follower(), 1_000_000_000 // hz
    follow.take(np.array([0.0]), last=None, now_ns=0)
    follow.take(np.array([1.0]), last=np.array([0.0]), now_ns=period)
    n, last, path = period // STEP, np.array([0.0]), []
    for k in range(n):
        last = follow.wanted(last, period + k * STEP)
        path.append(float(last[0]))
    assert path == pytest.approx((np.arange(n) + 1) / n)


def test_a_pause_does_not_make_the_approach_longer_than_asked():
    follow = follower(interpolate_s=0.05)
    follow.take(np.array([0.0]), last=None, now_ns=0)
    follow.take(np.array([1.0]), last=np.array([0.0]), now_ns=90_000_000)
    assert follow.wanted(np.array([0.0]), 90_000_000)[0] == pytest.approx(0.2)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 5.0), st.floats(1.0, 30.0), st.floats(1.0, 3.0))
def test_never_runs_past_a_target_that_stands_still(target, acceleration, speed):
    """With a filter behind it that limits speed and acceleration, at any distance."""
    follow = follower(acceleration)
    follow.take(np.array([target]), last=None, now_ns=-STEP)
    follow.take(np.array([target]), last=np.array([0.0]), now_ns=0)
    last, velocity, dt = np.zeros(1), 0.0, STEP / 1e9
    for k in range(1500):
        wanted = float((follow.wanted(last, k * STEP) - last)[0]) / dt
        allowed = np.clip(wanted, -speed, speed)
        velocity = float(np.clip(allowed, velocity - acceleration * dt, velocity + acceleration * dt))
        last = last + velocity * dt
        assert last[0] <= target + 1e-9
    assert last[0] == pytest.approx(target, abs=1e-3)


def test_a_value_that_is_no_number_is_passed_on():
    follow = follower()
    follow.take(np.array([0.0]), last=None, now_ns=0)
    follow.take(np.array([np.nan]), last=np.array([0.0]), now_ns=STEP)
    assert np.isnan(follow.wanted(np.array([0.0]), STEP)).all()


def test_reset_forgets():
    follow = follower()
    follow.take(np.array([1.0]), last=None, now_ns=0)
    follow.reset()
    assert not follow.has_command
    with pytest.raises(ConfigError, match="no command to follow"):
        follow.wanted(np.array([0.0]), 0)
    with pytest.raises(ConfigError, match="`interpolate_s` must be zero or more, got -1"):
        follower(interpolate_s=-1.0)
