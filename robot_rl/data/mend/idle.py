"""Head and tail in which nothing moves, found by the rule of `robot-rl check`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from robot_rl.data.align import Alignment, to_episode
from robot_rl.errors import SpecError, StoreError
from robot_rl.specs import RobotSpec
from robot_rl.values import Recording

LIVE = 0.1
"""An element counts that moves, in the median episode, over this share of its range in the store."""


@dataclass(frozen=True)
class Idle:
    """Ranges of the elements of states and actions over a store, side by side [D].

    Args:
        range: Largest less smallest value.
        live: Which elements move in an ordinary episode.
    """

    range: np.ndarray
    live: np.ndarray

    def window(self, recording: Recording, spec: RobotSpec, *, motion: float) -> tuple[int, int] | None:
        """Return the stamps of the first and last tick away from where the episode began and ended.

        Args:
            recording: The episode.
            spec: The robot.
            motion: Share of its range that an element may wander while idle.

        Returns:
            `None` where nothing moves in the whole episode.
        """
        stamps, x = table(recording, spec)
        x, wander = x[:, self.live], motion * self.range[self.live]
        moving_head = (np.abs(x - x[0]) > wander).any(axis=1)
        moving_tail = (np.abs(x - x[-1]) > wander).any(axis=1)
        if not moving_head.any():
            return None
        return int(stamps[moving_head.argmax()]), int(stamps[len(x) - 1 - moving_tail[::-1].argmax()])


def table(recording: Recording, spec: RobotSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return stamps int64 [N] and all numbers that are not pictures, float64 [N, D]: states, then the action."""
    episode = to_episode(recording, spec, Alignment())
    signals = [episode.obs[name][:] for name, about in spec.obs.items() if not about.is_image]
    columns = [np.asarray(rows, np.float64).reshape(len(episode), -1) for rows in (*signals, episode.action)]
    return episode.stamp_ns, np.concatenate(columns, axis=1)


def ranges(recordings: Iterable[Recording], spec: RobotSpec) -> Idle:
    """Return what `Idle` needs of a store.

    Raises:
        StoreError: There is no episode, or nothing moves in any.
    """
    ends = []
    for recording in recordings:
        with contextlib.suppress(SpecError):  # an episode that cannot be aligned has no range
            _, x = table(recording, spec)
            ends.append((x.min(axis=0), x.max(axis=0)))
    if not ends:
        raise StoreError("idle heads and tails are found by comparing with the store's ranges, but it has no episode")
    low, high = np.array([low for low, _ in ends]), np.array([high for _, high in ends])
    whole = high.max(axis=0) - low.min(axis=0)
    live = (whole > 0) & (np.median(high - low, axis=0) >= LIVE * whole)
    if not live.any():
        raise StoreError("no state and no action moves in these episodes, so that idle ends cannot be told from others")
    return Idle(whole, live)
