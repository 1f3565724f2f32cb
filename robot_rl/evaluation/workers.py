"""Worker processes that play episodes: spawned, one thread each, and heard of even when they crash."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path

from robot_rl.errors import ConfigError
from robot_rl.evaluation.rollouts import EpisodeResult, run_episode
from robot_rl.evaluation.video import Mp4Writer
from robot_rl.interfaces import Env, Policy

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode to play; `video` is where its mp4 goes, if anywhere."""

    seed: int
    video: Path | None = None
    frame_every: int = 1
    max_steps: int | None = None


@dataclass(frozen=True)
class Ready:
    """The worker has built its environment and policy."""


@dataclass(frozen=True)
class Failed:
    """The worker met an exception and ends; `seed` is `None` while it was still being set up."""

    seed: int | None
    traceback: str


Message = Ready | Failed | EpisodeResult


class Worker:
    """One spawned process and the pipe to it.

    Args:
        env_factory: Picklable, without arguments; called in the worker.
        policy_factory: Likewise.

    Raises:
        ConfigError: A factory cannot be pickled.
    """

    def __init__(self, env_factory: Callable[[], Env], policy_factory: Callable[[], Policy]) -> None:
        try:
            factories = pickle.dumps((env_factory, policy_factory))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"`env_factory` and `policy_factory` must be picklable, for they are called in another process: "
                f"{error}; use a function at module level or a functools.partial of one"
            ) from error
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.job: Job | None = None
        self.process = context.Process(target=_work, args=(theirs, factories), daemon=True)
        with _one_thread(), _deaf_to_ctrl_c():
            self.process.start()
        theirs.close()

    def send(self, job: Job) -> None:
        """Hand out the next episode."""
        self.job = job
        # A worker that died meanwhile is found out by `receive`, which then names this job.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(job)

    def receive(self) -> Message:
        """Return the worker's next message; a worker that died without a word is reported as `Failed`."""
        try:
            message: Message = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            seed = None if self.job is None else self.job.seed
            return Failed(seed, f"the worker process died without a traceback, exit code {self.process.exitcode}")
        return message

    def stop(self) -> None:
        """End the process and wait for it."""
        self.connection.close()
        self.process.join(timeout=2.0)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let a child inherit one thread for every numeric library: they read this when they load, before our code runs."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Let a child begin with SIGINT blocked: while it still imports, it could only print a traceback.

    A Ctrl-C that comes meanwhile is not lost: it reaches this process when the block ends.
    """
    resource_tracker.ensure_running()  # which unblocks signals when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, factories: bytes) -> None:
    """Play jobs until the pipe closes; report the first exception and end, so that no broken state is used again."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends us
    job: Job | None = None
    try:
        env_factory, policy_factory = pickle.loads(factories)  # our own parent's bytes
        env, policy = env_factory(), policy_factory()
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        connection.send(Ready())
        while True:
            job = connection.recv()
            connection.send(_play(env, policy, job))
    except EOFError:
        return  # the parent is done with us, or gone
    except Exception:
        with suppress(ConnectionError):  # gone in the middle of an episode: nobody is there to be told
            connection.send(Failed(None if job is None else job.seed, traceback.format_exc()))


def _play(env: Env, policy: Policy, job: Job) -> EpisodeResult:
    """Run one episode, with a video if asked for."""
    if job.video is None:
        return run_episode(env, policy, job.seed, record=False, max_steps=job.max_steps)[1]
    fps = env.spec.control_hz / job.frame_every
    with Mp4Writer(job.video, fps) as video:
        return run_episode(
            env, policy, job.seed, record=False, on_frame=video.add, frame_every=job.frame_every,
            max_steps=job.max_steps,
        )[1]  # fmt: skip
