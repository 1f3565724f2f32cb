"""The inference process's own side: opens the policy, says how large things are, and answers until told to end."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore

import numpy as np

from robot_rl.deploy.process_memory import Shape, SharedBlock
from robot_rl.deploy.promises import plain_rows
from robot_rl.errors import SpecError
from robot_rl.interfaces import Policy, Seedable
from robot_rl.specs import RobotSpec
from robot_rl.values import PolicyInput

ACT, RESET, SEED, END = range(4)
LOOK_S = 0.2
"""How often an idle process looks whether its owner still lives."""


def serve(
    connection: Connection, pickled: bytes, cores: Sequence[int] | None, asked: Semaphore, answered: Semaphore
) -> None:
    """Be the inference process.

    Args:
        connection: Takes the `Shape` or what went wrong, gives the name of the shared block; used once.
        pickled: The policy's factory and the robot's spec.
        cores: Cores to stay on.
        asked: Released by the owner for each request.
        answered: Released for each answer.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's; it ends this process in its own time
    if cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    try:
        factory, spec = pickle.loads(pickled)
        policy, shape = open_policy(factory, spec)
    except Exception as error:  # whatever it is, the owner raises it
        connection.send(describe(error))
        return
    try:
        connection.send(shape)
        name = connection.recv()
    except (EOFError, OSError):  # the owner is gone
        return
    block = SharedBlock(spec, shape, name)
    try:
        while _answer(policy, spec, block, asked):
            answered.release()
    finally:
        block.close()


def open_policy(factory: Callable[[], Policy], spec: RobotSpec) -> tuple[Policy, Shape]:
    """Build and warm up the policy; its random numbers are as fresh as before.

    Raises:
        SpecError: Its chunks do not fit the robot.
    """
    policy = factory()
    if hasattr(policy, "warm_up"):
        policy.warm_up()
    noise_shape = tuple(policy.noise_shape) if hasattr(policy, "noise_shape") else None
    noise = None if noise_shape is None else np.zeros(noise_shape, dtype=np.float32)
    chunk = policy.act(PolicyInput(obs=plain_rows(spec, policy.n_obs), stamp_ns=0, noise=noise))
    if chunk.action.shape[1:] != spec.action.shape:
        raise SpecError(f"the policy's actions must be {spec.action.describe()}, got shape {chunk.action.shape[1:]}")
    policy.reset()
    return policy, Shape(policy.n_obs, policy.n_execute, noise_shape, len(chunk))


def describe(error: BaseException) -> str:
    """Return an exception's type and message, for the owner to raise it again."""
    return f"{type(error).__name__}: {error}"


def _answer(policy: Policy, spec: RobotSpec, block: SharedBlock, asked: Semaphore) -> bool:
    """Wait for a request and carry it out; return false if it is time to end."""
    while not asked.acquire(timeout=LOOK_S):
        owner = parent_process()
        if owner is None or not owner.is_alive():
            return False
    request = block["request"]
    if request["operation"] == END:
        return False
    began, message = time.clock_gettime_ns(time.CLOCK_MONOTONIC), ""
    try:
        _carry_out(policy, spec, block)
    except Exception as error:  # whatever it is, the owner raises it
        message = describe(error)
    done = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    block.write_message(message)
    block.write_times(sequence=int(request["sequence"]), began_ns=began, done_ns=done)
    return True


def _carry_out(policy: Policy, spec: RobotSpec, block: SharedBlock) -> None:
    operation, value = int(block["request"]["operation"]), int(block["request"]["stamp_ns"])
    if operation == RESET:
        policy.reset()
    elif operation == SEED:
        if isinstance(policy, Seedable):
            policy.seed(value)
    else:
        chunk = policy.act(block.read_input(spec))
        if chunk.action.shape[1:] != spec.action.shape or len(chunk) > len(block["action"]):
            raise SpecError(f"a chunk must be [{len(block['action'])}, A] at most, got {chunk.action.shape}")
        block.write_chunk(chunk)
