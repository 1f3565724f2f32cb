"""How far a task still is from done, in metres, from observations: what an operator who watches would see."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from robot_rl.errors import ConfigError
from robot_rl.values import Obs
from sim.insert import PEG_LENGTH_M

_NEAR_M = 0.02  # so near to the cube the fingers close


def insert_to_go(obs: Obs, *, depth_m: float = 0.03) -> float:
    """Return the distance of the peg's tip to its place in the hole."""
    peg, hole = np.asarray(obs["peg_pose"], float), np.asarray(obs["hole_pose"], float)
    up = np.cross(peg[3:6], peg[6:9])
    tip, place = peg[:3] - PEG_LENGTH_M / 2 * up, hole[:3] - [0.0, 0.0, depth_m]
    return float(np.linalg.norm(tip - place))


def lift_to_go(obs: Obs, *, height_m: float = 0.13, open_m: float = 0.08) -> float:
    """Return the way of the hand to the cube, of the fingers to each other, and of the cube up."""
    cube = np.asarray(obs["cube_pose"], float)[:3]
    reach = float(np.linalg.norm(np.asarray(obs["tcp_pose"], float)[:3] - cube))
    fingers = float(obs["gripper_width"][0]) if reach < _NEAR_M else open_m
    return reach + fingers + max(0.0, height_m - float(cube[2]))


_TASKS: Mapping[str, Callable[[Obs], float]] = {"insert": insert_to_go, "lift": lift_to_go}


class ToGo:
    """The distance of a task by its name.

    Raises:
        ConfigError: A task without one.
    """

    def __init__(self, task: str) -> None:
        if task not in _TASKS:
            raise ConfigError(f"`task` must be one of {sorted(_TASKS)}, whose distance is known; got {task!r}")
        self._measure = _TASKS[task]

    def __call__(self, obs: Obs) -> float:
        """Return metres to go at one observation step."""
        return self._measure(obs)
