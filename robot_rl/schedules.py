"""Noise schedules and solver time grids: which levels a diffusion trains on, and where a solver stops on its way.

Times are those of `robot_rl.gaussian_path`, always falling from noise to data: flow 1 to 0, diffusion steps k to -1
(data), noise levels sigma_e to 0. A grid of n steps has n + 1 entries.
"""

from __future__ import annotations

import math

import numpy as np

from robot_rl.errors import ConfigError


def beta_schedule(name: str, n_train: int) -> np.ndarray:
    """Return the variances beta_k, float64 [T], of a diffusion schedule by its name in diffusers.

    `squaredcos_cap_v2` is Nichol & Dhariwal's (arXiv 2102.09672, eq. 17) with beta capped at 0.999; `linear` and
    `scaled_linear` go from 1e-4 to 0.02, the latter linearly in sqrt(beta).

    Raises:
        ConfigError: An unknown name or fewer than two steps.
    """
    if n_train < 2:
        raise ConfigError(f"`n_train` must be at least 2 diffusion steps, got {n_train}")
    if name == "linear":
        return np.linspace(1e-4, 0.02, n_train)
    if name == "scaled_linear":
        return np.linspace(1e-4**0.5, 0.02**0.5, n_train) ** 2
    if name == "squaredcos_cap_v2":
        f = np.cos((np.arange(n_train + 1) / n_train + 0.008) / 1.008 * np.pi / 2) ** 2
        beta: np.ndarray = np.minimum(1 - f[1:] / f[:-1], 0.999)
        return beta
    raise ConfigError(f"`schedule` must be squaredcos_cap_v2, linear or scaled_linear, got {name!r}")


def flow_times(n_steps: int) -> list[float]:
    """Return n + 1 even times from 1 (noise) to 0 (data)."""
    _positive("n_steps", n_steps)
    return [1.0 - i / n_steps for i in range(n_steps + 1)]


def vp_times(n_train: int, n_steps: int, spacing: str = "leading") -> list[float]:
    """Return n diffusion steps k from noisy to clean, followed by -1 (data), spaced as diffusers' DDIM spaces them.

    Departure: a step goes to the NEXT time of this list. diffusers goes to k - T // n whatever the spacing: the same
    for `leading`, and for `trailing` when n divides T, but for `linspace` it leaves gaps between its steps.

    Raises:
        ConfigError: More steps than the schedule has, or an unknown spacing.
    """
    _positive("n_steps", n_steps)
    if n_steps > n_train:
        raise ConfigError(f"`n_steps` must be at most the schedule's {n_train} steps, got {n_steps}")
    if spacing == "leading":
        k: np.ndarray = (np.arange(n_steps) * (n_train // n_steps))[::-1]
    elif spacing == "trailing":
        k = np.round(np.arange(n_train, 0, -n_train / n_steps))[:n_steps] - 1
    elif spacing == "linspace":
        k = np.round(np.linspace(0, n_train - 1, n_steps))[::-1]
    else:
        raise ConfigError(f"`spacing` must be leading, trailing or linspace, got {spacing!r}")
    return [*map(float, k), -1.0]


def sigma_grid(
    n_steps: int,
    sigma_min: float,
    sigma_max: float,
    *,
    spacing: str,
    rho: float = 7.0,
) -> list[float]:
    """Return n noise levels sigma_e falling from `sigma_max` to `sigma_min`, followed by 0.

    `karras` is even in sigma^(1/rho) (arXiv 2206.00364, eq. 5), `exponential` in log sigma, `linear` in sigma.

    Raises:
        ConfigError: Levels out of order, or an unknown spacing.
    """
    _positive("n_steps", n_steps)
    if not 0 < sigma_min < sigma_max:
        raise ConfigError(f"need 0 < `sigma_min` < `sigma_max`, got {sigma_min} and {sigma_max}")
    ramp = np.linspace(0.0, 1.0, n_steps)
    if spacing == "karras":
        levels = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    elif spacing == "exponential":
        levels = np.exp(math.log(sigma_max) + ramp * math.log(sigma_min / sigma_max))
    elif spacing == "linear":
        levels = sigma_max + ramp * (sigma_min - sigma_max)
    else:
        raise ConfigError(f"`spacing` must be karras, exponential or linear, got {spacing!r}")
    return [*map(float, levels), 0.0]


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"`{name}` must be at least 1, got {value}")
