from __future__ import annotations

import numpy as np
import pytest

from robot_rl.errors import SimulationError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Tick
from tests.contracts.env import check_env

SPEC = RobotSpec(
    name="point",
    obs={"x": ArraySpec(name="x", shape=(1,), unit="m")},
    action=ActionSpec(name="action", shape=(1,), unit="m", low=-1.0, high=1.0, kind="position"),
    control_hz=30.0,
)


class Point:
    """Moves half of the way to the action; ends after 20 steps."""

    spec = SPEC

    def __init__(self) -> None:
        self.running = False
        self.n = 0

    def reset(self, seed):
        self.x = np.random.default_rng(seed).normal(size=1).astype(np.float32)
        self.n, self.running = 0, True
        return Tick(stamp_ns=0, obs={"x": self.x.copy()})

    def step(self, action):
        if not self.running:
            raise SimulationError("no episode is running; call reset(seed)")
        action = self.spec.action.validate(action)
        self.move(action)
        self.n += 1
        self.running = self.n < 20
        return Tick(stamp_ns=self.stamp(), obs={"x": self.observe()}, action=self.echo(action),
                    action_executed=np.clip(action, -1, 1), terminated=self.terminates(),
                    truncated=not self.running)  # fmt: skip

    def move(self, action):
        self.x += np.float32(0.5) * (action - self.x)

    def stamp(self):
        return self.n * self.spec.step_ns

    def observe(self):
        return self.x.copy()

    def echo(self, action):
        return action.copy()

    def terminates(self):
        return False

    def render(self):
        return np.tile(np.arange(8, dtype=np.uint8)[:, None, None], (1, 8, 3))

    def close(self):
        self.running = False


def test_a_point_passes():
    check_env(Point)


class Aliased(Point):
    def observe(self):
        return self.x


class Unseeded(Point):
    def move(self, action):
        self.x += np.random.default_rng().normal(size=1).astype(np.float32)


class Drifting(Point):
    def stamp(self):
        return self.n * (self.spec.step_ns + 1)


class Echo(Point):
    def echo(self, action):
        return action


class TwoEnds(Point):
    def terminates(self):
        return not self.running


class Endless(Point):
    def step(self, action):
        self.n = 0
        return super().step(action)

    def stamp(self):
        self.total = getattr(self, "total", 0) + 1
        return self.total * self.spec.step_ns

    def reset(self, seed):
        self.total = 0
        return super().reset(seed)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Aliased, "a later step changed a tick"),
        (Unseeded, "a seed and the actions fix everything"),
        (Drifting, "stamps advance by the control period"),
        (Echo, "a tick owns its arrays"),
        (TwoEnds, "ends for one reason"),
    ],
)
def test_the_kit_finds_what_is_broken(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_env(broken)


def test_the_kit_finds_an_episode_without_an_end():
    with pytest.raises(pytest.fail.Exception, match="did not end within 50 steps"):
        check_env(Endless, longest=50)
