from __future__ import annotations

import importlib.util

import gymnasium
import numpy as np
import pytest

from robot_rl.errors import ConfigError
from sim.gym_adapter import GymEnv, ObsField
from tests.contracts.env import check_env


class Lever(gymnasium.Env):
    """State = [n, last action x 2, reward so far]; success at n = 3; a dict or a plain vector."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

    def __init__(self, render_mode=None, nested=False, ending=99):
        self.render_mode, self.nested, self.ending = render_mode, nested, ending
        self.action_space = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float64)
        vector = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
        picture = gymnasium.spaces.Box(0, 255, (4, 5, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict({"v": vector, "p": picture}) if nested else vector

    def observe(self):
        vector = np.array([self.n, *self.last, self.offset])
        return {"v": vector, "p": np.full((4, 5, 3), self.n, np.uint8)} if self.nested else vector

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.n, self.last, self.offset = 0, (0.0, 0.0), self.np_random.uniform()
        return self.observe(), {"is_success": False, "note": "text is left out"}

    def step(self, action):
        assert action.dtype == np.float64
        self.n, self.last = self.n + 1, tuple(action)
        return self.observe(), self.n / 2, self.n == self.ending, False, {"is_success": self.n == 3, "n": np.int64(7)}

    def render(self):
        return np.tile(np.arange(6, dtype=np.uint8)[:, None, None], (1, 6, 3))


gymnasium.register("RobotRLTest/Lever-v0", entry_point=Lever, max_episode_steps=6)
LEVER = "RobotRLTest/Lever-v0"


def test_a_built_in_environment_holds_the_contract():
    check_env(lambda: GymEnv("Pendulum-v1", control_hz=20, action_unit="N m"))


def test_a_dict_environment_holds_the_contract():
    check_env(lambda: GymEnv(LEVER, control_hz=10, nested=True, max_steps=9), n_steps=6)


def test_pusht_through_the_adapter_is_pusht():
    pytest.importorskip("gym_pusht", reason="needs pip install --no-deps gym-pusht==0.1.8")
    from sim.pusht import PushTEnv

    fields = {"agent_pos": {"columns": [0, 2], "unit": "px"}, "block_pose": ObsField(columns=(2, 5))}
    adapted = GymEnv("gym_pusht/PushT-v0", module="gym_pusht", control_hz=10, obs=fields, obs_type="state")
    ours = PushTEnv()
    a, b = adapted.reset(5), ours.reset(5)
    for x in (100.0, 300.0, 200.0):
        for name in ours.spec.obs:
            np.testing.assert_array_equal(a.obs[name], b.obs[name])
        action = np.array([x, 250.0], np.float32)
        a, b = adapted.step(action), ours.step(action)
        assert (a.reward, a.success, a.stamp_ns) == (b.reward, b.success, b.stamp_ns)
        assert a.info["coverage"] == b.info["coverage"]
    assert adapted.spec.obs["agent_pos"].unit == "px"
    adapted.close()


@pytest.mark.skipif(
    importlib.util.find_spec("gymnasium_robotics") is None, reason="needs pip install gymnasium-robotics"
)
# mujoco's own GLContext complains in its destructor when the environment never rendered.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_adroit_holds_the_contract():
    make = {"module": "gymnasium_robotics", "control_hz": 25, "success_key": "success", "max_steps": 20}
    check_env(lambda: GymEnv("AdroitHandDoor-v1", **make), n_steps=3)


def test_names_values_clamp_and_success():
    env = GymEnv(LEVER, control_hz=10, obs={"count": {"columns": [0, 1]}, "sent": ObsField(columns=(1, 3), unit="N")})
    env.reset(0)
    tick = env.step(np.array([5.0, -0.25], np.float32))
    np.testing.assert_array_equal(tick.obs["count"], np.float32([1]))
    np.testing.assert_array_equal(tick.obs["sent"], np.float32([2.0, -0.25]))
    np.testing.assert_array_equal(tick.action_executed, np.float32([2.0, -0.25]))
    assert (tick.reward, tick.success, tick.info) == (0.5, False, {"is_success": False, "n": 7})
    env.step(np.zeros(2, np.float32))
    assert env.step(np.zeros(2, np.float32)).success
    assert env.spec.obs["sent"].unit == "N"
    assert (env.spec.action.low, env.spec.action.high) == ((-2.0, -2.0), (2.0, 2.0))


def test_ends_are_told_apart():
    for settings, ends in (
        ({}, (False, True, 6)),
        ({"max_steps": 3}, (False, True, 3)),
        ({"ending": 6}, (True, False, 6)),
    ):
        env = GymEnv(LEVER, control_hz=10, **settings)
        tick, n = env.reset(0), 0
        while not (tick.terminated or tick.truncated):
            tick, n = env.step(np.zeros(2, np.float32)), n + 1
        assert (tick.terminated, tick.truncated, n) == ends


def test_pictures_keep_their_dtype():
    env = GymEnv(LEVER, control_hz=10, nested=True)
    assert {name: (s.dtype, s.shape) for name, s in env.spec.obs.items()} == {
        "p": ("uint8", (4, 5, 3)),
        "v": ("float32", (4,)),
    }
    env.reset(0)
    assert env.step(np.zeros(2, np.float32)).obs["p"][0, 0, 0] == 1


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match=r"gymnasium cannot make `Nothing-v0` \(module 'none'\)"):
        GymEnv("Nothing-v0", control_hz=10)
    with pytest.raises(ConfigError, match=r"gymnasium cannot make `X-v0` \(module 'no_such_module'\)"):
        GymEnv("X-v0", module="no_such_module", control_hz=10)
    with pytest.raises(ConfigError, match=r"observation `x`: there is no key `q`; the environment gives \['p', 'v'\]"):
        GymEnv(LEVER, control_hz=10, nested=True, obs={"x": {"key": "q"}})
    with pytest.raises(ConfigError, match="the action must be a vector of real numbers, got Discrete"):
        GymEnv("CartPole-v1", control_hz=10)
