"""A policy that computes in a process of its own: no interpreter lock, no allocator and no core shared with the loop.

Observations and chunks pass through shared memory, one request at a time, handed over by a pair of semaphores. A
process that dies, or is silent for too long, is never asked again: every later call is a `SafetyStop` that says why.
"""

from __future__ import annotations

import logging
import pickle
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Semaphore

from robot_rl import errors
from robot_rl.deploy.process_memory import Shape, SharedBlock, checked_obs
from robot_rl.deploy.process_worker import ACT, END, RESET, SEED, serve
from robot_rl.errors import ConfigError, RobotRLError, SafetyStop, SpecError
from robot_rl.interfaces import Policy
from robot_rl.specs import RobotSpec
from robot_rl.values import ActionChunk, PolicyInput

log = logging.getLogger(__name__)

LOOK_S = 0.05
"""How often a caller that waits looks whether the process still lives."""


@dataclass(frozen=True)
class Answer:
    """A chunk, and when its computing began and ended on the monotonic clock."""

    chunk: ActionChunk
    began_ns: int
    done_ns: int


class ProcessPolicy:
    """Runs a policy in a spawned process; a `robot_rl.interfaces.Policy`, and what `ProcessRunner` needs.

    The policy is open and warm when the constructor returns. Close it, or use it as a context manager; the process also
    ends when its owner does, however that ends.

    Args:
        factory: Makes the policy, in the process: a function at module level, or a functools.partial of one.
        spec: The robot, with exactly the observations that the policy reads.
        silence_s: How long a request may take before the process counts as failed. The loop holds long before.
        start_s: How long opening and warming up may take.
        cores: Cores the process stays on; `None` leaves it to the operating system.

    Raises:
        ConfigError: A time that is not positive, a factory that cannot be pickled, or a process that does not start.
        RobotRLError: What the factory raised (`BundleError`, ...).
    """

    def __init__(
        self,
        factory: Callable[[], Policy],
        spec: RobotSpec,
        *,
        silence_s: float = 2.0,
        start_s: float = 120.0,
        cores: Sequence[int] | None = None,
    ) -> None:
        if not silence_s > 0 or not start_s > 0:
            raise ConfigError(f"`silence_s` and `start_s` must be positive, got {silence_s} and {start_s}")
        try:
            pickled = pickle.dumps((factory, spec))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"`factory` must be picklable, for it is called in another process: {error}; use a function at module "
                "level or a functools.partial of one"
            ) from error
        self.spec, self._silence_ns = spec, round(silence_s * 1e9)
        context = get_context("spawn")
        self._asked, self._answered = context.Semaphore(0), context.Semaphore(0)
        mine, theirs = context.Pipe()
        arguments = (theirs, pickled, None if cores is None else list(cores), self._asked, self._answered)
        self._process = context.Process(target=serve, args=arguments, name="inference", daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._shape = _shape_of(mine, self._process, start_s)
            self._block = SharedBlock(spec, self._shape)
            mine.send(self._block.name)
        except BaseException:
            self._process.kill()
            self._process.join()
            raise
        finally:
            mine.close()
        self._end = weakref.finalize(self, _end, self._process, self._block, self._asked)
        self._sequence, self._failed = 0, ""
        self._since_ns: int | None = None
        log.info("inference runs in process %s", self._process.pid)

    @property
    def n_obs(self) -> int:
        """O, how many observation steps `act` needs."""
        return self._shape.n_obs

    @property
    def n_execute(self) -> int:
        """How many actions of a chunk to execute before asking again."""
        return self._shape.n_execute

    @property
    def pid(self) -> int | None:
        """The process's number."""
        return self._process.pid

    @property
    def busy(self) -> bool:
        """Whether a request has not been answered yet."""
        return self._since_ns is not None

    def reset(self) -> None:
        """Forget the last episode."""
        self._call(RESET)

    def seed(self, seed: int) -> None:
        """Start the policy's random numbers over, if it draws any."""
        self._call(SEED, seed)

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        """Return a chunk whose row 0 is due at `policy_input.stamp_ns`; waits for the process.

        Raises:
            SpecError: An observation, the noise or the prefix is not what it should be.
            SafetyStop: The policy raised it, or the process died or was silent for too long.
        """
        self.submit(policy_input)
        return self._wait().chunk

    def submit(self, policy_input: PolicyInput) -> None:
        """Hand over a request and return at once; `answer` gives the chunk.

        Raises:
            ConfigError: A request is under way.
            SpecError: An observation, the noise or the prefix has another shape or dtype.
            SafetyStop: The process has failed.
        """
        obs = checked_obs(self.spec, self.n_obs, policy_input.obs)
        noise, prefix = policy_input.noise, policy_input.prefix
        if noise is not None and (noise.shape != self._shape.noise or noise.dtype.kind != "f"):
            raise SpecError(f"`noise` must be float{self._shape.noise}, got {noise.dtype}{noise.shape}")
        if prefix is not None and (prefix.ndim != 2 or prefix.shape[1] != self.spec.action.size):
            raise SpecError(f"`prefix` must be [P, {self.spec.action.size}], got {prefix.shape}")
        self._begin(ACT, policy_input.stamp_ns)
        self._block.write_input(self.spec, replace(policy_input, obs=obs))
        self._asked.release()

    def answer(self) -> Answer | None:
        """Return the answer to the request under way, or `None` if it is not there yet.

        Raises:
            SpecError: As of `act`.
            SafetyStop: As of `act`.
        """
        if self._since_ns is None or not self._take(0.0):
            return None
        reply = self._block["reply"]
        return Answer(self._block.read_chunk(), int(reply["began_ns"]), int(reply["done_ns"]))

    def drain(self) -> None:
        """Wait for the request under way and forget its answer; a failure is raised by the next request."""
        while self._since_ns is not None:
            try:
                self._take(LOOK_S)
            except RobotRLError as error:
                log.warning("the last answer is not used: %s", error)

    def close(self) -> None:
        """End the process and release the memory. Calling it twice is allowed."""
        self._failed = self._failed or "the inference process was closed"
        self._since_ns = None
        self._end()

    def __enter__(self) -> ProcessPolicy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, operation: int, value: int = 0) -> None:
        """Have something done that has no answer but that it is done."""
        self.drain()
        self._begin(operation, value)
        self._asked.release()
        while not self._take(LOOK_S):
            pass

    def _wait(self) -> Answer:
        while not self._take(LOOK_S):
            pass
        reply = self._block["reply"]
        return Answer(self._block.read_chunk(), int(reply["began_ns"]), int(reply["done_ns"]))

    def _begin(self, operation: int, value: int) -> None:
        if self._failed:
            raise SafetyStop(f"{self._failed}; make a new one")
        if self._since_ns is not None:
            raise ConfigError("a request is under way; take its answer first")
        self._sequence += 1
        self._block.write_request(self._sequence, operation, value)
        self._since_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def _take(self, patience_s: float) -> bool:
        """Return whether the answer came in this time; raise what it says, or why none will come."""
        if self._since_ns is None:
            raise ConfigError("no request is under way")
        if not self._answered.acquire(timeout=patience_s):
            self._check_alive(self._since_ns)
            return False
        self._since_ns = None
        if int(self._block["reply"]["sequence"]) != self._sequence:
            raise self._fail(f"the inference process answered a request other than the last, {self._sequence}")
        if message := self._block.read_message():
            raise error_of(message, SafetyStop)
        return True

    def _check_alive(self, since_ns: int) -> None:
        if (code := self._process.exitcode) is not None:
            raise self._fail(f"the inference process ended with exit code {code}")
        silent_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - since_ns
        if silent_ns > self._silence_ns:
            raise self._fail(
                f"the inference process has not answered for {silent_ns / 1e9:.2f} s, "
                f"at most {self._silence_ns / 1e9:g} s allowed"
            )

    def _fail(self, reason: str) -> SafetyStop:
        self._failed, self._since_ns = reason, None
        return SafetyStop(reason)


def error_of(text: str, otherwise: type[RobotRLError]) -> RobotRLError:
    """Return the exception that `describe` described: of this project's types as it was, any other as `otherwise`."""
    name, _, message = text.partition(": ")
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, RobotRLError) and kind is not errors.MissingExtraError:
        return kind(message)
    return otherwise(f"inference failed: {text}")


def _shape_of(connection: Connection, process: BaseProcess, start_s: float) -> Shape:
    """Return what the process says when its policy is open."""
    try:
        told = connection.recv() if connection.poll(start_s) else None
    except EOFError:
        process.join()
        raise ConfigError(
            f"the inference process ended with exit code {process.exitcode} before its policy was open"
        ) from None
    if told is None:
        raise ConfigError(f"the inference process has not opened its policy within {start_s:g} s")
    if isinstance(told, str):
        raise error_of(told, ConfigError)
    shape: Shape = told
    return shape


def _end(process: BaseProcess, block: SharedBlock, asked: Semaphore) -> None:
    """End the process, by force if it does not answer, and remove the memory."""
    if process.is_alive():
        block.write_request(0, END)
        asked.release()
        process.join(1.0)
    if process.is_alive():
        process.kill()
    process.join()
    block.close()
