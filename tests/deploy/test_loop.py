"""The loop on a simulated clock: the ramp policy commands the stamp of each tick, so a misplaced action shows."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from robot_rl.deploy.chunks import ChunkExecutor
from robot_rl.deploy.clock import Clock, MonotonicClock, SimulatedClock
from robot_rl.deploy.loop import ControlLoop
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.deploy.report import LoopReport
from robot_rl.deploy.runners import AssumedLatencyRunner, Runner, SyncRunner, ThreadRunner
from robot_rl.deploy.safety import UNLIMITED, SafetyFilter, SafetyLimits
from robot_rl.errors import ConfigError, SafetyStop, SimulationError
from robot_rl.interfaces import Env, Policy
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import ActionChunk, PolicyInput, Tick

STEP = 50_000_000
START = 1_000_000_000  # simulated now at the beginning of every run; the first deadline is one step later


def spec(kind: str = "position", dtype: str = "float64") -> RobotSpec:
    obs = {"q": ArraySpec(name="q", shape=(2,), dtype=dtype), "unused": ArraySpec(name="unused", shape=())}
    action = ActionSpec(name="action", shape=(2,), dtype=dtype, kind=kind)
    return RobotSpec(name="point", obs=obs, action=action, control_hz=20)


class PointEnv:
    """A point that is where it is told to be; each step takes the time that `cost` says."""

    def __init__(
        self, clock: SimulatedClock | None = None, *, cost: Callable[[int], int] = lambda n: 0, **kwargs
    ) -> None:
        self.spec = spec(**kwargs)
        self.clock, self.cost, self.steps, self.ends_at = clock, cost, 0, 10**9

    def observe(self, q: np.ndarray) -> dict[str, np.ndarray]:
        return {"q": q.astype(self.spec.action.dtype), "unused": np.zeros((), np.float32)}

    def reset(self, seed: int) -> Tick:
        self.steps = 0
        return Tick(stamp_ns=0, obs=self.observe(np.full(2, seed / 10)))

    def step(self, action: np.ndarray) -> Tick:
        self.spec.action.validate(action)
        if self.clock is not None:
            self.clock.advance(self.cost(self.steps))
        self.steps += 1
        ended = self.steps >= self.ends_at
        return Tick(stamp_ns=self.steps * STEP, obs=self.observe(action), reward=1.0, success=ended, terminated=ended)

    def render(self) -> np.ndarray:
        return np.zeros((2, 2, 3), np.uint8)

    def close(self) -> None:
        pass


class RampPolicy:
    """a_i = t_i in seconds. Keeps what it was asked."""

    n_obs = 2

    def __init__(self, *, n_execute: int = 4, horizon: int = 8, fails_at: int = 10**9) -> None:
        self.n_execute, self.horizon, self.fails_at = n_execute, horizon, fails_at
        self.asked: list[PolicyInput] = []

    def reset(self) -> None:
        self.asked = []

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        self.asked.append(policy_input)
        if len(self.asked) >= self.fails_at:
            raise SafetyStop("policy answered NaN")
        stamps = (policy_input.stamp_ns + STEP * np.arange(self.horizon)) / 1e9
        return ActionChunk(policy_input.stamp_ns, STEP, np.repeat(stamps[:, None], 2, axis=1))


def free(**changes) -> SafetyFilter:
    loose = dict.fromkeys(("low", "high", "velocity", "acceleration", "start_jump", "workspace"), UNLIMITED)
    rest = {"obs_age_s": 1.0, "command_gap_s": 1.0, "slow_start_s": 0.0}
    return SafetyFilter(SafetyLimits(2, **{**loose, **rest, **changes}), step_ns=STEP)


def build(
    env: PointEnv, policy: Policy, safety: SafetyFilter | None = None, **kwargs
) -> tuple[ControlLoop, list[Tick]]:
    seen: list[Tick] = []
    loop = ControlLoop(
        env, policy, free() if safety is None else safety,
        rest_action=lambda obs: obs["q"], clock=env.clock, on_tick=seen.append, **kwargs,
    )  # fmt: skip
    return loop, seen


def delayed(*steps: float) -> Callable[[Policy, ChunkExecutor, Clock], Runner]:
    """Latency of each request in control steps, the last one for all that follow."""
    return lambda policy, executor, clock: AssumedLatencyRunner(
        policy, executor, lambda n: round(steps[min(n, len(steps) - 1)] * STEP)
    )


def commands(seen: list[Tick]) -> list[float]:
    return [tick.action[0].item() for tick in seen[1:]]


def at(*ticks: int) -> list[float]:
    """Values the ramp policy promises for the n-th deadlines."""
    return pytest.approx([(START + (n + 1) * STEP) / 1e9 for n in ticks])


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(START)


def test_types(clock):
    assert isinstance(PointEnv(clock), Env)
    assert isinstance(RampPolicy(), Policy)
    assert isinstance(clock, Clock)
    assert isinstance(MonotonicClock(), Clock)


def test_inference_in_the_loop_executes_every_row_at_its_stamp(clock):
    policy = RampPolicy(n_execute=4)
    loop, seen = build(PointEnv(clock), policy, make_runner=SyncRunner)
    report = loop.run(seed=0, ticks=10)
    assert commands(seen) == at(*range(10))
    assert [(p.stamp_ns - START) // STEP for p in policy.asked] == [1, 5, 9]
    assert (report.ticks, report.held_ticks, report.overruns, report.ret) == (10, 0, 0, 10.0)
    assert report.chunks.chunks == 3
    assert report.stopped is None
    assert report.lateness.max_ns == 0


def test_policy_sees_the_stack_of_the_newest_tick(clock):
    policy = RampPolicy(n_execute=2)
    loop, _ = build(PointEnv(clock), policy, make_runner=SyncRunner, obs_names=["q"])
    loop.run(seed=5, ticks=4)
    assert set(policy.asked[0].obs) == {"q"}
    assert policy.asked[0].obs["q"].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert policy.asked[1].obs["q"][:, 0].tolist() == at(0, 1)  # the point is where the last two commands sent it


def test_chunk_in_time_for_the_next_tick(clock):
    """Latency of 0.6 steps: held once, then row 1 of each chunk is the first to be executed."""
    loop, seen = build(PointEnv(clock), RampPolicy(n_execute=4), make_runner=delayed(0.6))
    report = loop.run(seed=3, ticks=12)
    assert commands(seen)[0] == pytest.approx(0.3)  # the pose at reset
    assert commands(seen)[1:] == at(*range(1, 12))
    assert (report.held_ticks, report.held_at_start, report.chunks.starved) == (1, 1, 1)
    assert report.chunks.stale_actions == report.chunks.chunks  # row 0 of each
    assert report.inference.max_ns == round(0.6 * STEP)
    assert report.reaction.max_ns == STEP


def test_late_chunk_starves_then_catches_up_by_stamp(clock):
    """The second chunk takes 6.5 steps: the first runs out, the loop holds its end, then the stamps fit again."""
    loop, seen = build(PointEnv(clock), RampPolicy(n_execute=4, horizon=8), make_runner=delayed(0.5, 6.5, 0.5))
    report = loop.run(seed=0, ticks=16)
    # Asked at tick 0 (rows for 1..7), at 4 (done at 10.5: only the row for 11 is left), at 11 (rows for 12..18).
    assert commands(seen)[1:8] == at(*range(1, 8))
    assert commands(seen)[8:11] == at(7, 7, 7)
    assert commands(seen)[11:] == at(*range(11, 16))
    assert (report.held_ticks, report.held_at_start, report.chunks.starved) == (4, 1, 4)
    assert report.chunks.stale_actions == 1 + 7 + 1
    assert report.reaction.max_ns == 7 * STEP


def test_overrun_loses_deadlines_and_never_bursts(clock):
    """A step that takes 2.5 periods: two deadlines pass and are skipped; the action after it is the one due then."""
    env = PointEnv(clock, cost=lambda n: round(2.5 * STEP) if n == 3 else 1_000_000)
    loop, seen = build(env, RampPolicy(n_execute=8, horizon=12), make_runner=SyncRunner)
    report = loop.run(seed=0, ticks=8)
    assert commands(seen) == at(0, 1, 2, 3, 6, 7, 8, 9)
    assert (report.overruns, report.skipped_ticks) == (1, 2)
    assert report.period.max_ns == 3 * STEP
    assert report.period.min_ns == STEP


def test_step_that_ends_exactly_on_the_deadline_is_no_overrun(clock):
    loop, seen = build(PointEnv(clock, cost=lambda n: STEP), RampPolicy(), make_runner=SyncRunner)
    report = loop.run(seed=0, ticks=5)
    assert report.overruns == 0
    assert commands(seen) == at(*range(5))


def test_safety_stop_of_the_policy_holds_and_ends(clock):
    loop, seen = build(PointEnv(clock), RampPolicy(n_execute=2, fails_at=2), make_runner=SyncRunner)
    report = loop.run(seed=0, ticks=10)
    assert report.stopped == "e-stop: policy answered NaN"
    assert report.ticks == 3
    assert seen[-1].action_executed.tolist() == seen[-2].action_executed.tolist()
    with pytest.raises(SafetyStop, match="find the cause, then call clear"):
        loop.run(seed=0, ticks=1)


def test_filter_stop_ends_the_run_and_says_why(clock):
    env = PointEnv(clock, cost=lambda n: 10 * STEP if n == 2 else 0)
    loop, _ = build(env, RampPolicy(), free(obs_age_s=0.3, command_gap_s=0.4), make_runner=SyncRunner)
    report = loop.run(seed=0, ticks=10)
    assert report.stopped == "no command for 0.500 s, at most 0.4 s allowed"
    assert report.ticks == 4


def test_stamps_of_sensors_are_judged_when_given(clock):
    class SlowCamera(PointEnv):
        def step(self, action: np.ndarray) -> Tick:
            tick = super().step(action)
            return Tick(**{**vars(tick), "info": {"received_ns": {"q": START}}})

    loop, _ = build(SlowCamera(clock), RampPolicy(), free(obs_age_s=0.2), make_runner=SyncRunner)
    assert loop.run(seed=0, ticks=10).stopped == "observation `q` is 0.250 s old, at most 0.2 s allowed"


def test_command_and_executed_are_both_recorded(clock):
    loop, seen = build(PointEnv(clock), RampPolicy(), free(velocity=1.0), make_runner=SyncRunner)
    report = loop.run(seed=0, ticks=3)
    assert seen[0].action is None
    assert commands(seen) == at(0, 1, 2)
    assert [tick.action_executed[0].item() for tick in seen[1:]] == pytest.approx([0.05, 0.1, 0.15])
    assert report.limited == {"velocity": 3}


def test_episode_end_and_stop_request(clock):
    env = PointEnv(clock)
    env.ends_at = 4
    loop, _ = build(env, RampPolicy(), make_runner=SyncRunner)
    report = loop.run(seed=0, ticks=10)
    assert (report.ticks, report.terminated, report.success) == (4, True, True)
    answers: Iterator[bool] = iter([False, False, True])
    assert loop.run(seed=0, ticks=10, stop=lambda: next(answers)).ticks == 2


def test_failure_of_the_arm_is_raised_and_latched(clock):
    class Broken(PointEnv):
        def step(self, action: np.ndarray) -> Tick:
            raise SimulationError("diverged")

    safety = free()
    loop, _ = build(Broken(clock), RampPolicy(), safety, make_runner=SyncRunner)
    with pytest.raises(SimulationError, match="diverged"):
        loop.run(seed=0, ticks=3)
    assert safety.stopped == "e-stop: the control loop failed: SimulationError: diverged"


def test_delta_actions_need_a_hold(clock):
    env = PointEnv(clock, kind="delta_pose")
    with pytest.raises(
        ConfigError, match="actions of kind 'delta_pose' do not stop by repeating the last one; pass `hold`"
    ):
        build(env, RampPolicy())
    loop, seen = build(env, RampPolicy(), hold=np.zeros_like, make_runner=delayed(0.5))
    loop.run(seed=7, ticks=2)
    assert commands(seen)[0] == 0.0


def test_rounding_to_float32_stays_inside_the_bounds(clock):
    env = PointEnv(clock, dtype="float32")
    bound = 2.8973  # its float32 lies above it
    env.spec = RobotSpec(
        name="p", obs=env.spec.obs, control_hz=20,
        action=ActionSpec(name="action", shape=(2,), low=-bound, high=bound),
    )  # fmt: skip

    class Far(RampPolicy):
        def act(self, policy_input: PolicyInput) -> ActionChunk:
            return ActionChunk(policy_input.stamp_ns, STEP, np.array([[9.0, -9.0]] * 8))

    loop, seen = build(env, Far(), free(low=-bound, high=bound), make_runner=SyncRunner)
    loop.run(seed=0, ticks=1)
    env.spec.action.check_bounds(seen[-1].action_executed)
    assert seen[-1].action_executed == pytest.approx([bound, -bound])


def test_reports_add_up(clock):
    loop, _ = build(PointEnv(clock), RampPolicy(n_execute=4), make_runner=delayed(0.6))
    total = LoopReport(control_hz=20)
    for ticks in (6, 9):
        total.add(loop.run(seed=0, ticks=ticks))
    assert (total.ticks, total.held_ticks, total.ret) == (15, 2, 15.0)
    assert total.lateness.count == 15
    assert total.chunks.chunks == total.chunks.stale_actions == 2 + 2
    with pytest.raises(ConfigError, match="reports of 20 Hz and 10 Hz cannot be joined"):
        total.add(LoopReport(control_hz=10))


def test_runners_take_one_request_at_a_time(clock):
    executor, policy_input = ChunkExecutor(n_execute=1), PolicyInput(obs={}, stamp_ns=0)
    runner = AssumedLatencyRunner(RampPolicy(), executor, lambda n: 10)
    runner.request(policy_input)
    with pytest.raises(ConfigError, match="a request is under way"):
        runner.request(policy_input)
    runner.poll(9)
    assert runner.busy
    runner.poll(10)
    assert not runner.busy


def test_worker_thread_raises_in_the_loop():
    runner = ThreadRunner(RampPolicy(fails_at=1), ChunkExecutor(n_execute=1), MonotonicClock())
    runner.request(PolicyInput(obs={}, stamp_ns=0))

    def poll_until_done() -> None:
        while runner.busy:
            runner.poll(0)

    with pytest.raises(SafetyStop, match="policy answered NaN"):
        poll_until_done()
    runner.close()


def test_real_time_with_a_bundle_in_a_worker_thread(make_bundle):
    """Everything real: clock, worker thread, ONNX Runtime. Nothing about speed is asserted."""
    bundle = make_bundle(action_offset=0, n_execute=2)
    env = PointEnv(dtype="float32")
    seen: list[Tick] = []
    policy = OnnxPolicy(bundle, seed=0)
    policy.warm_up()
    loop = ControlLoop(
        env, policy, free(obs_age_s=60.0, command_gap_s=60.0), rest_action=lambda obs: obs["q"], obs_names=["q"],
        on_tick=seen.append,
    )  # fmt: skip
    report = loop.start(seed=0, ticks=12).result(timeout=60)
    assert report.ticks == 12
    assert len(seen) == 13
    assert report.chunks.chunks >= 1
    assert report.inference.count >= report.chunks.chunks
    assert all(np.abs(tick.action).max() <= 3.0 for tick in seen[1:])
    assert report.to_dict()["latency"]["lateness"]["count"] == 12
