"""One stochastic step of a sampler along a Gaussian path: a Gaussian whose mean and spread stand here and nowhere else.

Sampling, log-probabilities, off-policy evaluation and deployment all come from this one formula; where released codes
disagree with themselves it is because they write it down several times. With eps_hat the noise that the denoiser D
implies and a', s' the coefficients of the next time,

    x' ~ N(a' D + sqrt(s'^2 - std^2) eps_hat, clip(std, std_min, std_max)^2).

* `ancestral`  std = eta s' sqrt(1 - (sigma_e' / sigma_e)^2): DDIM's eta (Song et al. 2021, arXiv 2010.02502, eq. 16)
               for every path; eta = 1 on VP is DDPM, eta = 0 the probability flow.
* `cps`        std = s' sin(eta pi / 2): coefficient-preserving sampling, for flows.

The mean keeps the std that was not clipped, as RL-100's variance clipping does (arXiv 2510.14830). A last step to data
has std 0: only `std_min` gives it a density, and what is executed then carries just that noise.

Plain array algebra on numpy arrays and torch tensors alike, without torch; times are numbers, or one per sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import Array, GaussianPath, check_times

LAWS = ("ancestral", "cps")


@dataclass(frozen=True, kw_only=True)
class ChainNoise:
    """How much fresh noise each step adds, in the unit of normalised actions.

    Args:
        law: See the module.
        eta: 0 (deterministic) to 1.
        std_min: Least std of a step, 0 or more. What explores, and what an executed action jitters by at the last step.
        std_max: Largest std of a step.

    Raises:
        ConfigError: Numbers out of these ranges.
    """

    law: str = "ancestral"
    eta: float = 1.0
    std_min: float = 0.02
    std_max: float = 0.1

    def __post_init__(self) -> None:
        if self.law not in LAWS:
            raise ConfigError(f"`law` must be one of {LAWS}, got {self.law!r}")
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"`eta` must be in [0, 1], got {self.eta}")
        if not 0 <= self.std_min <= self.std_max:
            raise ConfigError(f"need 0 <= `std_min` <= `std_max`, got {self.std_min} and {self.std_max}")

    def natural(self, path: GaussianPath, t: float, after: float) -> float:
        """Return the std of the step from `t` to `after` before clipping."""
        sigma = float(path.coefficients(after)[1])
        if self.law == "cps":
            return sigma * math.sin(self.eta * math.pi / 2)
        ratio = path.sigma_e(after) / path.sigma_e(t)
        return float(self.eta * sigma * math.sqrt(max(0.0, 1.0 - ratio * ratio)))

    def clipped(self, path: GaussianPath, t: float, after: float) -> float:
        """Return the std of the step from `t` to `after`."""
        return min(max(self.natural(path, t, after), self.std_min), self.std_max)

    def table(self, path: GaussianPath, times: Sequence[float]) -> tuple[list[float], list[float]]:
        """Return the natural and the clipped std of every step over falling `times`, K numbers each.

        Raises:
            ConfigError: Times that do not fall.
        """
        check_times(times)
        steps = list(pairwise(times))
        return [self.natural(path, *step) for step in steps], [self.clipped(path, *step) for step in steps]


def step_mean(path: GaussianPath, x: Array, denoised: Array, t: Array, after: Array, natural: Array) -> Array:
    """Return the mean of the step from (x, t) to `after`.

    Args:
        path: The path.
        x: State.
        denoised: The denoiser's D there.
        t: Its time.
        after: The next time.
        natural: Std of the step before clipping: a number, or one that broadcasts over x.
    """
    alpha, sigma = path.coefficients(after, x)
    # Rounding must not make the root of a step with std = sigma (from flow's t = 1) negative.
    rest = sigma * sigma - natural * natural
    rest = max(rest, 0.0) if isinstance(rest, float) else rest.clip(0.0)
    return alpha * denoised + rest**0.5 * path.noise(x, t, denoised)
