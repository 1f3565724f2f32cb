"""Base chunks and a correction at every tick, from one bundle without torch: in the driver, in the loop, by itself."""

import numpy as np
import pytest

from robot_rl.bundle import base_of
from robot_rl.deploy.clock import SimulatedClock
from robot_rl.deploy.driver import PolicyDriver
from robot_rl.deploy.execution import Execution
from robot_rl.deploy.loop import ControlLoop
from robot_rl.deploy.observer import Observer
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.deploy.residual import OnnxStep, smoke_run_all, step_policy
from robot_rl.deploy.runners import AssumedLatencyRunner
from robot_rl.deploy.safety import UNLIMITED, SafetyFilter, SafetyLimits
from robot_rl.errors import BundleError, ConfigError, SafetyStop, SpecError
from robot_rl.interfaces import Holding, StepPolicy
from robot_rl.values import Tick
from tests.deploy.conftest import ROBOT
from tests.deploy.corrected import corrected, corrected_bundle
from tests.deploy.test_driver import MS, OFFSET, STEP, RampPolicy

Q = np.array([0.5, -0.5], np.float32)


@pytest.fixture
def bundle(make_bundle, tmp_path):
    return corrected_bundle(make_bundle("base"), tmp_path / "corrected")


def test_the_step_is_its_formula_within_the_frozen_range(bundle):
    step = step_policy(bundle)
    assert isinstance(step, StepPolicy)
    for base in ([0.6, -0.6], [2.0, -2.0], [-9.0, 9.0]):
        base_action = np.array(base, np.float32)
        expected = np.clip(corrected(Q, base_action), -3.5, 3.5)
        np.testing.assert_allclose(step.act({"q": Q, "unread": Q}, base_action), expected, atol=1e-6)


def test_a_correction_lasts_as_long_as_the_bundle_says_and_keeps_range_and_bound(make_bundle, tmp_path):
    step = step_policy(corrected_bundle(make_bundle("base"), tmp_path / "holding", hold=3))
    assert isinstance(step, Holding)
    bases = [np.array([a, -a], np.float32) for a in (0.4, 1.0, 3.48, 0.2)]
    chosen = corrected(Q, bases[0]) - bases[0]
    for base, held in zip(bases, (0, 1, 2, 0), strict=True):
        got = step.act({"q": Q}, base)
        expected = base + chosen if held else corrected(Q, base)
        np.testing.assert_allclose(got, np.clip(expected, -3.5, 3.5), atol=1e-6)
        assert step.held == held
    step.renew()
    np.testing.assert_allclose(step.act({"q": Q}, bases[1]), corrected(Q, bases[1]), atol=1e-6)


def test_a_bundle_without_a_correction_has_none(make_bundle):
    base = make_bundle("plain")
    assert step_policy(base) is None
    smoke_run_all(base)
    with pytest.raises(BundleError, match="has no graph `step`"):
        OnnxStep(base)


def test_what_a_correction_must_not_do_stops(make_bundle, tmp_path, bundle):
    base = make_bundle("other")
    liar = corrected_bundle(base, tmp_path / "liar", gain=0.1, bound=1.0, told=0.05)
    with pytest.raises(SafetyStop, match=r"left its bound \[0.05, 0.05\]"):
        OnnxStep(liar).act({"q": Q}, np.array([3.0, 3.0], np.float32))
    mad = corrected_bundle(base, tmp_path / "mad", gain=float("nan"))
    with pytest.raises(SafetyStop, match="answered NaN"):
        OnnxStep(mad).act({"q": Q}, Q)
    with pytest.raises(BundleError, match="failed its smoke run"):
        smoke_run_all(mad)
    for obs, action, told in (
        ({}, Q, r"observation lacks \['q'\]"),
        ({"q": Q[:1]}, Q, "`q`"),
        ({"q": Q}, np.full(2, np.nan), "`base_action` must be finite"),
        ({"q": Q}, Q[:1], "`base_action` must be finite"),
    ):
        with pytest.raises(SpecError, match=told):
            OnnxStep(bundle).act(obs, action)


def test_every_strategy_drives_the_base_alone(bundle):
    for strategy in ("receding_horizon", "bidirectional"):
        policy = Execution(strategy=strategy).policy(bundle, seed=0)
        spec = policy.spec if isinstance(policy, OnnxPolicy) else policy.sampler.spec
        assert spec == ROBOT
    assert base_of(bundle).id == bundle.manifest.parent
    with pytest.raises(BundleError, match="corrects its base at every tick"):
        OnnxPolicy(bundle)


class PlusNewest:
    """Adds the newest observation, so that an old one shows; fails when told to."""

    def __init__(self) -> None:
        self.fails, self.asked = False, 0

    def act(self, obs, base_action):
        self.asked += 1
        if self.fails:
            raise SafetyStop("correction answered NaN")
        return base_action + obs["q"]


class Run:
    """Ticks a driver at 20 Hz whose joints and chunks both say the tick's time [s]."""

    def __init__(self, *, latency_ms: int = 20, max_step=None) -> None:
        self.clock, self.step, self.latency_ms = SimulatedClock(1000 * MS), PlusNewest(), latency_ms
        spec = {"q": ROBOT.obs["q"].__class__(name="q", shape=(1,), unit="rad")}
        self.driver = PolicyDriver(
            RampPolicy(), Observer(spec, n_obs=2, step_ns=STEP, max_age_ns={"q": 100 * MS}), max_hold_s=0.3,
            make_runner=lambda p, e, c: AssumedLatencyRunner(p, e, lambda n: self.latency_ms * MS), clock=self.clock,
            step=self.step, max_step=max_step,
        )  # fmt: skip

    def tick(self):
        self.clock.advance(STEP)
        now = self.clock.now_ns()
        self.driver.observer.push("q", now + OFFSET, np.array([now / 1e9], np.float32), received_ns=now)
        return self.driver.tick(now, ros_offset_ns=OFFSET)

    @property
    def now_s(self) -> float:
        return self.clock.now_ns() / 1e9


def test_the_driver_corrects_each_tick_by_what_is_seen_there():
    run = Run()
    run.tick()
    for _ in range(20):
        decision = run.tick()
        assert decision.action[0] == pytest.approx(2 * run.now_s)
        assert not decision.held
    assert run.step.asked == 20


def test_a_correction_that_lasts_is_chosen_anew_with_each_plan():
    run = Run()
    run.step.held, run.step.renewed = 0, 0
    run.step.renew = lambda: setattr(run.step, "renewed", run.step.renewed + 1)
    run.driver.replan()
    run.driver.reset()
    assert run.step.renewed == 2


def test_an_action_that_is_repeated_is_not_corrected_again():
    run = Run()
    while run.tick().action is None:
        pass
    run.latency_ms = 100_000
    held = [decision for decision in (run.tick() for _ in range(12)) if decision.held]
    assert held
    assert len({float(decision.action[0]) for decision in held}) == 1
    asked = run.step.asked
    run.tick()
    assert run.step.asked == asked


def test_a_correction_that_fails_commands_nothing_until_the_next_episode():
    run = Run()
    run.tick()
    assert run.tick().action is not None
    run.step.fails = True
    decisions = [run.tick() for _ in range(4)]
    assert all(decision.action is None for decision in decisions)
    assert all("the correction failed: correction answered NaN" in decision.reason for decision in decisions)
    run.step.fails = False
    assert run.tick().action is None
    run.driver.reset()
    assert any(run.tick().action is not None for _ in range(4))


def test_a_policy_that_is_slowed_down_goes_the_same_way_in_smaller_steps():
    run = Run(max_step=np.array([0.04]))
    actions = [d.action[0] for d in (run.tick() for _ in range(12)) if d.action is not None]
    np.testing.assert_allclose(np.diff(actions), 0.04, rtol=1e-6)  # it would be 0.1 a tick
    fast = Run(max_step=np.array([0.2]))
    fast.tick()
    assert fast.tick().action[0] == pytest.approx(2 * fast.now_s)
    with pytest.raises(ConfigError, match="`max_step` must be positive"):
        Run(max_step=np.array([0.0]))


class Arm:
    """Two joints that are where they are told to be."""

    spec = ROBOT

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def reset(self, seed):
        return self._tick(Q, 0)

    def step(self, action):
        return self._tick(action, len(self.seen))

    def _tick(self, q, n):
        self.seen.append(np.asarray(q, np.float32))
        return Tick(stamp_ns=n * STEP, obs={"q": self.seen[-1]})

    def render(self):
        return np.zeros((2, 2, 3), np.uint8)

    def close(self):
        pass


def test_the_loop_runs_base_and_correction_of_one_bundle(bundle):
    clock, told = SimulatedClock(0), []
    limits = SafetyLimits(
        2, low=UNLIMITED, high=UNLIMITED, velocity=UNLIMITED, acceleration=UNLIMITED, start_jump=UNLIMITED,
        obs_age_s=1.0, command_gap_s=1.0, slow_start_s=0.0, workspace=UNLIMITED,
    )  # fmt: skip
    step = step_policy(bundle)

    class Told:
        def act(self, obs, base_action):
            answer = step.act(obs, base_action)
            told.append((np.array(obs["q"]), np.array(base_action), answer))
            return answer

    loop = ControlLoop(
        Arm(), Execution().policy(bundle, seed=0), SafetyFilter(limits, step_ns=STEP),
        rest_action=lambda obs: obs["q"], obs_names=["q"], step=Told(), clock=clock,
        make_runner=lambda p, e, c: AssumedLatencyRunner(p, e, lambda n: 60 * MS),
    )  # fmt: skip
    arm = loop._env
    report = loop.run(seed=0, ticks=10)
    assert len(told) == report.ticks - report.held_ticks >= 7
    for (q, base_action, answer), after in zip(told, arm.seen[-len(told) :], strict=True):
        np.testing.assert_allclose(answer, np.clip(corrected(q, base_action), -3.5, 3.5), atol=1e-6)
        np.testing.assert_allclose(after, answer, atol=1e-6)
