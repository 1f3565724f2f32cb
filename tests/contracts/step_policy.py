"""What every `StepPolicy` must hold: call `check_step_policy` with one, a robot's spec and a sample."""

from __future__ import annotations

import numpy as np

from robot_rl.interfaces import StepPolicy
from robot_rl.specs import ActionSpec
from robot_rl.values import Obs


def check_step_policy(policy: StepPolicy, spec: ActionSpec, obs: Obs, base_action: np.ndarray) -> None:
    """Assert the contract of a correction at control rate.

    Args:
        policy: The correction, in its deterministic mode.
        spec: The robot's action.
        obs: One observation step {name: [...]}.
        base_action: The base's action [A], within the spec's bounds.
    """
    assert isinstance(policy, StepPolicy)
    given = {name: value.copy() for name, value in obs.items()}, base_action.copy()
    action = policy.act(obs, base_action)
    spec.validate(action)
    spec.check_bounds(action)
    assert not np.shares_memory(action, base_action), "the base's action is recorded beside the corrected one"
    assert np.array_equal(base_action, given[1]), "act must not change its inputs"
    assert all(np.array_equal(obs[name], given[0][name]) for name in obs), "act must not change its inputs"
    assert np.array_equal(action, policy.act(obs, base_action)), "the same question must get the same answer"
