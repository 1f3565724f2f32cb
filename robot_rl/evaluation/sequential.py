"""Tests that may stop as soon as the trials have said enough, with error rates that are stated and not assumed.

Wald's sequential probability ratio test (1945) for one success rate, and the beta mixture of Robbins (1970), an
interval that holds at every number of trials at once. A fixed-n interval read after an early stop is too good; this one
is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import optimize, special

from robot_rl.errors import ConfigError
from robot_rl.evaluation.statistics import Interval

Verdict = Literal["accept", "reject", "continue", "undecided"]


@dataclass(frozen=True)
class ErrorRates:
    """What a sequential test does at one true rate, exactly.

    Args:
        accept: Probability that it accepts.
        reject: Probability that it rejects; the rest reaches the last trial undecided.
        trials: Expected number of trials.
    """

    accept: float
    reject: float
    trials: float


@dataclass(frozen=True)
class Progress:
    """Where a sequential test stands.

    Args:
        verdict: `accept`, `reject`, `continue`, or `undecided` after the last trial.
        trials: Trials that counted: later ones than the decision say nothing more.
        successes: Successes among them.
        log_ratio: Log-likelihood ratio of p1 against p0.
        interval: Interval of the rate that holds whenever one stops.
    """

    verdict: Verdict
    trials: int
    successes: int
    log_ratio: float
    interval: Interval

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "interval": self.interval.to_dict()}


@dataclass(frozen=True, kw_only=True)
class RateTest:
    """Is the success rate at least p1 (accept) or at most p0 (reject)?

    Departure from Wald: the test is cut off at `max_trials`, and what is undecided then is not accepted, so that
    cutting off cannot raise the probability of a wrong acceptance. `rates` gives the exact error rates that result.

    Args:
        p0: A rate that must be refused.
        p1: A rate that shall pass.
        alpha: Wald's nominal probability to accept at p0.
        beta: Wald's nominal probability to reject at p1.
        max_trials: Trials after which the test ends.

    Raises:
        ConfigError: Not 0 < p0 < p1 < 1, error rates outside (0, 0.5), or no trial.
    """

    p0: float = 0.80
    p1: float = 0.95
    alpha: float = 0.05
    beta: float = 0.05
    max_trials: int = 200

    def __post_init__(self) -> None:
        if not 0.0 < self.p0 < self.p1 < 1.0:
            raise ConfigError(f"need 0 < p0 < p1 < 1, got p0 {self.p0} and p1 {self.p1}")
        if not (0.0 < self.alpha < 0.5 and 0.0 < self.beta < 0.5):
            raise ConfigError(f"`alpha` and `beta` must lie between 0 and 0.5, got {self.alpha} and {self.beta}")
        if self.max_trials < 1:
            raise ConfigError(f"`max_trials` must be at least 1, got {self.max_trials}")

    @property
    def bounds(self) -> tuple[float, float]:
        """Log-ratios at which the test rejects and accepts."""
        return math.log(self.beta / (1.0 - self.alpha)), math.log((1.0 - self.beta) / self.alpha)

    @property
    def steps(self) -> tuple[float, float]:
        """What a failure and a success add to the log-ratio."""
        return math.log((1.0 - self.p1) / (1.0 - self.p0)), math.log(self.p1 / self.p0)

    def judge(self, outcomes: Sequence[bool]) -> Progress:
        """Return where the test stands after outcomes in the order of their trials.

        Those after the decision are ignored: they were played beside it and must not be chosen by how they went.
        """
        (low, high), (down, up) = self.bounds, self.steps
        verdict: Verdict = "continue"
        n = successes = 0
        for outcome in list(outcomes)[: self.max_trials]:
            n, successes = n + 1, successes + bool(outcome)
            ratio = successes * up + (n - successes) * down
            if ratio >= high or ratio <= low:
                verdict = "accept" if ratio >= high else "reject"
                break
        if verdict == "continue" and n == self.max_trials:
            verdict = "undecided"
        ratio = successes * up + (n - successes) * down
        return Progress(verdict, n, successes, ratio, anytime_interval(successes, n))

    def rates(self, p: float) -> ErrorRates:
        """Return the exact error rates at a true rate p, by the distribution of the successes trial by trial."""
        (low, high), (down, up) = self.bounds, self.steps
        alive = np.array([1.0])  # [k + 1]: probability of k successes so far, undecided
        accept = reject = trials = 0.0
        for n in range(1, self.max_trials + 1):
            trials += float(alive.sum())
            alive = np.append(alive * (1.0 - p), 0.0) + np.append(0.0, alive * p)
            k = np.arange(n + 1)
            ratio = k * up + (n - k) * down
            accept += float(alive[ratio >= high].sum())
            reject += float(alive[ratio <= low].sum())
            alive[(ratio >= high) | (ratio <= low)] = 0.0
        return ErrorRates(accept, reject, trials)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, and the exact error rates at p0 and p1, as plain JSON values."""
        at_p0, at_p1 = self.rates(self.p0), self.rates(self.p1)
        return {
            **asdict(self), "wrongly_accepted_at_p0": at_p0.accept, "wrongly_rejected_at_p1": at_p1.reject,
            "accepted_at_p1": at_p1.accept, "expected_trials_at_p0": at_p0.trials,
            "expected_trials_at_p1": at_p1.trials,
        }  # fmt: skip


def anytime_interval(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Return an interval of a success rate that holds at all numbers of trials at once, with probability `level`.

    The rates p at which the mixture of all binomial likelihoods under a uniform prior,
    B(k + 1, n - k + 1) / (p^k (1 - p)^(n - k)), stays below 1 / (1 - level) (Robbins 1970; Ville's inequality). It is
    wider than the exact interval of a number of trials that was fixed beforehand; without trials it is [0, 1].

    Raises:
        ConfigError: Impossible counts or level.
    """
    if not 0 <= successes <= trials:
        raise ConfigError(f"need 0 <= successes <= trials, got {successes} of {trials}")
    if not 0.0 < level < 1.0:
        raise ConfigError(f"`level` must lie between 0 and 1, got {level}")
    if trials == 0:
        return Interval(0.5, 0.0, 1.0, level, "anytime")
    failures, mean = trials - successes, successes / trials
    mixture = float(special.betaln(successes + 1, failures + 1))

    def excess(p: float) -> float:
        return mixture - float(special.xlogy(successes, p) + special.xlog1py(failures, -p)) + math.log1p(-level)

    low = 0.0 if successes == 0 else float(optimize.brentq(excess, 1e-12, mean))
    high = 1.0 if failures == 0 else float(optimize.brentq(excess, mean, 1.0 - 1e-12))
    return Interval(mean, low, high, level, "anytime")
