"""A goal given from outside, while everything else is observed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from robot_rl.errors import SpecError
from robot_rl.interfaces import Policy, Seedable
from robot_rl.values import ActionChunk, Obs, PolicyInput


class GivenGoal:
    """A policy that reads `goal_<name>` observations, and the goals it is to reach; itself a `Policy`.

    The goals stand beside the observations of every call, the same at each observation step. Setting `goal` takes
    effect at the next call.

    Args:
        policy: Who acts.
        goal: One row of each goal, {goal_<name>: [...]}.

    Raises:
        SpecError: A name that does not start with `goal_`.
    """

    def __init__(self, policy: Policy, goal: Obs) -> None:
        self._policy = policy
        self.goal = goal

    @property
    def goal(self) -> Obs:
        """What is to be reached."""
        return self._goal

    @goal.setter
    def goal(self, goal: Obs) -> None:
        if wrong := sorted(name for name in goal if not name.startswith("goal_")):
            raise SpecError(f"goals must be called `goal_<name>`, got {wrong}")
        self._goal = {name: np.array(value) for name, value in goal.items()}

    @property
    def n_obs(self) -> int:
        """O, observation steps."""
        return self._policy.n_obs

    @property
    def n_execute(self) -> int:
        """Actions to execute before asking again."""
        return self._policy.n_execute

    def seed(self, seed: int) -> None:
        """Start the policy's noise over, where it has any."""
        if isinstance(self._policy, Seedable):
            self._policy.seed(seed)

    def reset(self) -> None:
        """Forget the last episode, not the goal."""
        self._policy.reset()

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        """Return the policy's chunk for what was observed and the goal."""
        goals = {name: np.repeat(value[None], self.n_obs, axis=0) for name, value in self._goal.items()}
        return self._policy.act(replace(policy_input, obs={**policy_input.obs, **goals}))
