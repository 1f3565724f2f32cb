"""Where inference happens: in the loop, a worker thread, another process, or after an assumed latency."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, runtime_checkable

from robot_rl.deploy.chunks import ChunkExecutor
from robot_rl.deploy.clock import Clock, MonotonicClock
from robot_rl.deploy.latency import LatencyHistogram
from robot_rl.deploy.process_policy import ProcessPolicy
from robot_rl.errors import ConfigError
from robot_rl.interfaces import Policy
from robot_rl.values import PolicyInput


@runtime_checkable
class Runner(Protocol):
    """Computes chunks for an executor. One request at a time."""

    latency: LatencyHistogram

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""

    def request(self, policy_input: PolicyInput) -> None:
        """Ask for a chunk; its rows reach the executor when they are computed."""

    def poll(self, now_ns: int) -> None:
        """Let finished work be delivered and failures be raised."""

    def close(self) -> None:
        """Wait for the request under way and release the worker."""


class SyncRunner:
    """Computes in the loop: the loop waits, no row is stale, and the command is late by the inference time."""

    def __init__(self, policy: Policy, executor: ChunkExecutor, clock: Clock) -> None:
        self._policy, self._executor, self._clock = policy, executor, clock
        self.latency = LatencyHistogram()

    @property
    def busy(self) -> bool:
        """Never: a request returns when it is done."""
        return False

    def request(self, policy_input: PolicyInput) -> None:
        """Compute and load the chunk."""
        began = self._clock.now_ns()
        chunk = self._policy.act(policy_input)
        self.latency.record(self._clock.now_ns() - began)
        self._executor.load(chunk)

    def poll(self, now_ns: int) -> None:
        """Nothing is ever pending."""

    def close(self) -> None:
        """Nothing to release."""


class ThreadRunner:
    """Computes in a worker thread, which offers the chunk the moment it is done (ONNX Runtime releases the GIL)."""

    def __init__(self, policy: Policy, executor: ChunkExecutor, clock: Clock) -> None:
        self._policy, self._executor, self._clock = policy, executor, clock
        self.latency = LatencyHistogram()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self._pending: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether the worker is computing, or holds a failure that `poll` has not raised yet."""
        return self._pending is not None

    def request(self, policy_input: PolicyInput) -> None:
        """Hand the request to the worker."""
        if self._pending is not None:
            raise ConfigError("a request is under way; poll until the runner is not busy")
        self._pending = self._pool.submit(self._compute, policy_input)

    def poll(self, now_ns: int) -> None:
        """Raise what the worker raised."""
        if self._pending is not None and self._pending.done():
            finished, self._pending = self._pending, None
            finished.result()

    def close(self) -> None:
        """Wait for the worker and end it."""
        self._pool.shutdown(wait=True)
        self._pending = None

    def _compute(self, policy_input: PolicyInput) -> None:
        began = self._clock.now_ns()
        chunk = self._policy.act(policy_input)
        done = self._clock.now_ns()
        self.latency.record(done - began)
        self._executor.offer(chunk, done)


class AssumedLatencyRunner:
    """Delivers a chunk a stated time after it was asked for, whatever computing it took.

    For repeatable runs on a simulated clock, and for judging in simulation what a slower machine would do.

    Args:
        policy: Computes the chunks.
        executor: Takes them.
        delay_ns: Latency of the n-th request, n = 0, 1, ...
    """

    def __init__(self, policy: Policy, executor: ChunkExecutor, delay_ns: Callable[[int], int]) -> None:
        self._policy, self._executor, self._delay_ns = policy, executor, delay_ns
        self.latency = LatencyHistogram()
        self._n_requests = 0
        self._pending: tuple[int, PolicyInput] | None = None

    @property
    def busy(self) -> bool:
        """Whether a chunk is still to be delivered."""
        return self._pending is not None

    def request(self, policy_input: PolicyInput) -> None:
        """Note the request; the chunk is due after the stated latency."""
        if self._pending is not None:
            raise ConfigError("a request is under way; poll until the runner is not busy")
        delay = self._delay_ns(self._n_requests)
        self._n_requests += 1
        self.latency.record(delay)
        self._pending = policy_input.stamp_ns + delay, policy_input

    def poll(self, now_ns: int) -> None:
        """Deliver the chunk if its time has come, as of the time it was due."""
        if self._pending is not None and now_ns >= self._pending[0]:
            (done_ns, policy_input), self._pending = self._pending, None
            self._executor.offer(self._policy.act(policy_input), done_ns)

    def close(self) -> None:
        """Forget what is pending."""
        self._pending = None


class ProcessRunner:
    """Asks a policy in a process of its own (`ProcessPolicy`); the tick after a chunk is done picks it up.

    The rows that count as stale are those due when the chunk was done, as with a worker thread. The process outlives
    the runner: it is opened once and serves run after run.

    Args:
        policy: The policy in its process.
        executor: Takes the chunks.
        clock: The machine's monotonic clock, by which both processes go.

    Raises:
        ConfigError: Another kind of policy, or another clock.
    """

    def __init__(self, policy: Policy, executor: ChunkExecutor, clock: Clock) -> None:
        if not isinstance(policy, ProcessPolicy):
            raise ConfigError(f"`ProcessRunner` needs a `ProcessPolicy`, got {type(policy).__name__}")
        if not isinstance(clock, MonotonicClock):
            got = type(clock).__name__
            raise ConfigError(f"a process answers in real time; `clock` must be MonotonicClock, got {got}")
        self._policy, self._executor = policy, executor
        self.latency = LatencyHistogram()

    @property
    def busy(self) -> bool:
        """Whether a chunk is still to come."""
        return self._policy.busy

    def request(self, policy_input: PolicyInput) -> None:
        """Copy the request to the process."""
        self._policy.submit(policy_input)

    def poll(self, now_ns: int) -> None:
        """Take in the chunk if it is there; raise what the process raised, or that it died or is silent."""
        if (answer := self._policy.answer()) is not None:
            self.latency.record(answer.done_ns - answer.began_ns)
            self._executor.offer(answer.chunk, answer.done_ns)

    def close(self) -> None:
        """Wait for the request under way; the process stays."""
        self._policy.drain()
