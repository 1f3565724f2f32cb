"""Grippers as choices, not as numbers: classes, what changing their state costs, and a critic that picks one.

HIL-SERL (Luo et al. 2024, arXiv 2410.21845) drives the arm by soft actor-critic and the gripper by a small Q-network
over its commands. The penalty reaches that network alone. Levels are in the agent's unit (`robot_rl.rl.actions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robot_rl.errors import ConfigError, SpecError
from robot_rl.rl.actions import ActionScaler
from robot_rl.rl.interventions import gripper_penalty
from robot_rl.values import Episode


@dataclass(frozen=True)
class GripperChoice:
    """Which elements of the action are grippers, and the commands among which each chooses.

    Args:
        elements: Their places in the action, G of them; negative ones count from the end.
        levels: Commands from closed to open, in the agent's unit: (close, open) for a gripper told its width,
            (-1, 0, 1) for one that is told to close, hold or open.

    Raises:
        ConfigError: No element, or levels that do not rise.
    """

    elements: tuple[int, ...]
    levels: tuple[float, ...] = (-1.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(int(i) for i in self.elements))
        object.__setattr__(self, "levels", tuple(float(x) for x in self.levels))
        if not self.elements or len(self.levels) < 2 or np.any(np.diff(self.levels) <= 0):
            raise ConfigError(
                f"a gripper needs `elements` and two or more rising `levels`, got {self.elements} and {self.levels}"
            )

    @property
    def n_classes(self) -> int:
        """Joint commands of all grippers: levels to the power of G."""
        return int(len(self.levels) ** len(self.elements))

    def places(self, width: int) -> tuple[int, ...]:
        """Return the elements counted from the start of an action of that width.

        Raises:
            ConfigError: One lies outside the action, or twice in it.
        """
        places = tuple(i + width if i < 0 else i for i in self.elements)
        if len(set(places)) != len(places) or not all(0 <= i < width for i in places):
            raise ConfigError(f"`elements` must be distinct places in an action of {width}, got {self.elements}")
        return places

    def level_of(self, command: Any) -> np.ndarray:
        """Return the nearest level of commands [...], int64; a command in the middle of two takes the inner one."""
        n = len(self.levels)
        inner_first = sorted(range(n), key=lambda k: abs(k - (n - 1) / 2))
        distance = np.abs(np.asarray(command, np.float64)[..., None] - np.asarray(self.levels)[inner_first])
        nearest: np.ndarray = np.asarray(inner_first)[distance.argmin(-1)]
        return nearest

    def class_of(self, levels: np.ndarray) -> np.ndarray:
        """Return the joint class of levels [..., G], the first gripper's the most significant (3 left + right)."""
        weights = len(self.levels) ** np.arange(len(self.elements) - 1, -1, -1)
        return np.asarray((np.asarray(levels, np.int64) * weights).sum(-1))

    def levels_of(self, joint: np.ndarray) -> np.ndarray:
        """Return the levels [..., G] of joint classes [...]."""
        weights = len(self.levels) ** np.arange(len(self.elements) - 1, -1, -1)
        return np.asarray(np.asarray(joint, np.int64)[..., None] // weights % len(self.levels))

    def commands_of(self, joint: np.ndarray) -> np.ndarray:
        """Return the commands [..., G] of joint classes [...], in the agent's unit."""
        commands: np.ndarray = np.asarray(self.levels)[self.levels_of(joint)]
        return commands


@dataclass(frozen=True)
class Opening:
    """Where an observation says how far a gripper is open.

    Args:
        obs: Name of the observation.
        closed: What it says when closed.
        open: What it says when open.
        element: Which of its elements, flattened.
    """

    obs: str
    closed: float
    open: float
    element: int = 0


class GripperPenalty:
    """What an episode's gripper commands cost: a `robot_rl.rl.replay.Reward` to be added to another.

    With an `opening` for each gripper the rule is HIL-SERL's: closing an open one and opening a closed one costs. On a
    slow gripper that is one change charged at each of several steps. Without, a command that differs from the one
    before costs (a departure), once a change, and an episode's first is free.

    Args:
        choice: The grippers.
        scaler: Between physical actions and the agent's unit.
        openings: Of each gripper, or empty.
        penalty: Cost of a change, as a positive number.
        open_above: Share of the opening from which on a gripper counts as open.

    Raises:
        ConfigError: Another number of openings than grippers.
    """

    def __init__(
        self,
        choice: GripperChoice,
        scaler: ActionScaler,
        *,
        openings: Sequence[Opening] = (),
        penalty: float = 0.02,
        open_above: float = 0.9,
    ) -> None:
        if len(openings) not in (0, len(choice.elements)):
            raise ConfigError(
                f"`openings` must be one for each of {len(choice.elements)} grippers, got {len(openings)}"
            )
        self.choice, self.openings = choice, tuple(openings)
        self._scaler, self._penalty, self._open_above = scaler, penalty, open_above

    def __call__(self, episode: Episode) -> np.ndarray:
        """Return the penalty [N] of each step, 0 or negative.

        Raises:
            SpecError: The episode lacks an observation of an opening.
        """
        places = list(self.choice.places(episode.action.shape[-1]))
        command = np.asarray(self._scaler.to_agent(np.asarray(episode.action, np.float64)))[:, places]  # [N, G]
        if not self.openings:
            level = self.choice.level_of(command)
            changed = np.concatenate([np.zeros((1, level.shape[1]), bool), level[1:] != level[:-1]])
            return np.asarray(-abs(self._penalty) * changed.sum(1))
        low, high = self.choice.levels[0], self.choice.levels[-1]
        told = 2 * (command - low) / (high - low) - 1
        parts = [
            gripper_penalty(_opening(episode, given), told[:, g], penalty=self._penalty, open_above=self._open_above)
            for g, given in enumerate(self.openings)
        ]
        return np.asarray(np.sum(parts, axis=0))


def _opening(episode: Episode, where: Opening) -> np.ndarray:
    """Return how far a gripper was open before each command, float64 [N], 1 for open."""
    if where.obs not in episode.obs:
        raise SpecError(f"the opening is to be read from `{where.obs}`, which episode {episode.id} does not hold")
    rows = np.asarray(episode.obs[where.obs][:], np.float64).reshape(len(episode), -1)
    return np.asarray((rows[:, where.element] - where.closed) / (where.open - where.closed))


class GripperCritic(nn.Module):
    """Values of every joint gripper command: linear, layer norm, tanh for each hidden layer, then linear.

    Args:
        n_features: C.
        n_classes: K.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, n_features: int, n_classes: int, *, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = n_features
        for out in hidden:
            layers += [nn.Linear(width, out), nn.LayerNorm(out), nn.Tanh()]
            width = out
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Return values [B, K] for features [B, C]."""
        out: Tensor = self.layers(features)
        return out


def double_q_target(reward: Tensor, bootstrap: Tensor, online: Tensor, target: Tensor) -> Tensor:
    """Return r + bootstrap Q'(s', argmax Q(s', .)) [B] (van Hasselt et al. 2016, arXiv 1509.06461).

    Args:
        reward: [B], with the penalty in it.
        bootstrap: [B].
        online: [B, K], values of the next state by the network that chooses.
        target: [B, K], by the one that judges.
    """
    return reward + bootstrap * target.gather(1, online.argmax(1, keepdim=True))[:, 0]


def chosen(q: Tensor, joint: Tensor) -> Tensor:
    """Return the values [B] of the commands that were given, int64 [B], of q [B, K]."""
    return q.gather(1, joint[:, None].to(torch.int64))[:, 0]
