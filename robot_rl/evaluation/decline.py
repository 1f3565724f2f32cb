"""Has the success rate fallen below a mark? Watched for ever, episode by episode, with a stated rate of false alarms.

A sum over possible beginnings of the decline, and over how deep it is, of likelihood ratios against the mark:

    R_j <- (R_j + 1) L_j(x),    L_j = q_j / b after a success, (1 - q_j) / (1 - b) after a failure,    q_j = d_j b
    alarm when the mean of R_j over j reaches `patience`

(Shiryaev-Roberts with a mixture; an e-detector: Shin, Ramdas and Rinaldo 2022, arXiv 2203.03532). While the rate is b
or better, E[L_j] <= 1, so that the mean of R less the number of episodes has no upward drift, and the mean number of
episodes before a false alarm is at least `patience`. A long run of successes buys no credit: they make what was found
against the mark fade, and no more than that.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from robot_rl.errors import ConfigError

DEPTHS = (0.35, 0.6, 0.8, 0.94)
"""What is left of the mark's rate, for the declines that are looked for."""
_CERTAIN = 1e-9


class Decline:
    """Evidence that a success rate is below a mark.

    Args:
        bound: b, the mark, a rate in [0, 1]; nothing is below 0.
        patience: Least mean number of episodes between two false alarms, above 1.

    Raises:
        ConfigError: A mark or patience out of range.
    """

    def __init__(self, bound: float, *, patience: float = 100.0) -> None:
        if not 0.0 <= bound <= 1.0 or not patience > 1.0:
            raise ConfigError(f"need `bound` from 0 to 1 and `patience` above 1 episode, got {bound} and {patience}")
        self.bound, self.patience = bound, patience
        mark = min(bound, 1.0 - _CERTAIN)
        left = np.array(DEPTHS)
        self._after_success, self._after_failure = left, (1.0 - left * mark) / (1.0 - mark)
        self._sums = np.zeros(len(DEPTHS))

    @property
    def evidence(self) -> float:
        """What is compared with `patience`; 0 before the first episode."""
        return float(self._sums.mean())

    @property
    def alarm(self) -> bool:
        """Whether the evidence is as strong as it has to be."""
        return self.bound > 0.0 and self.evidence >= self.patience

    def add(self, outcomes: Iterable[bool]) -> Decline:
        """Take episodes in, oldest first, and return itself; after an alarm nothing more is taken."""
        for success in outcomes:
            if self.alarm:
                break
            self._sums = (self._sums + 1.0) * (self._after_success if success else self._after_failure)
        return self
