"""Labels from who drove: interventions as reward, gripper toggles, and how far a person's corrections reach.

RLIF (Luo et al. 2024, arXiv 2311.12996): a person who takes over says that the step before was bad, and nothing else is
said about the task. Flags are stored with every step; what they mean is decided when learning.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from robot_rl.errors import ConfigError

LabelRule = Literal["start", "every"]


def intervention_starts(by_human: np.ndarray) -> np.ndarray:
    """Return where a person took over, bool [N]: the first step of each run of `by_human` [N]."""
    flags = np.asarray(by_human, dtype=bool)
    before = np.concatenate([[False], flags[:-1]])
    return np.asarray(flags & ~before)


def intervention_reward(by_human: np.ndarray, *, rule: LabelRule = "start", reaction_lag_steps: int = 0) -> np.ndarray:
    """Return RLIF's reward, float64 [N]: -1 for the step that led into an intervention, else 0 (paper, section 4).

    All N steps are kept, those of the person and the last one too; the released code drops both.

    Args:
        by_human: [N], whether a person drove at each step.
        rule: `start` penalises the step before a takeover; `every` each step that is followed by a human one.
        reaction_lag_steps: People react late: the penalty also falls on so many steps before, as long as the policy
            drove them. 0 is the paper's.

    Raises:
        ConfigError: An unknown rule or a negative lag.
    """
    if rule not in ("start", "every"):
        raise ConfigError(f"`rule` must be `start` or `every`, got {rule!r}")
    if reaction_lag_steps < 0:
        raise ConfigError(f"`reaction_lag_steps` must not be negative, got {reaction_lag_steps}")
    flags = np.asarray(by_human, dtype=bool)
    events = intervention_starts(flags) if rule == "start" else flags
    reward = np.zeros(len(flags))
    for step in np.flatnonzero(events):
        if step == 0:
            continue  # nothing led into it
        reward[step - 1] = -1.0
        for lag in range(1, reaction_lag_steps + 1):
            earlier = step - 1 - lag
            if earlier < 0 or flags[earlier]:
                break
            reward[earlier] = -1.0
    return reward


def gripper_penalty(
    opening: np.ndarray, command: np.ndarray, *, penalty: float = 0.02, open_above: float = 0.9
) -> np.ndarray:
    """Return HIL-SERL's penalty of gripper commands that change its state, float64 [N] (arXiv 2410.21845).

    Closing an open gripper and opening a closed one cost `penalty`; repeating its state and holding are free.

    Args:
        opening: [N], how far the gripper was open before each command, 1 for open.
        command: [N], below -0.5 closes, above 0.5 opens, anything between holds.
        penalty: Cost of a change, as a positive number.
        open_above: Opening from which on it counts as open.
    """
    is_open = np.asarray(opening) > open_above
    close, release = np.asarray(command) < -0.5, np.asarray(command) > 0.5
    return np.where((close & is_open) | (release & ~is_open), -abs(penalty), 0.0)


def out_of_reach(action_human: np.ndarray, action_base: np.ndarray, bound: float) -> float:
    """Return the share of corrections that a residual of at most `bound` cannot reproduce, NaN without any.

    Args:
        action_human: [M, A], what people did, in the residual's normalised units.
        action_base: [M, A], what the base policy would have done.
        bound: Largest residual of each element.
    """
    if len(action_human) == 0:
        return float("nan")
    return float(np.mean(np.abs(np.asarray(action_human) - action_base).max(axis=1) > bound))
