"""How many updates belong to how many steps."""

import pytest

from robot_rl.errors import ConfigError
from robot_rl.rl.pace import Pace


def test_updates_are_bound_to_the_steps_lived_through():
    pace = Pace(total_steps=1000, warm_up_steps=100, critic_first=50, utd=0.5, actor_every=2)
    assert [pace.allowed(steps) for steps in (0, 99, 100, 101, 102, 300)] == [0, 0, 50, 50, 51, 150]


def test_the_critic_learns_alone_first():
    pace = Pace(total_steps=1000, warm_up_steps=0, critic_first=3, actor_every=2)
    assert [pace.trains_actor(update) for update in range(8)] == [0, 0, 0, 1, 0, 1, 0, 1]


def test_nothing_is_learned_from_nothing():
    assert Pace(total_steps=10, warm_up_steps=0, critic_first=5).allowed(0) == 0


def test_the_ratio_told_is_the_ratio_made():
    pace = Pace(total_steps=1000, warm_up_steps=100, critic_first=50, utd=2.0)
    assert pace.effective_utd(pace.allowed(300), 300) == 2.0


@pytest.mark.parametrize("wrong", [{"warm_up_steps": 11}, {"utd": -1}, {"actor_every": 0}, {"critic_first": -1}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="need"):
        Pace(**{"total_steps": 10, "warm_up_steps": 0, **wrong})


def test_the_actors_rate_falls_in_a_straight_line_to_what_is_left_at_the_end():
    pace = Pace(total_steps=1100, warm_up_steps=100, critic_first=50, utd=0.5, actor_anneal=0.2)
    assert [pace.actor_rate(update) for update in (0, 50, 300, 550, 900)] == pytest.approx([1.0, 1.0, 0.6, 0.2, 0.2])
    assert Pace(total_steps=1100).actor_rate(900) == 1.0


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_rate_cannot_fall_below_nothing_or_rise(share):
    with pytest.raises(ConfigError, match="actor_anneal"):
        Pace(total_steps=10, warm_up_steps=0, actor_anneal=share)
