"""How much of a chunk to execute, from how far the horizons of a mixture disagree (arXiv 2511.19433, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from robot_rl.errors import ConfigError

STOPS = ("fewer", "at_most")


@dataclass(frozen=True)
class Consensus:
    """Executes as long as enough horizons reach the next step and do not disagree on it much more than on the first.

    The threshold is `ratio` times the mean disagreement of the first `n_min` steps. A disagreement that is not a
    number ends the execution there.

    Args:
        n_min: Steps that are always executed.
        min_active: How many horizons must reach a step beyond them.
        ratio: Factor on the mean disagreement of the first steps; 0 executes no more than they.
        stop: At a step that exactly `min_active` horizons reach, `fewer` goes on, as the paper writes, and `at_most`
            stops, as the authors' code does.
        strict: Stop at a disagreement equal to the threshold, as the code does; the paper goes on.

    Raises:
        ConfigError: A setting out of range.
    """

    n_min: int = 5
    min_active: int = 5
    ratio: float = 1.0
    stop: Literal["fewer", "at_most"] = "fewer"
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("n_min", "min_active"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if not self.ratio >= 0:
            raise ConfigError(f"`ratio` must be 0 or more, got {self.ratio}")
        if self.stop not in STOPS:
            raise ConfigError(f"`stop` must be one of {STOPS}, got {self.stop!r}")

    def check(self, horizons: Sequence[int], room: int) -> None:
        """Raise unless a policy can execute by this rule.

        Args:
            horizons: Of the policy's mixture; empty if it has none.
            room: Steps of its chunk from the newest observation on.

        Raises:
            ConfigError: It has no horizons to disagree, or a chunk shorter than `n_min`.
        """
        if not horizons:
            raise ConfigError("`consensus` needs a policy with a mixture of horizons; this one gives no disagreement")
        if room < self.n_min:
            raise ConfigError(f"`n_min` is {self.n_min}, but a chunk has only {room} steps to execute")

    def steps(self, disagreement: np.ndarray, horizons: Sequence[int]) -> int:
        """Return how many actions of a chunk to execute.

        Args:
            disagreement: Of each step that can be executed, [H], in any unit; it counts in ratios only.
            horizons: How many of these steps each horizon reaches.

        Raises:
            ConfigError: The chunk is shorter than `n_min`.
        """
        if len(disagreement) < self.n_min:
            raise ConfigError(f"`n_min` is {self.n_min}, but a chunk has only {len(disagreement)} steps to execute")
        threshold = self.ratio * float(np.mean(disagreement[: self.n_min]))
        needed = self.min_active + (self.stop == "at_most")
        n = self.n_min
        while n < len(disagreement) and sum(h > n for h in horizons) >= needed:
            agrees = disagreement[n] < threshold if self.strict else disagreement[n] <= threshold
            if not agrees:
                break
            n += 1
        return n


def due_steps(
    rule: Consensus, disagreement: np.ndarray, horizons: Sequence[int], *, action_offset: int = 0
) -> np.ndarray:
    """Return how many actions of each chunk to execute, int [B], counted from the newest observation.

    Args:
        rule: The rule.
        disagreement: [B, H] of a model's whole chunks.
        horizons: Of the model's mixture.
        action_offset: Control step of a whole chunk's first action relative to the newest observation.
    """
    reach = [h + action_offset for h in horizons]
    return np.array([rule.steps(row[-action_offset:], reach) for row in disagreement], dtype=np.int64)
