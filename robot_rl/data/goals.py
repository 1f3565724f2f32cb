"""Goals for training, in hindsight: what an episode came to later is what it was after (HER, arXiv 1707.01495).

Each step of an episode gets the observation `goal_<name>`: `<name>` as it was a while later in the same episode. A
policy that reads it (`policies.goal`) learns to get there. Nothing is copied: goals are views of its rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from robot_rl.data.rows import RowView
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec
from robot_rl.values import Episode

PREFIX = "goal_"


@dataclass(frozen=True)
class HindsightGoals:
    """Gives the steps of an episode goals from their own future; an `augment` of training.

    Args:
        names: Observations whose future is the goal.
        ahead: How many steps later, (least, most), each equally likely; beyond the end, the last valid step counts.
            `None` takes the episode's last valid step always.
        copies: Episodes to return, each with goals drawn anew.
        seed: With an episode's id it fixes what is drawn for it, whatever other episodes there are.

    Raises:
        ConfigError: No names, a range that is not 0 <= least <= most, or no copies.
    """

    names: Sequence[str]
    ahead: tuple[int, int] | None = None
    copies: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.names or self.copies < 1:
            raise ConfigError(
                f"need `names` of observations and at least 1 of `copies`, got {list(self.names)}, {self.copies}"
            )
        if self.ahead is not None and not 0 <= self.ahead[0] <= self.ahead[1]:
            raise ConfigError(f"`ahead` must be (least, most) steps with 0 <= least <= most, got {tuple(self.ahead)}")

    def __call__(self, episode: Episode) -> list[Episode]:
        """Return the episode with goals, `copies` times.

        Raises:
            ConfigError: It lacks an observation, or has no valid step.
        """
        if missing := sorted(set(self.names) - set(episode.obs)):
            raise ConfigError(f"episode `{episode.id}` has no observation {missing}; it has {sorted(episode.obs)}")
        valid = np.flatnonzero(episode.valid)
        if len(valid) == 0:
            raise ConfigError(f"episode `{episode.id}` has no valid step to take a goal from")
        rng = np.random.default_rng([self.seed, zlib.crc32(episode.id.encode())])
        return [self._with_goals(episode, int(valid[-1]), rng, copy) for copy in range(self.copies)]

    def _with_goals(self, episode: Episode, last: int, rng: np.random.Generator, copy: int) -> Episode:
        steps = np.arange(len(episode))
        goal = np.full(len(episode), last)
        if self.ahead is not None:
            later = steps + rng.integers(self.ahead[0], self.ahead[1], size=len(episode), endpoint=True)
            goal = np.minimum(later, np.maximum(last, steps))
        goals = {f"{PREFIX}{name}": RowView(episode.obs[name], goal) for name in self.names}
        final = episode.final_obs
        if final is not None:
            final = {**final, **{name: np.asarray(rows[len(episode) - 1]) for name, rows in goals.items()}}
        return replace(episode, id=f"{episode.id}+goal{copy}", obs={**episode.obs, **goals}, final_obs=final)


def goal_spec(spec: RobotSpec, names: Sequence[str]) -> RobotSpec:
    """Return the robot with the observation `goal_<name>` beside each of the named ones.

    Raises:
        SpecError: A name this robot does not have.
    """
    goals = [replace(array, name=f"{PREFIX}{name}") for name, array in spec.select(names).obs.items()]
    return replace(spec, obs={**spec.obs, **{array.name: array for array in goals}})
