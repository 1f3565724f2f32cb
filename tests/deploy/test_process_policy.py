"""A policy in a process of its own: real processes, real shared memory, real deaths."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest

from robot_rl.bundle import PolicyBundle
from robot_rl.deploy.chunks import ChunkExecutor
from robot_rl.deploy.clock import MonotonicClock, SimulatedClock
from robot_rl.deploy.loop import ControlLoop
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.deploy.process_policy import ProcessPolicy, error_of
from robot_rl.deploy.runners import ProcessRunner, Runner
from robot_rl.errors import BundleError, ConfigError, SafetyStop, SpecError
from robot_rl.interfaces import Seedable
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import ActionChunk, PolicyInput
from tests.contracts.policy import check_policy
from tests.deploy.test_loop import PointEnv, free

SPEC = RobotSpec(
    name="point", control_hz=20, obs={"q": ArraySpec(name="q", shape=(2,), dtype="float64")},
    action=ActionSpec(name="action", shape=(2,), dtype="float64", kind="position"),
)  # fmt: skip
STEP = SPEC.step_ns


def onnx_policy(path: str, seed: int = 0) -> OnnxPolicy:
    return OnnxPolicy(PolicyBundle.open(path), seed=seed)


class Told:
    """Does what the newest observation's first element says, so that a test can break it from outside."""

    n_obs, n_execute = 1, 2

    def __init__(self) -> None:
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        order, other = policy_input.obs["q"][-1].tolist()
        if order == 1:
            raise ValueError("out of ideas")
        if order == 2:
            raise SafetyStop("the network answered NaN")
        if order == 3:
            os._exit(7)
        if order == 4:
            time.sleep(other)
        promised = 0 if policy_input.prefix is None else len(policy_input.prefix)
        rows = [[self.resets, os.getpid()], [promised, policy_input.delay_steps], [other, 0.0]]
        return ActionChunk(policy_input.stamp_ns, STEP, np.array(rows), n_execute=1 if order == 5 else None)


class Leaves(Told):
    """Goes to 0.5, and ends its process when it sees the pose 3."""

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        if policy_input.obs["q"][-1, 0] == 3.0:
            os._exit(7)
        return ActionChunk(policy_input.stamp_ns, STEP, np.full((8, 2), 0.5))


def broken_factory() -> Told:
    raise BundleError("no such bundle")


def dying_factory() -> Told:
    os._exit(3)


def order(number: float, other: float = 0.0, **changes) -> PolicyInput:
    return PolicyInput(obs={"q": np.array([[number, other]])}, stamp_ns=11, **changes)


def wait_for_answer(policy: ProcessPolicy) -> None:
    while policy.answer() is None:
        time.sleep(0.001)


@pytest.fixture(scope="module")
def told():
    with ProcessPolicy(Told, SPEC, silence_s=60.0) as policy:
        yield policy


def test_contract_and_the_same_numbers_as_in_this_process(make_bundle):
    bundle = make_bundle()
    made = []

    def make() -> ProcessPolicy:
        made.append(ProcessPolicy(partial(onnx_policy, str(bundle.path)), bundle.manifest.robot))
        return made[-1]

    try:
        check_policy(make, bundle.manifest.robot, noise_shape=(6, 2))
        here, there = OnnxPolicy(bundle, seed=5), made[0]
        assert isinstance(there, Seedable)
        there.seed(5)
        for stamp in range(3):
            given = PolicyInput(obs={"q": np.full((2, 2), stamp / 4, np.float32)}, stamp_ns=stamp)
            np.testing.assert_array_equal(there.act(given).action, here.act(given).action)
    finally:
        for policy in made:
            policy.close()


def test_it_computes_elsewhere_and_everything_of_a_request_arrives(told):
    before = told.act(order(0)).action[0, 0]
    told.reset()
    chunk = told.act(order(5, 0.25, prefix=np.zeros((2, 2)), delay_steps=1))
    assert chunk.action.tolist() == [[before + 1, told.pid], [2, 1], [0.25, 0]]
    assert told.pid != os.getpid()
    assert (chunk.start_ns, chunk.step_ns, chunk.n_execute) == (11, STEP, 1)
    assert told.act(order(0, prefix=np.zeros((9, 2)))).action[1, 0] == 3  # no more rows than a chunk has


def test_errors_come_back_as_what_they_were_and_the_next_request_is_answered(told):
    with pytest.raises(SafetyStop, match=r"^the network answered NaN$"):
        told.act(order(2))
    with pytest.raises(SafetyStop, match=r"^inference failed: ValueError: out of ideas$"):
        told.act(order(1))
    assert told.act(order(0, 0.5)).action[2, 0] == 0.5
    assert isinstance(error_of("SpecError: `q` is wrong", SafetyStop), SpecError)


def test_a_request_of_the_wrong_shape_never_reaches_the_memory(told):
    for wrong, text in (
        (order(0, noise=np.zeros((3, 2))), "`noise` must be"),
        (order(0, prefix=np.zeros(2)), "prefix"),
    ):
        with pytest.raises(SpecError, match=text):
            told.act(wrong)
    assert not told.busy


def test_one_request_at_a_time_and_the_runner_delivers_as_of_when_it_was_done(told):
    executor = ChunkExecutor(n_execute=1, margin_ns=0)
    runner = ProcessRunner(told, executor, MonotonicClock())
    assert isinstance(runner, Runner)
    stamp = MonotonicClock().now_ns()
    runner.request(PolicyInput(obs=order(4, 0.06).obs, stamp_ns=stamp))
    with pytest.raises(ConfigError, match="a request is under way"):
        runner.request(order(0))
    while runner.busy:
        runner.poll(0)
        time.sleep(0.001)
    assert executor.counts.chunks == 1
    assert executor.counts.stale_actions >= 2  # 60 ms of thought leave the row of 100 ms at best
    assert runner.latency.min_ns >= 60_000_000
    runner.close()
    assert told.act(order(0, 2.0)).action[2, 0] == 2.0  # it outlives its runner
    with pytest.raises(ConfigError, match="needs a `ProcessPolicy`, got Told"):
        ProcessRunner(Told(), executor, MonotonicClock())
    with pytest.raises(ConfigError, match="must be MonotonicClock, got SimulatedClock"):
        ProcessRunner(told, executor, SimulatedClock())


def test_an_answer_nobody_waited_for_is_not_mistaken_for_the_next(told):
    runner = ProcessRunner(told, ChunkExecutor(n_execute=1), MonotonicClock())
    runner.request(order(4, 0.05))
    runner.close()
    assert told.act(order(0, 3.0)).action[2, 0] == 3.0


def test_its_death_stops_motion_and_says_so():
    with ProcessPolicy(Told, SPEC) as policy:
        policy.submit(order(3))
        with pytest.raises(SafetyStop, match=r"^the inference process ended with exit code 7$"):
            wait_for_answer(policy)
        with pytest.raises(SafetyStop, match="ended with exit code 7; make a new one"):
            policy.reset()


def test_its_silence_stops_motion_and_closing_ends_it_all_the_same():
    policy = ProcessPolicy(Told, SPEC, silence_s=0.3)
    policy.submit(order(4, 600.0))
    with pytest.raises(SafetyStop, match=r"has not answered for \d+\.\d\d s, at most 0.3 s allowed"):
        wait_for_answer(policy)
    with pytest.raises(SafetyStop, match="make a new one"):
        policy.act(order(0))
    pid, name = policy.pid, policy._block.name
    policy.close()
    policy.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(FileNotFoundError):
        SharedMemory(name)


def test_a_policy_that_cannot_be_opened_is_told_at_once():
    with pytest.raises(BundleError, match=r"^no such bundle$"):
        ProcessPolicy(broken_factory, SPEC)
    with pytest.raises(ConfigError, match="ended with exit code 3 before its policy was open"):
        ProcessPolicy(dying_factory, SPEC)
    with pytest.raises(ConfigError, match="`factory` must be picklable"):
        ProcessPolicy(lambda: Told(), SPEC)


ORPHAN = """
import os, sys, time
from tests.deploy.test_process_policy import SPEC, Told
from robot_rl.deploy.process_policy import ProcessPolicy

if __name__ == "__main__":
    policy = ProcessPolicy(Told, SPEC)
    print(policy.pid, flush=True)
    time.sleep(600)
"""


def test_it_dies_with_its_owner(tmp_path):
    script = tmp_path / "owner.py"
    script.write_text(ORPHAN)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    owner = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    pid = int(owner.stdout.readline())
    os.kill(pid, 0)  # it is there
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "the inference process outlives its owner"
        time.sleep(0.05)


def test_the_loop_drives_with_it_and_holds_and_says_why_when_it_dies():
    env, seen = PointEnv(), []
    with ProcessPolicy(Leaves, SPEC, silence_s=60.0) as policy:
        loop = ControlLoop(
            env, policy, free(obs_age_s=60.0, command_gap_s=60.0), rest_action=lambda obs: obs["q"], obs_names=["q"],
            make_runner=ProcessRunner, on_tick=seen.append, control_hz=100.0, policy_hz=20.0,
        )  # fmt: skip
        driven = loop.run(seed=0, ticks=100)
        assert driven.stopped is None
        assert driven.chunks.chunks >= 1
        assert seen[-1].action_executed.tolist() == [0.5, 0.5]
        seen.clear()
        stopped = loop.run(seed=30, ticks=2000)
    assert stopped.stopped == "e-stop: the inference process ended with exit code 7"
    assert stopped.ticks < 2000
    assert [tick.action_executed.tolist() for tick in seen[1:]] == [[3.0, 3.0]] * stopped.ticks
