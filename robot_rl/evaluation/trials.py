"""Trials one after the other until a sequential test has its answer, continued where a kill has stopped them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from robot_rl.errors import ConfigError
from robot_rl.evaluation.paired import PairedProgress, PairedTest
from robot_rl.evaluation.rungs import Check, RungResult
from robot_rl.evaluation.sequential import Progress, RateTest, Verdict
from robot_rl.evaluation.trial_log import TrialLog

Play = Callable[[Sequence[int]], Sequence[Mapping[str, Any]]]
"""Plays the episodes of some seeds and returns a row for each, in their order: `seed`, `success`, and more."""


class _Standing(Protocol):
    @property
    def verdict(self) -> Verdict: ...


S = TypeVar("S", bound=_Standing)


def play_until(
    log: TrialLog, play: Play, judge: Callable[[Sequence[Mapping[str, Any]]], S], *,
    first_seed: int, max_trials: int, block: int = 1, on_trial: Callable[[S], None] = lambda _: None,
) -> S:  # fmt: skip
    """Play seeds in order, from `first_seed` on, until the test decides or `max_trials` are played.

    Seeds are judged in their order, however long each took, or short successes would be counted before long failures.

    Args:
        log: Where rows go; those in it are not played again.
        play: Plays a block of seeds.
        judge: Says from all rows where the test stands.
        first_seed: Of the first trial.
        max_trials: Of the last.
        block: Seeds played at a time.
        on_trial: Called with the standing after every block.

    Raises:
        ConfigError: The log's seeds are not the ones that this test would have played.
    """
    expected = list(range(first_seed, first_seed + len(log)))
    if [row["seed"] for row in log.rows] != expected:
        raise ConfigError(f"{log.path} does not hold the seeds from {first_seed} on; use another folder or delete it")
    standing = judge(log.rows)
    on_trial(standing)
    while standing.verdict == "continue" and len(log) < max_trials:
        begin = first_seed + len(log)
        for row in play(range(begin, min(begin + block, first_seed + max_trials))):
            log.add(row)
        standing = judge(log.rows)
        on_trial(standing)
    return standing


def succeeded(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Return whether each trial succeeded."""
    return [bool(row["success"]) for row in rows]


def rate_rung(progress: Progress, test: RateTest) -> RungResult:
    """Return the rung that asks whether the bundle succeeds often enough."""
    said = (
        f"{progress.successes} of {progress.trials} trials: {progress.verdict}ed"
        if progress.verdict in ("accept", "reject")
        else f"{progress.successes} of {progress.trials} trials: {progress.verdict}, which is no acceptance"
    )
    said += f" (refuse at {100 * test.p0:g} %, pass at {100 * test.p1:g} %)"
    checks = [Check("success rate", progress.verdict == "accept", said)]
    return RungResult.of("simulation", checks, {**progress.to_dict(), "test": test.to_dict()})


def paired_rung(progress: PairedProgress, test: PairedTest, incumbent: str) -> RungResult:
    """Return the rung that asks whether the bundle is not worse than the incumbent."""
    c = progress.counts
    said = (
        f"{progress.verdict} after {c.n} pairs: alone in {c.wins}, the incumbent alone in {c.losses}; at most "
        f"{100 * test.margin:g} points worse shall pass"
    )
    checks = [Check("against the incumbent", progress.verdict == "accept", said)]
    settings = {"margin": test.margin, "alpha": test.alpha, "beta": test.beta, "max_pairs": test.max_pairs}
    return RungResult.of("incumbent", checks, {**progress.to_dict(), "test": settings, "bundle": incumbent})
