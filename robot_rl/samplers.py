"""Ways from noise to data along a Gaussian path, by name: for numpy arrays and torch tensors alike, without torch.

In the canonical coordinates y = x / alpha and s = sigma / alpha every path follows dy/ds = eps_hat = (y - D(y, s)) / s
(`robot_rl.gaussian_path`). A step from s to s' is

* `ddim`       y' = D + s' eps_hat. DDIM with eta = 0 (Song et al. 2021, arXiv 2010.02502), Euler on a flow, Euler in s.
* `ddim_raw_noise`  the same, but eps_hat is the network's own also where `clip` bounds D, as diffusers' DDIM has it.
* `heun`       `ddim`, then the slope at its end is averaged in (Karras et al. 2022, arXiv 2206.00364, algorithm 1).
* `dpmpp_2m`   y' = E + s' (y - E) / s with E = D + (D - D_before) log(s / s') / (2 log(s_before / s)): second order
               for one evaluation a step (Lu et al. 2022, arXiv 2211.01095, algorithm 2).
* `ancestral`  `ddim` to s_down, then s_up z with fresh noise z; s_up^2 = s'^2 (1 - s'^2 / s^2) and
               s_down^2 = s'^2 - s_up^2. DDPM, that is DDIM with eta = 1 (Ho et al. 2020, arXiv 2006.11239).

All are written so that they hold at flow's t = 1, where alpha = 0 and s is infinite. A last step to data returns D.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from robot_rl.chain_step import ChainNoise, step_mean
from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import Array, GaussianPath, check_times, solve

FULL_NOISE = ChainNoise(eta=1.0)
Denoise = Callable[[Array, float], Array]
"""Returns the path's native prediction at (x, t); t is a plain number in the path's own time."""


def ddim_raw_noise(
    path: GaussianPath, denoise: Denoise, x: Array, times: Sequence[float], *, clip: float | None = None
) -> Array:
    """Go by DDIM steps whose noise is that of the denoiser before it is bounded. Arguments as of `solve`."""
    check_times(times)
    for t, after in pairwise(times):
        raw = _denoised(path, denoise, x, t, None)
        alpha, sigma = path.coefficients(after, x)
        x = alpha * (raw if clip is None else raw.clip(-clip, clip)) + sigma * path.noise(x, t, raw)
    return x


def heun(path: GaussianPath, denoise: Denoise, x: Array, times: Sequence[float], *, clip: float | None = None) -> Array:
    """Integrate by Heun's rule; two evaluations a step, one for the last step to data.

    On a flow the rule is applied to dx/dt in the flow's own time, which is defined at t = 1, else to dy/ds.
    Arguments as of `solve`.
    """
    check_times(times)
    for t, after in pairwise(times):
        first = _denoised(path, denoise, x, t, clip)
        there = path.step(x, first, t, after)
        if not _is_data(path, after):
            second = _denoised(path, denoise, there, after, clip)
            there = _trapezoid(path, (x, first, t), (there, second, after))
        x = there
    return x


def _trapezoid(path: GaussianPath, here: tuple[Array, Array, float], there: tuple[Array, Array, float]) -> Array:
    """Return the state at the second of two (x, D, t) that the mean of both slopes leads to from the first."""
    (x, first, t), (x_there, second, after) = here, there
    eps, eps_there = path.noise(x, t, first), path.noise(x_there, after, second)
    if path.kind == "flow":
        return x + (after - t) * ((eps - first) + (eps_there - second)) / 2  # dx/dt = eps - D
    s, s_after = path.sigma_e(t), path.sigma_e(after)
    return path.from_canonical(path.to_canonical(x, t) + (s_after - s) * (eps + eps_there) / 2, after)


def dpmpp_2m(
    path: GaussianPath, denoise: Denoise, x: Array, times: Sequence[float], *, clip: float | None = None
) -> Array:
    """Integrate by DPM-Solver++(2M); first order at the first step and at a last one to data. Arguments as of `solve`.

    `clip` bounds the denoiser's outputs; what is extrapolated from two of them may lie beyond.
    """
    check_times(times)
    before: tuple[Array, float] | None = None  # the last D, and the log step it was used for
    for t, after in pairwise(times):
        denoised = _denoised(path, denoise, x, t, clip)
        h = math.inf if _is_data(path, after) else math.log(path.sigma_e(t) / path.sigma_e(after))
        used = denoised
        if before is not None and h < math.inf:
            used = denoised + (h / (2 * before[1])) * (denoised - before[0])
        x, before = path.step(x, used, t, after), (denoised, h)
    return x


def ancestral(
    path: GaussianPath,
    denoise: Denoise,
    x: Array,
    times: Sequence[float],
    *,
    step_noise: Array,
    clip: float | None = None,
) -> Array:
    """Go by Euler ancestral steps; other arguments as of `solve`.

    Args:
        path: The path.
        denoise: The network.
        x: State at `times[0]`.
        times: Falling times.
        step_noise: Standard normal noise of x's shape, one for each step but a last one to data (`n_step_noise`).
        clip: Bound of the denoiser's output.

    Raises:
        ConfigError: Times that do not fall, or another number of noises.
    """
    check_times(times)
    needed = n_step_noise("ancestral", path, times)
    if len(step_noise) != needed:
        raise ConfigError(f"`step_noise` must hold {needed} arrays for {len(times) - 1} steps, got {len(step_noise)}")
    for i, (t, after) in enumerate(pairwise(times)):
        denoised = _denoised(path, denoise, x, t, clip)
        if _is_data(path, after):
            x = path.step(x, denoised, t, after)
            continue
        std = FULL_NOISE.natural(path, t, after)
        x = step_mean(path, x, denoised, t, after, std) + std * step_noise[i]
    return x


@dataclass(frozen=True)
class Sampler:
    """One way from noise to data.

    Args:
        run: Called as run(path, denoise, x, times, clip=...), with `step_noise=` too if it is stochastic.
        evaluations: Calls of the network in a step; the last step to data takes one.
        stochastic: Whether it adds fresh noise on the way.
    """

    run: Callable[..., Array]
    evaluations: int = 1
    stochastic: bool = False


SAMPLERS: dict[str, Sampler] = {
    "ddim": Sampler(solve),
    "ddim_raw_noise": Sampler(ddim_raw_noise),
    "heun": Sampler(heun, evaluations=2),
    "dpmpp_2m": Sampler(dpmpp_2m),
    "ancestral": Sampler(ancestral, stochastic=True),
}


def sampler(name: str) -> Sampler:
    """Return a sampler by name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"`sampler` must be one of {sorted(SAMPLERS)}, got {name!r}")
    return SAMPLERS[name]


def n_evaluations(name: str, path: GaussianPath, times: Sequence[float]) -> int:
    """Return how often a sampler calls the network over a time grid."""
    steps, to_data = len(times) - 1, _is_data(path, times[-1])
    return sampler(name).evaluations * (steps - to_data) + to_data


def n_step_noise(name: str, path: GaussianPath, times: Sequence[float]) -> int:
    """Return how many arrays of fresh noise a sampler takes over a time grid; 0 for the deterministic ones."""
    return (len(times) - 1 - _is_data(path, times[-1])) * sampler(name).stochastic


def _is_data(path: GaussianPath, t: float) -> bool:
    return bool(path.coefficients(t)[1] == 0.0)


def _denoised(path: GaussianPath, denoise: Denoise, x: Array, t: float, clip: float | None) -> Array:
    """Return the denoiser D at (x, t), bounded."""
    denoised = path.denoised(x, t, denoise(x, t))
    return denoised if clip is None else denoised.clip(-clip, clip)
