import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.teleop.mapper import JointMapper, MapperLimits
from robot_rl.teleop.scripted import RaisedBy, ScriptedSource
from robot_rl.teleop.source import Event
from robot_rl.values import ActionChunk
from sim.env import ArmEnv
from sim.expert import LiftExpert
from sim.robots import ARM7
from tests.contracts.teleop_source import check_teleop_source

MS = 1_000_000
S = 1_000 * MS


class Counter:
    """Answers 0, 1, 2 ... as the first joint since its reset, and the observation as the second."""

    n_obs = 1
    n_execute = 1

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.calls = 0

    def act(self, policy_input):
        action = np.array([[self.calls, policy_input.obs["q"][-1, 0], 0.04]], np.float32)
        self.calls += 1
        return ActionChunk(policy_input.stamp_ns, 50 * MS, action)


def make(**changes) -> ScriptedSource:
    return ScriptedSource(Counter(), **{"n_joints": 2, "control_hz": 20.0, **changes})


def test_contract():
    sources = []

    def new() -> ScriptedSource:
        sources.append(make())
        return sources[-1]

    def engage() -> None:
        sources[-1].observe(10 * S, {"q": np.array([0.5])})
        sources[-1].begin()

    check_teleop_source(new, engage=engage, say=lambda: sources[-1].say(Event.START), lose=lambda: None)


def test_the_policy_is_asked_at_its_own_rate_whatever_the_poll_rate():
    source = make()
    source.begin()
    answers = []
    for n in range(30):  # polls at 100 Hz
        now = S + n * 10 * MS
        source.observe(now, {"q": np.array([n])})
        answers.append(source.poll(now).joints.tolist())
    assert [a[0] for a in answers] == [n // 5 for n in range(30)]
    assert [a[1] for a in answers] == [n // 5 * 5 for n in range(30)]
    assert source.poll(now).gripper_width_m == pytest.approx(0.04)


def test_a_pause_is_not_made_up_for():
    source = make()
    source.begin()
    for n, now in enumerate([S, S + 500 * MS, S + 510 * MS, S + 549 * MS, S + 550 * MS]):
        source.observe(now, {"q": np.array([n])})
        last = source.poll(now).joints[0]
        assert last == [0, 1, 1, 1, 2][n]


def test_it_drives_only_between_begin_and_finish_and_only_on_fresh_observations():
    source = make()
    source.observe(S, {"q": np.zeros(1)})
    assert not source.poll(S).engaged
    source.begin()
    assert source.poll(S + 200 * MS).engaged
    assert not source.poll(S + 201 * MS).engaged
    source.observe(2 * S, {"q": np.zeros(1)})
    assert source.poll(2 * S).engaged
    source.finish()
    assert not source.poll(2 * S).engaged
    source.begin()
    assert source.poll(2 * S).joints[0] == 0.0  # a new episode starts afresh


def test_success_is_said_once_an_episode():
    raised = RaisedBy("pose", 0.1)
    source = make(succeeded=raised)
    source.begin()
    events = []
    for n, z in enumerate([0.02, 0.02, 0.11, 0.13, 0.14]):
        source.observe(S + n * 50 * MS, {"q": np.zeros(1), "pose": np.array([0, 0, z])})
        events.append(source.poll(S + n * 50 * MS).events)
    assert events == [(), (), (), (Event.SUCCESS,), ()]
    raised.reset()
    assert not raised({"pose": np.array([0, 0, 0.14])})


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="need control_hz > 0"):
        make(control_hz=0.0)
    with pytest.raises(ConfigError, match="`height_m` must be positive"):
        RaisedBy("pose", 0.0)
    policy = Counter()
    policy.n_obs = 2
    with pytest.raises(ConfigError, match="needs a policy with `n_obs` 1, got 2"):
        ScriptedSource(policy, n_joints=2, control_hz=20.0)


def test_the_lift_expert_lifts_through_source_and_mapper():
    """The demonstration that teleop_node gives, without ROS: expert, mapper at 20 Hz, simulated arm."""
    env = ArmEnv()
    tick = env.reset(3)
    raised = RaisedBy("cube_pose", 0.1)
    source = ScriptedSource(LiftExpert(), n_joints=7, control_hz=20.0, succeeded=raised)
    low, high = np.array(env.spec.action.low), np.array(env.spec.action.high)
    mapper = JointMapper(low[:7], high[:7], MapperLimits(), relative=False)
    assert ARM7.gripper is not None
    width, now, said = ARM7.gripper.max_width_m, S, []
    source.begin()
    while not (tick.terminated or tick.truncated):
        source.observe(now, dict(tick.obs))
        state = source.poll(now)
        said += state.events
        command = mapper.step(state, np.append(tick.obs["joint_position"], width), now)
        width = command[-1]
        tick = env.step(command.astype(np.float32))
        now += 50 * MS
    assert tick.success
    env.close()
