from __future__ import annotations

import numpy as np
import pytest

from robot_rl.errors import SpecError
from robot_rl.specs import ActionSpec
from tests.contracts.step_policy import check_step_policy

SPEC = ActionSpec(name="action", shape=(2,), unit="m", low=-1.0, high=1.0, kind="position")
OBS = {"error": np.array([0.5, -4.0], np.float32)}
BASE = np.array([0.25, 0.875], np.float32)


class ProportionalResidual:
    """Adds gain times the observed error, at most `bound` an element, and keeps to the action's limits."""

    def __init__(self, gain: float, bound: float) -> None:
        self.gain, self.bound = np.float32(gain), np.float32(bound)

    def act(self, obs, base_action):
        residual = np.clip(self.gain * obs["error"], -self.bound, self.bound)
        return np.clip(base_action + residual, np.float32(SPEC.low), np.float32(SPEC.high))


def test_a_proportional_residual_passes_with_its_closed_form():
    policy = ProportionalResidual(gain=0.1, bound=0.2)
    check_step_policy(policy, SPEC, OBS, BASE)
    np.testing.assert_allclose(policy.act(OBS, BASE), [0.25 + 0.05, 0.875 - 0.2], rtol=1e-6)


def test_no_residual_is_the_base():
    policy = ProportionalResidual(gain=0.0, bound=0.2)
    check_step_policy(policy, SPEC, OBS, BASE)
    assert np.array_equal(policy.act(OBS, BASE), BASE)


class InPlace(ProportionalResidual):
    def act(self, obs, base_action):
        base_action += np.float32(0.125)
        return base_action.copy()


class Aliased(ProportionalResidual):
    def act(self, obs, base_action):
        return base_action


class Unbounded(ProportionalResidual):
    def act(self, obs, base_action):
        return base_action + 10 * np.abs(obs["error"])


class Double(ProportionalResidual):
    def act(self, obs, base_action):
        return base_action.astype(np.float64)


class Drifting(ProportionalResidual):
    def act(self, obs, base_action):
        self.bound /= np.float32(2)
        return super().act(obs, base_action)


@pytest.mark.parametrize(
    ("broken", "error", "message"),
    [
        (InPlace, AssertionError, "must not change its inputs"),
        (Aliased, AssertionError, "recorded beside the corrected one"),
        (Unbounded, SpecError, r"`action`\[0\] must be <= 1 m, got 5.25"),
        (Double, SpecError, r"`action` must be float32\(2\) \[m\], got float64\(2,\)"),
        (Drifting, AssertionError, "the same question must get the same answer"),
    ],
)
def test_the_kit_finds_what_is_broken(broken, error, message):
    with pytest.raises(error, match=message):
        check_step_policy(broken(gain=0.1, bound=0.2), SPEC, OBS, BASE.copy())
