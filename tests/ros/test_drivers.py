"""Who took the arm within an episode, by what the supervisor says."""

import pytest

pytest.importorskip("rclpy", reason="needs the ROS packages")

from robot_rl_ros.drivers import Drivers


@pytest.mark.parametrize(
    ("before", "within", "taken_over"),
    [
        ([], [], False),
        (["policy"], [], False),
        (["none"], ["policy", "none"], False),
        (["policy"], ["human", "policy"], True),
        (["human"], ["policy"], False),  # let go after setting the scene up
        (["human"], ["policy", "human"], True),
        (["human"], [], True),
        (["human", "policy"], [], False),
    ],
)
def test_a_person_took_over_who_took_the_arm_or_kept_it(before, within, taken_over):
    drivers = Drivers()
    for driver in before:
        drivers.take(driver)
    drivers.begin()
    for driver in within:
        drivers.take(driver)
    assert drivers.taken_over is taken_over
