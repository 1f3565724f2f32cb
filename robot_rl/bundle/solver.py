"""How to step a bundle's denoiser: plain numbers that stand beside the graphs `encode` and `denoise`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robot_rl.errors import BundleError


@dataclass(frozen=True, kw_only=True)
class SolverInfo:
    """The Gaussian path that `denoise` was trained on and how its `sample` graph goes along it.

    Args:
        kind: Path: `flow`, `vp` or `ve` (`robot_rl.gaussian_path`).
        prediction: What `denoise` puts out.
        alpha_bar: VP only: cumulative products of 1 - beta, [T]; else empty.
        times: Solver times, falling from noise to data, K + 1 numbers.
        sampler: Name of the solver that the `sample` graph unrolls.
        clip: Bound of the denoiser while sampling; `None` for none.
        noise_scale: Factor on the noise that sampling starts from.
        step_noise_scale: Factor on the noise that a stochastic sampler adds on its way.
        relative_to: Observations that, joined, are what chunks are relative to; empty for absolute chunks.
        scale: Normalised actions are physical * scale + offset; nested lists of shape [A] or [H, A].
        offset: See `scale`.

    Raises:
        BundleError: Times that do not fall, a VP path without its schedule, or a scale that cannot be undone.
    """

    kind: str
    prediction: str
    alpha_bar: tuple[float, ...] = ()
    times: tuple[float, ...]
    sampler: str = "ddim"
    clip: float | None = None
    noise_scale: float = 1.0
    step_noise_scale: float = 1.0
    relative_to: tuple[str, ...] = ()
    scale: tuple[Any, ...]
    offset: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.times) < 2 or any(later >= now for now, later in zip(self.times, self.times[1:], strict=False)):
            raise BundleError(f"`solver.times` must fall and hold at least two numbers, got {list(self.times)}")
        if (self.kind == "vp") != bool(self.alpha_bar):
            raise BundleError(
                f"`solver.alpha_bar` belongs to a vp path and to no other, got {len(self.alpha_bar)} "
                f"numbers for {self.kind!r}"
            )
        scale, offset = np.asarray(self.scale, dtype=np.float64), np.asarray(self.offset, dtype=np.float64)
        if scale.shape != offset.shape or scale.ndim not in (1, 2):
            raise BundleError(
                f"`solver.scale` and `offset` must be [A] or [H, A] alike, got {scale.shape}, {offset.shape}"
            )
        if not (np.isfinite(scale).all() and np.isfinite(offset).all() and (scale != 0).all()):
            raise BundleError("`solver.scale` must be finite and not zero, and `solver.offset` finite")
        if not (self.noise_scale >= 0 and (self.clip is None or self.clip > 0) and math.isfinite(self.noise_scale)):
            raise BundleError(
                f"`solver.noise_scale` must be 0 or more and `solver.clip` positive or null, "
                f"got {self.noise_scale} and {self.clip}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SolverInfo:
        """Build from `to_dict`'s values, or from the same after a pass through JSON.

        Raises:
            BundleError: Contradicting values.
        """
        values = dict(data)
        for name in ("alpha_bar", "times", "relative_to", "scale", "offset"):
            values[name] = _tuples(values.get(name, ()))
        return cls(**values)


def _tuples(value: Any) -> Any:
    """Return nested lists as nested tuples, so that two of them compare and hash alike."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
