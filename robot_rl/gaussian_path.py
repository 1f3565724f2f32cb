"""Diffusion, flow matching and EDM as one object: a Gaussian path, its denoiser, and one deterministic solver.

Every path here is x_t = alpha(t) a + sigma(t) eps, with data a and standard normal eps, and every network is one way
of writing its denoiser D(x, t) = E[a | x]. Time runs from noise to data as it FALLS:

* flow  t in [0, 1]: t = 1 is noise, t = 0 is data (pi0's convention; tau = 1 - t of the papers on real-time chunking);
* vp    t is the discrete step k of a beta schedule: k = T-1 is the noisiest, k = 0 the least noisy, k = -1 is data;
* ve    t is the noise level sigma itself (EDM): t = 0 is data.

In the canonical coordinates y = x / alpha and sigma_e = sigma / alpha all three are the same process, and DDIM
(eta = 0), Euler on the flow and Euler on dy/dsigma = (y - D) / sigma are the same update y' = D + sigma_e' eps_hat
(Song et al. 2021, arXiv 2010.02502; Karras et al. 2022, arXiv 2206.00364; Lipman et al. 2023, arXiv 2210.02747).

Plain array algebra on numpy arrays and torch tensors alike, without torch, so that the robot can step an ONNX denoiser.
A time is one number, or one number per sample, [B], which is broadcast over the other axes of x; dtypes are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from robot_rl.errors import ConfigError
from robot_rl.schedules import beta_schedule

Array = Any
"""A numpy array, a torch tensor, or a number."""

Kind = Literal["flow", "vp", "ve"]
Prediction = Literal["velocity", "epsilon", "sample", "v"]
PREDICTIONS: dict[str, tuple[str, ...]] = {
    "flow": ("velocity", "epsilon", "sample"),
    "vp": ("epsilon", "sample", "v"),
    "ve": ("sample", "epsilon"),
}


def _per_sample(value: Array, x: Array) -> Array:
    """Return a time or coefficient as x's dtype, shaped to broadcast over x; plain numbers stay numbers."""
    if isinstance(value, int | float | np.number):
        return float(value)
    if value.ndim == 0 or not hasattr(x, "ndim"):
        return value
    cast = value.astype(x.dtype) if isinstance(x, np.ndarray) else value.to(dtype=x.dtype, device=x.device)
    return cast.reshape((-1,) + (1,) * (x.ndim - 1))


def _gather(table: np.ndarray, k: Array, x: Array) -> Array:
    """Return `table[k + 1]` (the entry of k = -1 comes first) as x's kind of array, broadcastable over x."""
    if isinstance(k, int | float | np.number):
        row = int(k) + 1
        if not 0 <= row < len(table):
            raise ConfigError(f"diffusion step must be in [-1, {len(table) - 2}], got {k}")
        return float(table[row])
    if isinstance(x, np.ndarray):
        return _per_sample(table[np.asarray(k).astype(np.int64) + 1], x)
    return _per_sample(x.new_tensor(table.tolist())[k.long() + 1], x)


@dataclass(frozen=True, eq=False)
class GaussianPath:
    """One Gaussian path and what its network predicts; build with `flow`, `vp` or `ve`.

    Args:
        kind: Which path; it fixes the time convention (module docstring).
        prediction: What the network puts out: `velocity` (eps - a, flow only), `epsilon`, `sample` (the denoiser
            itself) or `v` (alpha eps - sigma a, VP only).
        alpha_bar: VP only: the cumulative products of 1 - beta, [T].
    """

    kind: Kind
    prediction: Prediction
    alpha_bar: np.ndarray | None = None
    _alpha: np.ndarray = field(init=False, repr=False)  # entry 0 is k = -1, data
    _sigma: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS.get(self.kind, ()):
            raise ConfigError(
                f"`prediction` of a {self.kind} path must be one of {PREDICTIONS.get(self.kind, ())}, "
                f"got {self.prediction!r}"
            )
        bar = np.concatenate([[1.0], [] if self.alpha_bar is None else self.alpha_bar])
        object.__setattr__(self, "_alpha", np.sqrt(bar))
        object.__setattr__(self, "_sigma", np.sqrt(1 - bar))

    @classmethod
    def flow(cls, prediction: Prediction = "velocity") -> GaussianPath:
        """Return the straight path x_t = (1 - t) a + t eps; t = 1 is noise, t = 0 is data."""
        return cls("flow", prediction)

    @classmethod
    def vp(
        cls, schedule: str = "squaredcos_cap_v2", n_train: int = 100, prediction: Prediction = "epsilon"
    ) -> GaussianPath:
        """Return a variance-preserving diffusion over steps k = 0 ... n_train - 1; k = -1 is data."""
        return cls("vp", prediction, np.cumprod(1 - beta_schedule(schedule, n_train)))

    @classmethod
    def ve(cls, prediction: Prediction = "sample") -> GaussianPath:
        """Return the variance-exploding path x = a + t eps of EDM; t is the noise level, t = 0 is data."""
        return cls("ve", prediction)

    @property
    def n_train(self) -> int:
        """T, number of discrete steps of a VP path; 0 for the continuous ones."""
        return len(self._alpha) - 1

    def coefficients(self, t: Array, x: Array = 0.0) -> tuple[Array, Array]:
        """Return alpha(t) and sigma(t): numbers for one time, else arrays of x's kind that broadcast over x."""
        if self.kind == "vp":
            return _gather(self._alpha, t, x), _gather(self._sigma, t, x)
        t = _per_sample(t, x)
        return (1.0 - t, t) if self.kind == "flow" else (1.0, t)

    def sigma_e(self, t: Array) -> Array:
        """Return the canonical noise level sigma / alpha of time `t`; infinite for flow at t = 1."""
        alpha, sigma = self.coefficients(t, t)
        if isinstance(alpha, float) and alpha == 0.0:
            return math.inf
        return sigma / alpha

    def time(self, sigma_e: float) -> float:
        """Return the time whose canonical noise level is `sigma_e`; VP rounds to the nearest trained step (or data).

        Nearest is meant in log sigma_e, the scale on which a denoiser's work is even.
        """
        if self.kind == "ve":
            return float(sigma_e)
        if self.kind == "flow":
            return 1.0 if math.isinf(sigma_e) else float(sigma_e) / (1.0 + float(sigma_e))
        if sigma_e == 0.0:
            return -1.0
        levels = np.log(self._sigma[1:] / self._alpha[1:])
        return float(np.argmin(np.abs(levels - math.log(sigma_e))))

    def to_canonical(self, x: Array, t: Array) -> Array:
        """Return y = x / alpha(t)."""
        return x / self.coefficients(t, x)[0]

    def from_canonical(self, y: Array, t: Array) -> Array:
        """Return the native x = alpha(t) y."""
        return y * self.coefficients(t, y)[0]

    def mix(self, data: Array, noise: Array, t: Array) -> Array:
        """Return x_t = alpha a + sigma eps."""
        alpha, sigma = self.coefficients(t, data)
        return alpha * data + sigma * noise

    def initial(self, noise: Array, t: Array) -> Array:
        """Return the state to start solving from at time `t`: sqrt(alpha^2 + sigma^2) eps, for unit-variance data.

        It is eps itself for VP and for flow at t = 1. BESO starts from sigma eps, which is narrower than the marginal
        when sigma_max is not far above the data's spread; we do not.
        """
        alpha, sigma = self.coefficients(t, noise)
        return noise * (alpha * alpha + sigma * sigma) ** 0.5

    def target(self, data: Array, noise: Array, t: Array) -> Array:
        """Return what the network is trained to put out at x_t = mix(data, noise, t)."""
        if self.prediction == "sample":
            return data
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "velocity":
            return noise - data
        alpha, sigma = self.coefficients(t, data)
        return alpha * noise - sigma * data

    def denoised(self, x: Array, t: Array, output: Array) -> Array:
        """Return the denoiser D that a network's native `output` at (x, t) stands for."""
        if self.prediction == "sample":
            return output
        alpha, sigma = self.coefficients(t, x)
        if self.prediction == "epsilon":
            return (x - sigma * output) / alpha
        if self.prediction == "velocity":
            return x - sigma * output
        return alpha * x - sigma * output

    def native(self, x: Array, t: Array, denoised: Array) -> Array:
        """Return the native network output that stands for the denoiser `denoised` at (x, t)."""
        if self.prediction == "sample":
            return denoised
        alpha, sigma = self.coefficients(t, x)
        if self.prediction == "epsilon":
            return (x - alpha * denoised) / sigma
        if self.prediction == "velocity":
            return (x - denoised) / sigma
        return (alpha * x - denoised) / sigma

    def noise(self, x: Array, t: Array, denoised: Array) -> Array:
        """Return eps_hat = (x - alpha D) / sigma, the noise that `denoised` implies at (x, t)."""
        alpha, sigma = self.coefficients(t, x)
        return (x - alpha * denoised) / sigma

    def score(self, x: Array, t: Array, denoised: Array) -> Array:
        """Return the gradient of the log-density of x_t: -eps_hat / sigma."""
        return -self.noise(x, t, denoised) / self.coefficients(t, x)[1]

    def step(self, x: Array, denoised: Array, t: Array, t_next: Array) -> Array:
        """Return x at `t_next`, one deterministic step on from (x, t): alpha' D + sigma' eps_hat.

        It is well defined from flow's t = 1, where alpha = 0 and y does not exist; at sigma' = 0 it returns D.
        """
        alpha, sigma = self.coefficients(t_next, x)
        return alpha * denoised + sigma * self.noise(x, t, denoised)


def check_times(times: Sequence[float]) -> None:
    """Raise unless `times` fall and make at least one step.

    Raises:
        ConfigError: They do not.
    """
    if len(times) < 2 or any(b >= a for a, b in pairwise(times)):
        raise ConfigError(f"`times` must fall from noise to data and hold at least two values, got {list(times)}")


def solve(
    path: GaussianPath,
    denoise: Callable[[Array, float], Array],
    x: Array,
    times: Sequence[float],
    *,
    clip: float | None = None,
) -> Array:
    """Integrate the probability-flow ODE of `path` from `times[0]` to `times[-1]` and return the last state.

    Args:
        path: The path, with the prediction that `denoise` makes.
        denoise: Returns the native output at (x, t); t is a plain number in the path's own time.
        x: State at `times[0]`, see `GaussianPath.initial`.
        times: Falling times (of `robot_rl.schedules`; `path.time` of each level of a sigma_e grid); n + 1 make n steps.
        clip: Bound the denoiser's output to [-clip, clip] before each step, as diffusion policies do.

    Raises:
        ConfigError: Times that do not fall, or fewer than two.
    """
    check_times(times)
    for t, t_next in pairwise(times):
        denoised = path.denoised(x, t, denoise(x, t))
        if clip is not None:
            denoised = denoised.clip(-clip, clip)
        x = path.step(x, denoised, t, t_next)
    return x
