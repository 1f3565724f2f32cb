"""An evaluation over many seeds in parallel processes; the answer does not depend on how many."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path

from robot_rl.errors import ConfigError, EvaluationError
from robot_rl.evaluation.ledger import Ledger
from robot_rl.evaluation.rollouts import EpisodeResult
from robot_rl.evaluation.summary import EvaluationMeta, EvaluationSummary, summarise
from robot_rl.evaluation.workers import Failed, Job, Ready, Worker
from robot_rl.interfaces import Env, Policy

MAX_FAILURES = 3


def evaluate(
    env_factory: Callable[[], Env],
    policy_factory: Callable[[], Policy],
    seeds: Sequence[int],
    *,
    workers: int = 1,
    on_result: Callable[[EpisodeResult], None] | None = None,
    out_dir: str | Path | None = None,
    video_episodes: int = 0,
    frame_every: int = 1,
    max_steps: int | None = None,
    meta: EvaluationMeta | None = None,
    level: float = 0.95,
) -> EvaluationSummary:
    """Play one episode a seed and return counts and means with intervals.

    Each worker is a spawned process with one numeric thread that builds its own environment and policy. With
    `out_dir` every result is written at once to `results.jsonl`; called again, only the missing seeds are played, and
    at the end `summary.json` is written beside it.

    Args:
        env_factory: Picklable callable without arguments (a function at module level, or a `functools.partial`).
        policy_factory: Likewise.
        seeds: Seeds of the episodes, each once.
        workers: Number of processes.
        on_result: Called once for every seed: first for those already on disk, then as they come in.
        out_dir: Folder for `results.jsonl`, `summary.json` and `videos/`.
        video_episodes: How many of the first seeds to film; needs `out_dir`.
        frame_every: Control steps between two video frames.
        max_steps: Truncate episodes after so many steps; `None` leaves that to the environment.
        meta: What is evaluated; results on disk of something else are refused.
        level: Confidence level of the intervals.

    Raises:
        ConfigError: Contradicting arguments, or `out_dir` holds another evaluation.
        EvaluationError: Seeds that could not be played, each with its traceback. The others are on disk.
    """
    _check(seeds, workers, video_episodes, out_dir)
    begin, seeds = time.monotonic(), [int(seed) for seed in seeds]
    meta = EvaluationMeta() if meta is None else meta
    folder = None if out_dir is None else Path(out_dir)
    ledger = None if folder is None else Ledger(folder / "results.jsonl", meta)
    on_disk = {} if ledger is None else ledger.results
    done = {seed: on_disk[seed] for seed in seeds if seed in on_disk}

    def collect(result: EpisodeResult) -> None:
        if ledger is not None and result.seed not in done:
            ledger.add(result)
        done[result.seed] = result
        if on_result is not None:
            on_result(result)

    for result in list(done.values()):
        collect(result)
    videos = {} if folder is None else {seed: _video_path(folder, seed) for seed in seeds[:video_episodes]}
    jobs = [
        Job(seed=seed, video=videos.get(seed), frame_every=frame_every, max_steps=max_steps)
        for seed in seeds
        if seed not in done
    ]
    _Crew(env_factory, policy_factory).play(jobs, workers, collect)
    summary = summarise(
        [done[seed] for seed in seeds], meta, wall_s=time.monotonic() - begin, workers=workers, level=level,
        videos=[str(path.relative_to(folder)) for path in videos.values() if folder is not None and path.exists()],
    )  # fmt: skip
    if folder is not None:
        summary.write(folder / "summary.json")
    return summary


def _check(seeds: Sequence[int], workers: int, video_episodes: int, out_dir: str | Path | None) -> None:
    """Raise on arguments that cannot be meant."""
    if len(seeds) == 0 or len(set(seeds)) != len(seeds):
        raise ConfigError(f"`seeds` must be distinct and not empty, got {len(seeds)} with {len(set(seeds))} distinct")
    if workers < 1:
        raise ConfigError(f"`workers` must be at least 1, got {workers}")
    if video_episodes > 0 and out_dir is None:
        raise ConfigError("`video_episodes` needs `out_dir`, where the videos go")


def _video_path(folder: Path, seed: int) -> Path:
    return folder / "videos" / f"seed_{seed:06d}.mp4"


class _Crew:
    """Hands jobs to workers, replaces those that fail, and remembers why they did."""

    def __init__(self, env_factory: Callable[[], Env], policy_factory: Callable[[], Policy]) -> None:
        self._factories = (env_factory, policy_factory)
        self._workers: list[Worker] = []
        self._queue: list[Job] = []
        self._failures: list[Failed] = []

    def play(self, jobs: Sequence[Job], workers: int, collect: Callable[[EpisodeResult], None]) -> None:
        """Play every job, then raise if any failed.

        Raises:
            EvaluationError: Names each failed seed with its traceback.
        """
        self._queue = list(jobs)
        try:
            for _ in range(min(workers, len(jobs))):
                self._workers.append(Worker(*self._factories))
            while self._workers:
                ready = set(wait([worker.connection for worker in self._workers]))
                for worker in [w for w in self._workers if w.connection in ready]:
                    self._listen(worker, collect)
        finally:
            for worker in self._workers:
                worker.stop()
        if self._failures:
            raise EvaluationError(self._report(len(jobs)))

    def _listen(self, worker: Worker, collect: Callable[[EpisodeResult], None]) -> None:
        """Take one message, and give that worker its next job or let it go."""
        message = worker.receive()
        if isinstance(message, Failed):
            self._failures.append(message)
            self._dismiss(worker)
            if self._queue and message.seed is not None and len(self._failures) < MAX_FAILURES:
                self._workers.append(Worker(*self._factories))
            return
        if not isinstance(message, Ready):
            collect(message)
        if self._queue and len(self._failures) < MAX_FAILURES:
            worker.send(self._queue.pop(0))
        else:
            self._dismiss(worker)

    def _dismiss(self, worker: Worker) -> None:
        self._workers.remove(worker)
        worker.stop()

    def _report(self, total: int) -> str:
        """Return what went wrong, seed by seed."""
        blocks = [
            f"{'setting up a worker' if f.seed is None else f'seed {f.seed}'}:\n{f.traceback.rstrip()}"
            for f in self._failures
        ]
        missing = len(self._queue) + sum(f.seed is not None for f in self._failures)
        return (
            f"{missing} of {total} seeds were not played. Mend the cause and run the same command again: "
            "what is on disk is kept.\n\n" + "\n\n".join(dict.fromkeys(blocks))
        )
