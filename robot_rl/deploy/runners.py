"""Where inference happens: in the loop, in a worker thread, or with an assumed latency on a simulated clock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, runtime_checkable

from robot_rl.deploy.chunks import ChunkExecutor
from robot_rl.deploy.clock import Clock
from robot_rl.deploy.latency import LatencyHistogram
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
