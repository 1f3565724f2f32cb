"""General policy composition: one chunk from several policies, whatever they see and however they were trained.

Cao et al. 2025 (arXiv 2510.01068): a convex combination of scores. On one grid of noise levels sigma_e = sigma / alpha
flow, VP and EDM policies are the same process (`robot_rl.gaussian_path`), and weighting their scores is weighting
their denoisers, D = sum_i w_i D_i with sum w_i = 1, for every parameterisation. No training.

The paper guarantees no gain in success. The probability flow of the mean score does not sample the product of the
parents' densities either: it does so only for Gaussians of equal variance.

The state is kept in the coordinates of the host, the parent with the largest weight, so that the parent alone (w = 1)
is reproduced to the last bit. Departures: the clip acts on the mixed denoiser, not on each one's, as a clip before the
mixture would differ from any parent's; parents of weight 0 are left out, not multiplied by 0.
"""

import abc
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, TypedDict, Unpack, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from policies.agreement import (
    ROUNDING,
    Parent,
    check_agreement,
    end_step,
    joined_normaliser,
    native_time,
    shared_levels,
    supported_levels,
)
from policies.denoising import DenoisingModel
from policies.encoders import Encoder
from policies.normalize import AffineNormalizer
from robot_rl.data.normalizer import Affine
from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import GaussianPath
from robot_rl.specs import RobotSpec

SUM_TOLERANCE = 1e-6


class ParentEncoders(Encoder):
    """The parents' condition vectors side by side, each from its own newest observation steps, as one step."""

    def __init__(self, parents: Sequence[DenoisingModel]) -> None:
        super().__init__(1, sum(map(cond_width, parents)))
        self.parents = tuple(parents)  # not as modules: they are the denoiser's, and stand in the weights once

    def steps(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B O F"]:
        """Return all condition vectors as the features of one step."""
        parts = [
            parent.encode({name: value[:, -parent.n_obs :] for name, value in obs.items()}) for parent in self.parents
        ]
        return torch.cat(parts, dim=1).unsqueeze(1)


class ParentDenoisers(nn.Module):
    """Each parent's denoiser over the steps of the composed chunk, and their weighted mean.

    It is defined at the grid's times; any other time is taken for the nearest of them.

    Args:
        parents: The parents, all of positive weight.
        weights: One each; on steps that only some parents predict, theirs are scaled to sum to 1.
        path: The path whose coordinates the state has.
        grid: Its times, without the last, which is data.
        levels: Their noise levels sigma_e.
    """

    grid: Tensor
    times: Tensor
    ratio: Tensor
    weight: Tensor

    def __init__(
        self,
        parents: Sequence[DenoisingModel],
        weights: Sequence[float],
        *,
        path: GaussianPath,
        grid: Sequence[float],
        levels: Sequence[float],
    ) -> None:
        super().__init__()
        self.parents = nn.ModuleList(parents)
        self.widths = [cond_width(parent) for parent in parents]
        self.start, self.stop = min(p.action_offset for p in parents), max(end_step(p) for p in parents)
        times = [[native_time(parent, level) for level in levels] for parent in parents]
        ratio = [
            [_ratio(parent.path, t, path, own) for t, own in zip(row, grid, strict=True)]
            for parent, row in zip(parents, times, strict=True)
        ]
        for name, values in (("grid", grid), ("times", times), ("ratio", ratio)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.register_buffer("weight", self._weight(weights))

    def _weight(self, weights: Sequence[float]) -> Float[Tensor, "M H 1"]:
        """Return the weight of each parent at each step of the chunk."""
        covers = torch.zeros(len(self.parents), self.stop - self.start, 1, dtype=torch.float64)
        for i, parent in enumerate(self._models()):
            covers[i, parent.action_offset - self.start : end_step(parent) - self.start] = 1.0
        scaled = covers * torch.tensor(weights, dtype=torch.float64)[:, None, None]
        whole = (covers > 0).all(dim=0)
        return torch.where(whole, scaled, scaled / scaled.sum(dim=0)).float()

    def _models(self) -> list[DenoisingModel]:
        return [cast(DenoisingModel, parent) for parent in self.parents]

    def each(
        self, x: Float[Tensor, "B H A"], t: Float[Tensor, "B"], cond: Float[Tensor, "B C"]
    ) -> Float[Tensor, "M B H A"]:
        """Return what each parent takes the clean chunk to be, zero on steps that it does not predict."""
        level = (t[:, None] - self.grid).abs().argmin(dim=1)  # [B]
        found = []
        for i, (parent, part) in enumerate(zip(self._models(), cond.split(self.widths, dim=1), strict=True)):
            before = parent.action_offset - self.start
            mine = x[:, before : before + parent.horizon] * self.ratio[i][level][:, None, None]
            time = self.times[i][level]
            clean = parent.path.denoised(mine, time, parent.denoise(mine, time, part))
            found.append(functional.pad(clean, (0, 0, before, self.stop - end_step(parent))))
        return torch.stack(found)

    def forward(
        self, x: Float[Tensor, "B H A"], t: Float[Tensor, "B"], cond: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B H A"]:
        """Return the weighted mean of the parents' denoisers."""
        return (self.weight[:, None] * self.each(x, t, cond)).sum(dim=0)


class _GridTime:
    """Time law of a composition: every noisy level of its grid is equally likely."""

    def __init__(self, times: Sequence[float]) -> None:
        self.times = list(times)

    def __call__(self, u: Tensor) -> Tensor:
        index = (u * len(self.times)).long().clamp(max=len(self.times) - 1)
        return u.new_tensor(self.times)[index]


class CompositionOptions(TypedDict, total=False):
    """Arguments of every composition.

    Keys:
        levels: Falling noise levels sigma_e that end in 0; `shared_levels` if not given.
        n_steps: Solver steps, if `levels` is not given; see `shared_levels`.
        clip: Bound of the mixed denoiser; `parents`, if not given, takes the loosest of theirs.
        noise_scale: Factor on the noise of sampling; the weighted mean of the parents' if not given.
        sampler: A name of `robot_rl.samplers.SAMPLERS`; `ddim` if not given.
    """

    levels: Sequence[float]
    n_steps: int | None
    clip: float | Literal["parents"] | None
    noise_scale: float
    sampler: str


class Composition(DenoisingModel, abc.ABC):
    """Abstract: several parents on one grid of noise levels.

    Args:
        parents: The parents; none of them is copied.
        weights: One each, at least 0 and of sum 1. Only parents of positive weight are kept and asked.
        path: Whose coordinates the solver works in; `None` for the parent of largest weight.
        options: `CompositionOptions`.

    Raises:
        ConfigError: Weights that are no convex combination, parents that do not agree (`check_agreement`), or levels
            that one of them was not trained on.
    """

    def __init__(
        self,
        parents: Sequence[Parent],
        weights: Sequence[float],
        *,
        path: GaussianPath | None = None,
        **options: Unpack[CompositionOptions],
    ) -> None:
        check_weights(parents, weights)
        check_agreement(parents)
        levels = options.get("levels", shared_levels([p.model for p in parents], options.get("n_steps")))
        _check_levels(parents, levels)
        kept = [(parent, float(w)) for parent, w in zip(parents, weights, strict=True) if w > 0]
        host, _ = max(kept, key=lambda pair: pair[1])
        models, active = [parent.model for parent, _ in kept], [w for _, w in kept]
        clip, own = options.get("clip", "parents"), host.model.path if path is None else path
        own = GaussianPath(own.kind, "sample", own.alpha_bar)
        times = [native_time(host.model, level) if path is None else own.time(level) for level in levels]
        if any(b >= a for a, b in pairwise(times)):
            raise ConfigError(f"`levels` {levels} round to the same steps {times} of `{host.name}`; use fewer")
        network = ParentDenoisers(models, active, path=own, grid=times[:-1], levels=levels[:-1])
        super().__init__(
            joined_spec([parent for parent, _ in kept]), host.stats, path=own, times=times,
            time_law=_GridTime(times[:-1]), time_scale=1.0, clip=_loosest(models) if clip == "parents" else clip,
            noise_scale=options.get("noise_scale", _mean_scale(models, active)),
            sampler=options.get("sampler", "ddim"),
            encoder=lambda *_, **__: ParentEncoders(models), denoiser=lambda **_: network,
            n_obs=max(m.n_obs for m in models), horizon=network.stop - network.start, action_offset=network.start,
            relative_to=host.model.relative_to, mask_padding=host.model.mask_padding,
        )  # fmt: skip
        self.levels = list(levels)
        self._adopt(models)

    def _adopt(self, models: Sequence[DenoisingModel]) -> None:
        """Take over the parents' normaliser to the last bit, and the widest of their action ranges."""
        scale, offset = joined_normaliser(models)
        affine = Affine(scale.detach().cpu().double().numpy(), offset.detach().cpu().double().numpy())
        self.normalizer = AffineNormalizer(affine, flat=scale.ndim == 1)
        self.action_low = torch.stack([m.action_low for m in models]).amin(dim=0)
        self.action_high = torch.stack([m.action_high for m in models]).amax(dim=0)


class ComposedModel(Composition):
    """The convex combination of the parents' denoisers; arguments as of `Composition`."""


def check_weights(parents: Sequence[Parent], weights: Sequence[float]) -> None:
    """Raise unless there is one weight for each parent, none negative, of sum 1.

    Raises:
        ConfigError: Says what came.
    """
    if len(weights) != len(parents):
        raise ConfigError(f"`weights` must be one for each of {[p.name for p in parents]}, got {list(weights)}")
    if not all(w >= 0 for w in weights):
        raise ConfigError(f"`weights` must not be negative, got {list(weights)}")
    if not abs(math.fsum(weights) - 1.0) <= SUM_TOLERANCE:
        raise ConfigError(
            f"`weights` must sum to 1, got {list(weights)} with sum {math.fsum(weights):.6g}; other sums of denoisers "
            "are not the denoiser of any noise level"
        )


def joined_spec(parents: Sequence[Parent]) -> RobotSpec:
    """Return the robot with every observation that some parent reads."""
    obs = {name: array for parent in parents for name, array in parent.spec.obs.items()}
    first = parents[0].spec
    return RobotSpec(name=first.name, obs=obs, action=first.action, control_hz=first.control_hz)


def cond_width(model: DenoisingModel) -> int:
    """Return the width of a model's condition; with guidance it is given with and without the goal."""
    return model.encoder.out_dim * (2 if model.is_guided else 1)


def _ratio(parent: GaussianPath, t: float, host: GaussianPath, own: float) -> float:
    """Return alpha of the parent over alpha of the host: what takes the host's state to the parent's."""
    mine, theirs = (float(path.coefficients(time)[0]) for path, time in ((parent, t), (host, own)))
    return 1.0 if mine == theirs else mine / theirs  # equal zeros: flow at t = 1


def _check_levels(parents: Sequence[Parent], levels: Sequence[float]) -> None:
    if len(levels) < 2 or levels[-1] != 0.0 or any(b >= a for a, b in pairwise(levels)):
        raise ConfigError(f"`levels` must be noise levels sigma_e that fall and end in 0, got {list(levels)}")
    for parent in parents:
        low, high = supported_levels(parent.model)
        outside = [x for x in levels[:-1] if not low * (1 - ROUNDING) <= x <= high * (1 + ROUNDING)]
        if outside:
            raise ConfigError(
                f"`{parent.name}` was trained on sigma_e from {low:.4g} to {high:.4g}, `levels` holds {outside[0]:.4g}"
            )


def _loosest(models: Sequence[DenoisingModel]) -> float | None:
    bounds = [m.clip for m in models if m.clip is not None]
    return max(bounds) if len(bounds) == len(models) else None


def _mean_scale(models: Sequence[DenoisingModel], weights: Sequence[float]) -> float:
    return sum(w * m.noise_scale for w, m in zip(weights, models, strict=True))
