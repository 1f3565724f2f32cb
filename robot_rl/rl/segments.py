"""Interventions as demonstrations: what HG-DAgger (Kelly et al. 2019, arXiv 1810.02890) adds to its data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robot_rl.data.recorder import TickRecorder
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec
from robot_rl.values import Episode, Obs, Recording, RecordingMeta, Tick


def human_segments(episode: Episode, spec: RobotSpec, *, least_steps: int = 2) -> Iterator[Recording]:
    """Yield each run of steps that a person drove as a recording of its own, in order.

    A segment is cut off at its end, unless the episode ended the task there. Its time starts at 0; where it came from
    stands in its metadata. A run without the observation after its last action is one step shorter.

    Args:
        episode: What an actor played.
        spec: What the recordings are to carry: the robot.
        least_steps: Shorter runs are left out.

    Raises:
        ConfigError: `least_steps` is below 1.
    """
    if least_steps < 1:
        raise ConfigError(f"`least_steps` must be at least 1, got {least_steps}")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(episode.by_human, np.int8), [0]])))
    for first, end in edges.reshape(-1, 2).tolist():
        last = end - 1 if end == len(episode) and episode.final_obs is None else end
        if last - first >= least_steps:
            yield _segment(episode, spec, first, last)


def _segment(episode: Episode, spec: RobotSpec, first: int, end: int) -> Recording:
    recorder = TickRecorder(spec)
    recorder.start(Tick(stamp_ns=0, obs=_obs(episode, spec, first)))
    for step in range(first, end):
        over = step == end - 1
        done = over and end == len(episode) and episode.terminated
        recorder.add(
            Tick(
                stamp_ns=(step - first + 1) * spec.step_ns, obs=_obs(episode, spec, step + 1),
                action=np.asarray(episode.action[step]), action_executed=np.asarray(episode.action_executed[step]),
                by_human=True, reward=float(episode.reward[step]), terminated=done, truncated=over and not done,
            )
        )  # fmt: skip
    meta = episode.meta
    origin = {"episode": episode.id, "first_step": first}
    return recorder.finish(
        RecordingMeta(task=meta.task, source="human", outcome="unknown", seed=meta.seed, extra={"segment_of": origin})
    )


def _obs(episode: Episode, spec: RobotSpec, step: int) -> Obs:
    if step == len(episode):
        assert episode.final_obs is not None
        return {name: np.asarray(episode.final_obs[name]) for name in spec.obs}
    return {name: np.asarray(episode.obs[name][step]) for name in spec.obs}
