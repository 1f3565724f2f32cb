"""One action a tick from chunks: order, stale chunks, delay, overrides (specs, off-policy: 24, 29, 30, 47)."""

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.evaluation.rollouts import run_episode
from robot_rl.hold import Hold
from robot_rl.rl.runner import NO_CHUNK, StepRunner, StepwisePolicy
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import ActionChunk, Tick
from tests.contracts.policy import check_policy
from tests.contracts.step_policy import check_step_policy
from tests.rl.reach import SPEC, STEP_NS, Biased, Reach, residual, soft_actor_critic

WIDE = RobotSpec(
    name="wide",
    obs={"x": ArraySpec(name="x", shape=(1,))},
    action=ActionSpec(name="action", shape=(1,), low=-1e6, high=1e6, kind="position"),
    control_hz=10.0,
)


class Told:
    """Row h of a chunk asked for at x is 100 x + h: an action tells when its chunk was computed and which row it is."""

    def __init__(self, *, horizon=20, n_execute=20, n_obs=1):
        self.horizon, self.n_execute, self.n_obs = horizon, n_execute, n_obs

    def reset(self):
        pass

    def act(self, policy_input):
        rows = 100 * policy_input.obs["x"][-1, 0] + np.arange(self.horizon, dtype=np.float32)
        return ActionChunk(policy_input.stamp_ns, STEP_NS, rows[:, None].astype(np.float32))


class Takes:
    """Takes over at the given ticks with the action 7."""

    def __init__(self, *at):
        self.at, self.proposed = at, []

    def reset(self, seed):
        self.proposed = []

    def act(self, tick, proposed):
        self.proposed.append(float(proposed[0]))
        return np.array([7.0], np.float32) if tick.stamp_ns // STEP_NS in self.at else None


def drive(runner, n, *, first=0, seed=0, mode="explore"):
    """Run an episode in which x is `first` plus the tick; return the decisions."""
    runner.reset(seed)
    ticks = (Tick(stamp_ns=t * STEP_NS, obs={"x": np.array([first + t], np.float32)}) for t in range(n))
    return [runner.decide(tick, mode) for tick in ticks]


def actions(decisions):
    return [float(decision.action[0]) for decision in decisions]


def offsets(decisions):
    return [int(decision.extras["chunk_offset"]) for decision in decisions]


def test_an_episode_begins_with_row_0_of_a_chunk_from_its_own_first_observation():
    runner = StepRunner(WIDE, base=Told(), step=None)
    assert actions(drive(runner, 3, first=0)) == [0, 1, 2]
    after_truncation = drive(runner, 3, first=5)
    assert actions(after_truncation) == [500, 501, 502]
    assert offsets(after_truncation) == [0, 1, 2]


def test_a_chunk_is_asked_for_again_when_its_rows_are_executed():
    decisions = drive(StepRunner(WIDE, base=Told(n_execute=3), step=None), 7)
    assert actions(decisions) == [0, 1, 2, 300, 301, 302, 600]


def test_the_plan_is_dropped_where_the_environment_says_that_a_person_drove():
    """On an arm behind topics nobody here intervenes: the tick tells who had the arm."""
    runner = StepRunner(WIDE, base=Told(), step=None)
    runner.reset(0)
    ticks = [Tick(stamp_ns=t * STEP_NS, obs={"x": np.array([t], np.float32)}, by_human=t in (3, 4)) for t in range(7)]
    assert actions([runner.decide(tick, "explore") for tick in ticks]) == [0, 1, 2, 300, 400, 401, 402]


def test_a_step_policy_that_cannot_explore_drives_but_does_not_collect():
    class Plus:
        def act(self, obs, base_action):
            return base_action + 1

    runner = StepRunner(WIDE, base=Told(), step=Plus())
    assert actions(drive(runner, 2, mode="deterministic")) == [1, 2]
    with pytest.raises(ConfigError, match="Plus cannot explore"):
        drive(runner, 1, mode="explore")


def test_with_a_delay_of_3_rows_3_to_10_of_a_chunk_computed_three_ticks_ago_are_consumed():
    decisions = drive(StepRunner(WIDE, base=Told(horizon=16, n_execute=8), step=None, delay_steps=3), 16)
    assert offsets(decisions) == [*range(8), *range(3, 11)]
    assert actions(decisions)[8:] == [500 + row for row in range(3, 11)]  # asked at tick 5 for tick 8


def test_a_chunk_that_is_too_short_for_the_delay_is_refused():
    runner = StepRunner(WIDE, base=Told(horizon=16, n_execute=8), step=None, delay_steps=9)
    with pytest.raises(ConfigError, match="need a chunk of 17, the base's has 16"):
        drive(runner, 1)


def test_a_person_overrides_the_total_and_the_base_is_asked_anew_after():
    person = Takes(1, 2)
    decisions = drive(StepRunner(WIDE, base=Told(), step=None, intervener=person), 5)
    assert actions(decisions) == [0, 7, 7, 300, 301]
    assert [decision.by_human for decision in decisions] == [False, True, True, False, False]
    assert [float(decision.extras["base_action"][0]) for decision in decisions] == [0, 1, 200, 300, 301]
    assert [float(decision.extras["action_policy"][0]) for decision in decisions] == person.proposed


class Adds:
    """Adds 0.25 times the observation to the base, and keeps that for four ticks."""

    def __init__(self):
        self.hold = Hold(4)

    @property
    def held(self):
        return self.hold.age

    def reset(self):
        self.renew()

    def renew(self):
        self.hold.renew()

    def act(self, obs, base_action):
        return self.hold.total(base_action, lambda: base_action + 0.25 * obs["x"])

    def explore(self, obs, base_action, rng):
        return self.act(obs, base_action)

    warm_up = explore


def test_a_correction_lasts_and_is_chosen_anew_after_a_person_and_in_each_episode():
    runner = StepRunner(WIDE, base=Told(), step=Adds(), intervener=Takes(6))
    for _ in range(2):
        decisions = drive(runner, 9, first=1)
        held = [int(decision.extras["held"]) for decision in decisions]
        assert held == [0, 1, 2, 3, 0, 1, 2, 0, 1]
        corrections = [
            a - float(d.extras["base_action"][0]) for a, d in zip(actions(decisions), decisions, strict=True)
        ]
        assert corrections[:6] == [0.25] * 4 + [1.25] * 2
        assert corrections[7:] == [2.0] * 2


def test_a_person_is_held_to_the_robots_limits_alone():
    class Wild(Takes):
        def act(self, tick, proposed):
            return np.array([1e9], np.float32)

    (decision,) = drive(StepRunner(WIDE, base=Told(), step=None, intervener=Wild()), 1)
    assert decision.action.tolist() == [1e6]


def test_an_untrained_correction_leaves_the_base_alone_and_exploration_does_not():
    algorithm = residual()
    runner = StepRunner(SPEC, base=Biased(), step=algorithm.policy)
    plain = drive(runner, 4, mode="deterministic")
    assert actions(plain) == [float(decision.extras["base_action"][0]) for decision in plain]
    explored = drive(runner, 4, mode="explore")
    assert actions(explored) != actions(plain)
    assert actions(drive(runner, 4, mode="explore")) == actions(explored), "an episode's seed decides"
    assert actions(drive(runner, 4, mode="explore", seed=1)) != actions(explored)
    warm = [float(d.action[0] - d.extras["base_action"][0]) for d in drive(runner, 50, mode="warm_up")]
    assert 0.1 < np.abs(warm).max() <= 0.2 + 1e-6


def test_without_a_base_its_action_is_recorded_as_missing():
    (decision,) = drive(StepRunner(SPEC, base=None, step=soft_actor_critic().policy), 1)
    assert np.isnan(decision.extras["base_action"]).all()
    assert decision.extras["chunk_offset"] == NO_CHUNK
    assert np.abs(decision.action).max() <= 1
    with pytest.raises(ConfigError, match="neither"):
        StepRunner(SPEC, base=None, step=None)


def test_the_final_observation_gets_the_action_that_the_base_would_have_gone_on_with():
    runner = StepRunner(WIDE, base=Told(n_execute=3), step=None)
    drive(runner, 2)
    assert runner.final(Tick(stamp_ns=2 * STEP_NS, obs={"x": np.array([9], np.float32)})) == {"base_action": [2.0]}


def test_step_policies_keep_their_contract():
    for algorithm in (residual(), soft_actor_critic()):
        check_step_policy(algorithm.policy, SPEC.action, {"x": np.array([0.3], np.float32)}, np.zeros(1, np.float32))


def test_the_stepwise_policy_keeps_the_contract_of_a_policy():
    check_policy(lambda: StepwisePolicy(SPEC, base=Biased(), step=residual().policy), SPEC)


def test_the_stepwise_policy_plays_what_the_runner_decides():
    policy = StepwisePolicy(SPEC, base=Biased(0.5), step=residual().policy)
    recording, result = run_episode(Reach(), policy, 3)
    assert result.steps == 5
    assert recording.streams["action"].data[-1] == pytest.approx(0.0, abs=1e-6)  # it stays at 0.5
