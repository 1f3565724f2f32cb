"""A critic that learns how returns are spread, not their mean alone (DSAC-T: Duan et al. 2023, arXiv 2310.05858).

Each member puts out mean mu and standard deviation sigma of the return. The three refinements of the paper: the mean is
fitted to an expected target and only sigma to a drawn one; both members learn from the next distribution with the
smaller mean; and the drawn target is clipped, and each item's gradient scaled, by how spread its returns are.

Departures: the least of a random subset of any ensemble takes the place of the twin; the next action comes from the
online actor, as in the other agents here, not from a target actor; and sigma is fitted to the square of the error, not
to the half of it, which the released loss does and which makes sigma settle at 0.71 of the true one (`calibrated`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from robot_rl.errors import ConfigError
from robot_rl.rl.critic import TdTarget, ValueHead, subset_least, td_target

_NOISE_BOUND = 3.0  # of the standard normal number that draws a return
_HUBER = 50.0
_SOFTEN = 0.1  # added where a small sigma would divide


def item_weight(scale: Tensor, std: Tensor) -> Tensor:
    """Return omega = clip(b^2 / (sigma^2 + 0.1), 0.1, 10) for running spreads b and spreads sigma of one shape."""
    return (scale.square() / (std.square() + _SOFTEN)).clamp(0.1, 10.0)


def clipped_return(sample: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return drawn targets held within mu +- 3 b."""
    return torch.minimum(torch.maximum(sample, mean - 3 * scale), mean + 3 * scale)


class GaussianHead(ValueHead):
    """Mean and standard deviation of the return; the actor climbs the least mean of all members.

    Args:
        n_members: E.
        rate: Share by which the running spread b moves to the batch's mean sigma at each loss.
        calibrated: Fit sigma to the squared error; false for half of it, as released.

    Raises:
        ConfigError: A rate outside (0, 1].
    """

    n_out, draws = 2, True
    spread: Tensor

    def __init__(self, n_members: int, *, rate: float = 0.005, calibrated: bool = True) -> None:
        super().__init__(n_members)
        if not 0 < rate <= 1:
            raise ConfigError(f"`rate` of the running spread must be in (0, 1], got {rate}")
        self.rate, self.calibrated = rate, calibrated
        self.register_buffer("spread", torch.zeros(n_members))  # b of each member, 0 before the first batch

    def mean(self, out: Tensor) -> Tensor:
        """Return mu [E, B]."""
        return out[..., 0]

    def std(self, out: Tensor) -> Tensor:
        """Return sigma [E, B], positive."""
        return functional.softplus(out[..., 1])

    def improved(self, out: Tensor) -> Tensor:
        """Return the least mu [B]."""
        return self.mean(out).amin(0)

    def target(
        self,
        next_out: Tensor,
        reward: Tensor,
        bootstrap: Tensor,
        *,
        subset: int,
        cost: Tensor | None = None,
        bounds: tuple[float, float] | None = None,
        noise: Tensor | None = None,
    ) -> TdTarget:
        """Return the expected and the drawn target of the next distribution with the least mean.

        Raises:
            ConfigError: No `noise` was given, or a subset outside [1, E].
        """
        if noise is None:
            raise ConfigError("`noise` must be standard normal numbers [B] for a head that draws returns, got None")
        means = self.mean(next_out)
        chosen = subset_least(means, subset)[None]
        mean, std = means.gather(0, chosen)[0], self.std(next_out).gather(0, chosen)[0]
        drawn = mean + std * noise.clamp(-_NOISE_BOUND, _NOISE_BOUND)
        if cost is not None:
            mean, drawn = mean - cost, drawn - cost
        return TdTarget(td_target(reward, bootstrap, mean, bounds=bounds), td_target(reward, bootstrap, drawn))

    def loss(self, out: Tensor, target: TdTarget) -> Tensor:
        """Return E[omega (l(mu, y_q) + sigma sg[(sigma^2 - l(mu, clip y_z)) / (sigma + 0.1)])]; b moves first."""
        assert target.sample is not None
        mean, std = self.mean(out), self.std(out)
        centre, width = mean.detach(), std.detach()
        scale = self._moved(width)[:, None].expand_as(width)
        drawn = clipped_return(target.sample.expand_as(centre), centre, scale)
        error = functional.huber_loss(centre, drawn, reduction="none", delta=_HUBER)
        slope = (width.square() - (2.0 if self.calibrated else 1.0) * error) / (width + _SOFTEN)
        expected = target.mean.expand_as(mean)
        fit = functional.huber_loss(mean, expected, reduction="none", delta=_HUBER)
        return (item_weight(scale, width) * (fit + std * slope)).mean()

    @torch.no_grad()
    def _moved(self, std: Tensor) -> Tensor:
        now = std.mean(1)
        self.spread.copy_(torch.where(self.spread > 0, torch.lerp(self.spread, now, self.rate), now))
        return self.spread
