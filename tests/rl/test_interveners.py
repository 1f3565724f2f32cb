"""Whoever takes over in the actor goes through device, mapper and takeover, a person and a simulated operator alike."""

import numpy as np
import pytest

from robot_rl.errors import ConfigError, SpecError
from robot_rl.rl.interveners import SimulatedOperator, TeleopIntervener
from robot_rl.rl.interventions import intervention_reward, intervention_starts
from robot_rl.rl.runner import Intervener, StepRunner
from robot_rl.rl.takeover_rules import RandomTakeover, ScheduledTakeover
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.teleop import Event, JointMapper, MapperLimits, TeleopState
from robot_rl.teleop.scripted import ScriptedSource
from robot_rl.values import ActionChunk, Tick

STEP_NS = 50_000_000
SPEC = RobotSpec(
    name="joint",
    obs={name: ArraySpec(name=name, shape=(1,)) for name in ("q", "width")},
    action=ActionSpec(name="action", shape=(2,), low=(-1.0, 0.0), high=(1.0, 0.08), gripper="width_m"),
    control_hz=20.0,
)


class Towards:
    """A policy that goes to a joint angle with an open gripper, and counts how often it was begun anew."""

    n_obs = n_execute = 1

    def __init__(self, goal, width=0.08):
        self.goal, self.width, self.begun = goal, width, 0

    def reset(self):
        self.begun += 1

    def act(self, policy_input):
        action = np.array([[self.goal, self.width]], np.float32)
        return ActionChunk(policy_input.stamp_ns, STEP_NS, action)


class Joint:
    """One joint that gets to its target at once, and a gripper around something 2 cm wide."""

    def reset(self):
        self.q, self.n = 0.0, 0
        return Tick(stamp_ns=0, obs=self.obs())

    def obs(self):
        return {"q": np.array([self.q], np.float32), "width": np.array([0.02], np.float32)}

    def step(self, action):
        self.q, self.n = float(action[0]), self.n + 1
        return Tick(stamp_ns=self.n * STEP_NS, obs=self.obs(), action=action, action_executed=action)


def mapper():
    return JointMapper(np.array([-1.0]), np.array([1.0]), MapperLimits(joint_speed_rad_s=2.0), relative=False)


def simulated(rule, *, n_steps, goal=-0.5, seed=0):
    script = Towards(goal, width=0.0)
    source = ScriptedSource(script, n_joints=1, control_hz=20.0)
    operator = SimulatedOperator(source, rule, n_steps=n_steps, seed=seed)
    intervener = TeleopIntervener(
        source, mapper(), rest=["q", "width"], operator=operator, handover_s=0.0, release_s=0.0
    )
    return intervener, script


def play(intervener, n, *, seed=0, base=None):
    """Return actions [n, 2] and who drove [n]."""
    runner, env = StepRunner(SPEC, base=base or Towards(0.5, 0.0), step=None, intervener=intervener), Joint()
    runner.reset(seed)
    tick, actions, human = env.reset(), [], []
    for _ in range(n):
        decision = runner.decide(tick, "deterministic")
        actions.append(decision.action)
        human.append(decision.by_human)
        tick = env.step(decision.action)
    return np.stack(actions), np.array(human)


def test_it_is_an_intervener():
    assert isinstance(simulated(RandomTakeover(0.5), n_steps=1)[0], Intervener)


def test_an_intervention_lasts_as_told_starts_where_the_arm_is_and_moves_at_the_mappers_speed():
    intervener, script = simulated(ScheduledTakeover(4), n_steps=5)
    actions, human = play(intervener, 14)
    assert human.tolist() == [False] * 4 + [True] * 5 + [False] * 4 + [True]
    assert actions[:4, 0].tolist() == [0.5] * 4
    # Held at 0.5 in the first step, then 2 rad/s for 0.05 s a step towards -0.5.
    assert actions[4:9, 0] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1], abs=1e-6)
    assert actions[9:13, 0].tolist() == [0.5] * 4
    assert script.begun == 2


def test_a_gripper_that_holds_something_stays_closed_at_a_takeover():
    closed, _ = play(simulated(ScheduledTakeover(3), n_steps=4)[0], 8)
    assert (closed[:, 1] == 0.0).all()  # the measured width is 2 cm, which commanded would let go
    first, human = play(simulated(ScheduledTakeover(0), n_steps=4)[0], 3)  # taken over before anything was commanded
    assert human.all()
    assert (first[:, 1] == 0.0).all()


def test_an_intervention_that_goes_on_is_one_takeover():
    _, human = play(simulated(ScheduledTakeover(0), n_steps=3)[0], 12)
    assert human.all()
    assert intervention_starts(human).sum() == 1


def test_random_takeovers_repeat_by_seed_and_have_the_density_of_their_renewals():
    p, n_steps = 0.1, 3
    human = play(simulated(RandomTakeover(p), n_steps=n_steps)[0], 6000)[1]
    again = play(simulated(RandomTakeover(p), n_steps=n_steps)[0], 6000)[1]
    other = play(simulated(RandomTakeover(p), n_steps=n_steps)[0], 6000, seed=1)[1]
    assert (human == again).all()
    assert (human != other).any()
    # A takeover needs 1/p draws; all but the last are steps of the policy, and n steps of the operator follow.
    cycle = 1 / p - 1 + n_steps
    assert human.mean() == pytest.approx(n_steps / cycle, abs=0.03)
    runs = -intervention_reward(human).sum() / len(human)
    assert runs == pytest.approx((1 - p) / cycle, abs=0.01)


def test_a_base_is_asked_anew_after_an_intervention():
    class Counting(Towards):
        n_execute = 8
        asked = 0

        def act(self, policy_input):
            self.asked += 1
            rows = np.tile(np.array([[self.goal, self.width]], np.float32), (8, 1))
            return ActionChunk(policy_input.stamp_ns, STEP_NS, rows)

    base = Counting(0.5, 0.0)
    play(simulated(ScheduledTakeover(3), n_steps=2)[0], 10, base=base)
    # Asked at 0; what is left of a chunk is dropped after each human step (3, 4, 8, 9): asked again at 4, 5 and 9.
    assert base.asked == 4


class Device:
    """A device that says what a test tells it."""

    def __init__(self, states):
        self.states = list(states)

    def open(self):
        pass

    def poll(self, now_ns):
        engaged, events = self.states.pop(0)
        joints = np.array([-0.5]) if engaged else None
        return TeleopState(stamp_ns=now_ns, engaged=engaged, joints=joints, gripper_width_m=0.0, events=events)

    def close(self):
        pass


def person(states, **times):
    return TeleopIntervener(Device(states), mapper(), rest=["q", "width"], **times)


def test_a_person_is_blended_in_and_counts_as_driving_until_quiet_for_a_while():
    states = [(False, ())] * 2 + [(True, ())] * 4 + [(False, ())] * 6
    actions, human = play(person(states, handover_s=0.2, release_s=0.15), 12)
    assert human.tolist() == [False] * 2 + [True] * 6 + [False] * 4  # 0.15 s after the last engaged tick
    assert actions[2, 0] == pytest.approx(0.5)  # begins at what was executed last
    assert (np.diff(actions[2:6, 0]) <= 1e-9).all()
    assert actions[5, 0] > 0.2  # without blending: 0.5 - 3 * 0.1
    assert actions[6:8, 0] == pytest.approx(actions[5, 0], abs=1e-6)  # letting go holds


def test_who_keeps_the_arm_holds_it_even_with_hands_off():
    toggle = (Event.TOGGLE,)
    states = [(False, ()), (False, toggle), (False, ()), (False, ()), (False, toggle), (False, ())]
    actions, human = play(person(states, handover_s=0.0, release_s=0.0), 6)
    assert human.tolist() == [False, True, True, True, False, False]
    assert actions[1:4] == pytest.approx(np.tile(actions[0], (3, 1)))


def test_mistakes_are_named():
    source = ScriptedSource(Towards(0.0), n_joints=1, control_hz=20.0)
    with pytest.raises(ConfigError, match="`n_steps` must be at least 1, got 0"):
        SimulatedOperator(source, RandomTakeover(0.1), n_steps=0)
    with pytest.raises(ConfigError, match="`handover_s` must be zero or more seconds"):
        person([], handover_s=-1.0)
    intervener = TeleopIntervener(Device([(False, ())]), mapper(), rest=["angle"])
    with pytest.raises(SpecError, match=r"needs observations \['angle'\]; got \['q', 'width'\]"):
        intervener.act(Tick(stamp_ns=0, obs={"q": np.zeros(1), "width": np.zeros(1)}), np.zeros(2))
