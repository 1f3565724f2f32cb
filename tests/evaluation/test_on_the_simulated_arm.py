from __future__ import annotations

import pytest

from robot_rl.evaluation.parallel import evaluate

pytest.importorskip("mujoco", reason="needs the `sim` extra")


def test_the_scripted_expert_lifts_and_seeds_do_not_depend_on_their_order():
    from sim.env import ArmEnv
    from sim.expert import LiftExpert

    two = evaluate(ArmEnv, LiftExpert, [3, 4], workers=2)
    one = evaluate(ArmEnv, LiftExpert, [4, 3], workers=1)
    assert two.results == one.results[::-1]
    assert two.successes == 2
    assert [result.return_ for result in two.results] == [1.0, 1.0]
