"""The driver on a simulated clock: the ramp policy commands the stamp of each tick, so a misplaced action shows."""

import numpy as np
import pytest

from robot_rl.deploy.clock import SimulatedClock
from robot_rl.deploy.driver import Decision, PolicyDriver
from robot_rl.deploy.observer import Observer
from robot_rl.deploy.runners import AssumedLatencyRunner
from robot_rl.errors import ConfigError, SafetyStop
from robot_rl.specs import ArraySpec
from robot_rl.values import ActionChunk, PolicyInput

MS = 1_000_000
STEP = 50 * MS
OFFSET = 7_000_000_000_000  # ROS time minus monotonic time


class RampPolicy:
    """a_i = t_i in seconds, monotonic."""

    n_obs, n_execute = 2, 4

    def __init__(self, *, horizon: int = 8, fails_at: int = 10**9) -> None:
        self.horizon, self.fails_at = horizon, fails_at
        self.asked: list[PolicyInput] = []
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        self.asked.append(policy_input)
        if len(self.asked) >= self.fails_at:
            raise SafetyStop("policy answered NaN")
        stamps = (policy_input.stamp_ns + STEP * np.arange(self.horizon)) / 1e9
        return ActionChunk(policy_input.stamp_ns, STEP, stamps[:, None])


class Run:
    """Ticks a driver at 20 Hz with joint samples every tick, unless told otherwise."""

    def __init__(self, *, latency_ms: int = 20, max_hold_s: float = 0.2, **policy) -> None:
        self.clock = SimulatedClock(1000 * MS)
        self.offset = OFFSET
        spec = {"q": ArraySpec(name="q", shape=(1,), unit="rad")}
        self.latency_ms = latency_ms
        self.policy = RampPolicy(**policy)
        self.driver = PolicyDriver(
            self.policy,
            Observer(spec, n_obs=2, step_ns=STEP, max_age_ns={"q": 100 * MS}),
            max_hold_s=max_hold_s,
            make_runner=lambda p, e, c: AssumedLatencyRunner(p, e, lambda n: self.latency_ms * MS),
            clock=self.clock,
        )

    def tick(self, *, joints: bool = True) -> Decision:
        self.clock.advance(STEP)
        now = self.clock.now_ns()
        if joints:
            value = np.array([now / 1e9], np.float32)
            self.driver.observer.push("q", now + self.offset, value, received_ns=now)
        return self.driver.tick(now, ros_offset_ns=self.offset)

    @property
    def now_s(self) -> float:
        return self.clock.now_ns() / 1e9


def test_each_tick_gets_the_action_of_its_stamp():
    run = Run()
    assert run.tick() == Decision(None, reason="no chunk yet")
    for _ in range(30):
        decision = run.tick()
        assert decision.action is not None
        assert decision.action[0] == pytest.approx(run.now_s)
        assert (decision.held, decision.reason) == (False, "")
    gaps = np.diff([asked.stamp_ns for asked in run.policy.asked])
    assert set(gaps) == {4 * STEP}  # it asks every n_execute ticks
    newest = run.policy.asked[-1]
    assert newest.obs["q"][:, 0].tolist() == pytest.approx([newest.stamp_ns / 1e9 - 0.05, newest.stamp_ns / 1e9])


def test_a_chunk_is_shown_once():
    run = Run()
    chunks = [chunk for _ in range(12) if (chunk := run.tick().chunk) is not None]
    assert [chunk.start_ns for chunk in chunks] == [asked.stamp_ns for asked in run.policy.asked[: len(chunks)]]
    assert len(chunks) == 3


def test_a_stale_observation_stops_commands_and_says_why():
    run = Run()
    for _ in range(5):
        assert run.tick() is not None
    assert run.tick(joints=False).action is not None  # 50 ms old
    assert run.tick(joints=False).action is not None  # 100 ms old: still allowed
    stopped = run.tick(joints=False)
    assert stopped.action is None
    assert stopped.reason == "`q` is stale: 150 ms old by its stamp, 100 allowed"
    decisions = [run.tick() for _ in range(3)]
    assert decisions[0].action is None  # it starts from a new plan, not from the one before the gap
    assert decisions[-1].action[0] == pytest.approx(run.now_s)


def test_slow_inference_holds_the_last_action_for_a_while_and_then_stops():
    run = Run(max_hold_s=0.2)
    for _ in range(4):
        last = run.tick().action
    run.latency_ms = 10_000
    held = []
    for _ in range(20):
        decision = run.tick()
        if decision.held:
            held.append(decision.action[0])
            assert "inference is slower than the chunk lasts" in decision.reason
        elif decision.action is not None:
            last = decision.action
    assert held == [last[0]] * 4  # 200 ms
    assert decision.action is None
    assert "no chunk in force for" in decision.reason


def test_a_failing_policy_stops_commands_until_reset():
    run = Run(fails_at=3)
    decisions = [run.tick() for _ in range(20)]
    assert decisions[-1].action is None
    assert decisions[-1].reason == "the policy failed: policy answered NaN"
    run.policy.fails_at = 10**9
    run.driver.reset()
    assert [run.tick().action is None for _ in range(4)] == [True, False, False, False]
    assert run.policy.resets == 1


def test_a_jump_of_the_ros_clock_stops_commands_for_a_moment_and_is_counted():
    run = Run()
    for _ in range(5):
        run.tick()
    run.offset += 1_000_000_000
    jumped = run.tick()
    assert jumped.action is None
    assert jumped.reason == "the ROS clock jumped by +1.000 s; waiting for observations on the new one"
    assert run.driver.clock_jumps == 1
    for _ in range(3):
        decision = run.tick()
    assert decision.action[0] == pytest.approx(run.now_s)  # monotonic all along


def test_slewing_is_no_jump():
    run = Run()
    for _ in range(20):
        run.offset += 500_000
        decision = run.tick()
    assert decision.action is not None
    assert run.driver.clock_jumps == 0


def test_what_was_being_computed_when_the_plan_was_dropped_is_not_used():
    run = Run(latency_ms=120)
    for _ in range(6):
        run.tick()
    while not run.driver._runner.busy:
        run.tick()
    run.driver.replan()
    assert run.tick().reason == "waiting for the inference under way"
    first = next(d for d in iter(run.tick, None) if d.action is not None)
    assert first.action[0] == pytest.approx(run.now_s)
    assert run.driver.counts.chunks >= 3  # counts survive


def test_bad_hold_is_refused():
    with pytest.raises(ConfigError, match="`max_hold_s` must not be negative, got -1"):
        Run(max_hold_s=-1)
