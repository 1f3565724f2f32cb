"""More from the same PushT demonstrations, by symmetries of the task: goals in hindsight, and the mirror.

The people who gave the demonstrations stopped near the goal, not on it (mean coverage 0.899, 3.4 % above the success
threshold), so imitation learns to stop near it too. Wherever they stopped, that is where they had brought the block:
seen in hindsight it was the goal. Turning and shifting a whole demonstration so that its last block pose falls on the
goal keeps every relation between pusher and block, and teaches to finish. The idea of relabelling goals is HER's
(Andrychowicz et al. 2017, arXiv 1707.01495); here the world moves to the goal instead of the goal to the world.

The goal lies on the arena's diagonal and points along it, so reflection at that diagonal maps arena, goal and the T
(which is its own mirror image) onto themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from robot_rl.errors import ConfigError
from robot_rl.values import Episode

GOAL_POSE = (256.0, 256.0, np.pi / 4)
ARENA_PX = 512.0
_KNOWN = ("agent_pos", "block_pose")

Points = Callable[[np.ndarray], np.ndarray]
Angles = Callable[[np.ndarray], np.ndarray]


def hindsight(episode: Episode) -> Episode:
    """Return the demonstration turned and shifted so that its last block pose is the goal.

    Raises:
        ConfigError: The episode has no block pose.
    """
    if "block_pose" not in episode.obs:
        raise ConfigError(f"needs the observation `block_pose`, the episode has {sorted(episode.obs)}")
    x, y, angle = np.asarray(episode.obs["block_pose"][len(episode) - 1], dtype=np.float64)
    turn = (GOAL_POSE[2] - angle + np.pi) % (2 * np.pi) - np.pi
    c, s = np.cos(turn), np.sin(turn)
    rotation, last, goal = np.array([[c, -s], [s, c]]), np.array([x, y]), np.array(GOAL_POSE[:2])
    return _moved(episode, lambda p: (p - last) @ rotation.T + goal, lambda a: a + turn, suffix="hindsight")


def mirror(episode: Episode) -> Episode:
    """Return the demonstration reflected at the diagonal that the goal lies on: (x, y, a) to (512-y, 512-x, pi/2-a)."""
    return _moved(episode, lambda p: ARENA_PX - p[..., ::-1], lambda a: np.pi / 2 - a, suffix="mirror")


def hindsight_and_mirror(episode: Episode) -> list[Episode]:
    """Return the demonstration in hindsight, and its mirror image."""
    moved = hindsight(episode)
    return [moved, mirror(moved)]


def _moved(episode: Episode, points: Points, angles: Angles, *, suffix: str) -> Episode:
    """Apply a motion of the plane to positions, poses and actions; observations of other kinds are left out."""

    def moved(obs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        out = {}
        for name in (name for name in _KNOWN if name in obs):
            value = np.asarray(obs[name], dtype=np.float64)
            if name == "block_pose":
                value = np.concatenate([points(value[..., :2]), angles(value[..., 2:])], axis=-1)
            else:
                value = points(value)
            out[name] = np.ascontiguousarray(value, dtype=np.float32)
        return out

    whole = {name: episode.obs[name][:] for name in episode.obs if name in _KNOWN}
    return replace(
        episode,
        id=f"{episode.id}+{suffix}",
        obs=moved(whole),
        final_obs=None if episode.final_obs is None else moved(episode.final_obs),
        action=np.ascontiguousarray(points(np.asarray(episode.action, np.float64)), dtype=np.float32),
        action_executed=np.ascontiguousarray(points(np.asarray(episode.action_executed, np.float64)), dtype=np.float32),
        extras={},
    )
