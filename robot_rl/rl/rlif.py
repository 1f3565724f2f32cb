"""RLIF: learn from interventions alone (Luo et al. 2024, arXiv 2311.12996). What it needs beside an off-policy learner.

No reward of the task: the step that led into a takeover costs 1, everything else nothing, so values lie in
[-1 / (1 - gamma), 0]. Demonstrations are relabelled with 0. Every step is stored and learned from once, the last one of
an episode and those inside an intervention too; the released code drops both, and `keep_expert_interior=False` drops
the latter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_rl.errors import ConfigError
from robot_rl.rl.interventions import LabelRule, intervention_reward
from robot_rl.rl.replay import REWARDS, Reward
from robot_rl.values import Episode

INTERVENTIONS = "interventions"
"""Name of the reward that configurations use."""


@dataclass(frozen=True, kw_only=True)
class InterventionLabels:
    """How RLIF reads an episode: its rewards (call it) and which steps are learned from (`kept`).

    Args:
        label_rule: `start` penalises the step before a takeover, `every` each step that a human one follows.
        reaction_lag_steps: The penalty also falls on so many steps before, for people who react late.
        keep_expert_interior: Learn from the steps inside an intervention, too.

    Raises:
        ConfigError: An unknown rule or a negative lag.
    """

    label_rule: LabelRule = "start"
    reaction_lag_steps: int = 0
    keep_expert_interior: bool = True

    def __post_init__(self) -> None:
        self._reward(np.zeros(0, bool))  # says what is wrong before anything is played

    def __call__(self, episode: Episode) -> np.ndarray:
        """Return the rewards [N]: of an actor's episode by who drove, of a demonstration 0."""
        if episode.meta.source != "policy":
            return np.zeros(len(episode))
        return self._reward(np.asarray(episode.by_human, bool))

    def kept(self, episode: Episode) -> np.ndarray:
        """Return where [N] a transition may begin: without the interior, not where a person goes on driving."""
        human = np.asarray(episode.by_human, bool)
        if self.keep_expert_interior:
            return np.ones(len(human), bool)
        following = np.append(human[1:], False)
        return np.asarray(~(human & following))

    def _reward(self, human: np.ndarray) -> np.ndarray:
        return intervention_reward(human, rule=self.label_rule, reaction_lag_steps=self.reaction_lag_steps)


def rewards_of(algo: Mapping[str, Any]) -> tuple[Reward, Callable[[Episode], np.ndarray] | None]:
    """Return what makes an algorithm's rewards and, if not all steps are learned from, what says which are.

    Args:
        algo: Its settings: `reward` is a name in `REWARDS`, or `interventions`, which `rlif` describes.

    Raises:
        ConfigError: No such reward, or settings that labels from interventions do not have.
    """
    name = algo["reward"]
    if name != INTERVENTIONS:
        if name not in REWARDS:
            raise ConfigError(f"`algo.reward` must be one of {sorted([*REWARDS, INTERVENTIONS])}, got {name!r}")
        return REWARDS[name], None
    try:
        labels = InterventionLabels(**algo.get("rlif", {}))
    except TypeError as error:
        raise ConfigError(f"`algo.rlif`: {error}; it has {sorted(InterventionLabels.__annotations__)}") from error
    return labels, labels.kept


def value_bounds(gamma: float) -> tuple[float, float]:
    """Return the least and the largest value there can be: one takeover at every step, and none.

    A takeover at every step is more than there can be under the rule `start`; the bound is the paper's.
    """
    return -1.0 / (1.0 - gamma), 0.0
