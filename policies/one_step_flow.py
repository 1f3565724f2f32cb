"""One-step heads of flow policies that learn the average velocity over a span of time: shortcut and MeanFlow.

Time runs from noise at t = 1 to data at t = 0, the velocity is v = dx/dt. A head's network puts out the average
velocity u(x, t, d) on the way from t to t - d, so that x_{t - d} = x_t - d u, and one call over the whole span, d = 1
at t = 1, is the chunk: a = x_1 - u(x_1, 1, 1). The span enters as sines and cosines beside the condition.

* Shortcut (Frans et al. 2024, arXiv 2410.12557): two spans of d make one of 2d,
      u(x, t, 2d) = [u(x, t, d) + u(x - d u(x, t, d), t - d, d)] / 2,
  the right-hand side by the averaged head; the smallest span is the velocity itself.
* MeanFlow (Geng et al. 2025, arXiv 2505.13447; for robots MP1, arXiv 2507.10543): with r = t - d,
      u = v - (t - r) (v . grad_x u + du/dt),   r held,
  whose right-hand side is one forward-mode derivative of the head and is not differentiated.

Departures. Both learn from a teacher: v is the teacher's velocity at x_t, where the papers train from scratch on the
conditional one, eps - a; it has the same mean and less variance. Shortcut's targets are not clipped (their +-4 are in
the unit of image latents). MP1's guidance mixing and dispersive loss are left out. A sample's random numbers all come
from its one uniform u, whose high and low bits are independent.
"""

import abc
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from policies.chunk_network import ChunkNetwork, counted_mean
from policies.encoders import Stats
from policies.one_step import OneStepHead
from policies.time_embedding import SinusoidalTime
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec

FINEST = 128
"""Spans of shortcut are 1 / 128, 2 / 128 ... 1."""
LEVELS = 7
SPAN_DIM = 16
LOG_MEAN, LOG_STD = -0.4, 1.0


def split_uniform(u: Float[Tensor, "B"], n: int) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Return which of n equal parts each number of [0, 1) lies in, and where within it, again in [0, 1)."""
    scaled = u * n
    part = scaled.floor().clamp(max=n - 1)
    return part, scaled - part


class AverageVelocity(OneStepHead, abc.ABC):
    """Abstract head of a flow whose network puts out the average velocity over a span.

    Args:
        spec: The robot.
        stats: Statistics its teacher was built with.
        model: See `OneStepHead`.
        denoiser: See `OneStepHead`.
        span_scale: Factor on a span before its sines and cosines, whose fastest has one radian per unit.
        target_decay: See `OneStepHead`.

    Raises:
        ConfigError: The teacher is not a flow with velocity prediction.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        model: Callable[[RobotSpec, Stats], ChunkNetwork],
        denoiser: Callable[..., nn.Module],
        span_scale: float,
        target_decay: float | None = None,
    ) -> None:
        super().__init__(spec, stats, model=model, denoiser=denoiser, extra=SPAN_DIM, target_decay=target_decay)
        if self.path.kind != "flow" or self.path.prediction != "velocity":
            raise ConfigError(
                f"{type(self).__name__} needs a flow teacher that predicts velocities, got a {self.path.kind} path "
                f"with {self.path.prediction}; use head=same_noise"
            )
        self.span_features, self.span_scale = SinusoidalTime(SPAN_DIM), span_scale

    def velocity(
        self,
        network: nn.Module,
        x: Float[Tensor, "B H A"],
        t: Float[Tensor, "B"],
        span: Float[Tensor, "B"],
        cond: Float[Tensor, "B C"],
    ) -> Float[Tensor, "B H A"]:
        """Return the average velocity from `t` to `t - span` that one of the head's networks puts out."""
        inputs = torch.cat([cond, self.span_features(self.span_scale * span).to(cond.dtype)], dim=1)
        return network(*self.inner.network_inputs(x, t), inputs)

    def predict(self, cond: Float[Tensor, "B C"], noise: Float[Tensor, "B H A"]) -> Float[Tensor, "B H A"]:
        """Return the normalised chunk: the whole span in one step."""
        x = self.start(noise)
        whole = x.new_ones(x.shape[0])
        return x - self.velocity(self.denoiser, x, whole, whole, cond)


class ShortcutModel(AverageVelocity):
    """The shortcut head. Arguments not named here are as of `OneStepHead`.

    Args:
        spec: The robot.
        stats: Statistics its teacher was built with.
        model: See `OneStepHead`.
        denoiser: See `OneStepHead`.
        bootstrap: Share of a batch that learns a span from two half as long; the rest learns the velocity.
        target_decay: Decay of the averaged head that targets come from.

    Raises:
        ConfigError: `bootstrap` is not between 0 and 1, or what `AverageVelocity` refuses.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        model: Callable[[RobotSpec, Stats], ChunkNetwork],
        denoiser: Callable[..., nn.Module],
        bootstrap: float = 0.125,
        target_decay: float = 0.999,
    ) -> None:
        super().__init__(spec, stats, model=model, denoiser=denoiser, span_scale=100.0, target_decay=target_decay)
        if not 0 <= bootstrap < 1:
            raise ConfigError(f"`bootstrap` must lie within [0, 1), got {bootstrap}")
        self.bootstrap = bootstrap

    def two_half_spans(
        self,
        network: nn.Module,
        x: Float[Tensor, "B H A"],
        t: Float[Tensor, "B"],
        span: Float[Tensor, "B"],
        cond: Float[Tensor, "B C"],
    ) -> Float[Tensor, "B H A"]:
        """Return the average velocity over `span` that two steps over its halves make."""
        half = span / 2
        first = self.velocity(network, x, t, half, cond)
        second = self.velocity(network, x - half[:, None, None] * first, t - half, half, cond)
        return (first + second) / 2

    def loss(
        self,
        obs: Mapping[str, Tensor],
        target: Float[Tensor, "B H A"],
        noise: Float[Tensor, "B H A"],
        u: Float[Tensor, "B"],
        mask: Bool[Tensor, "B H"],
    ) -> Float[Tensor, ""]:
        """Return the squared error: of the first `bootstrap` of a batch to two half spans, of the rest to the velocity.

        Arguments as of `ChunkNetwork.loss`. Times lie on the grid of their span.
        """
        self.move_target()
        n, counted = int(self.bootstrap * len(u)), self.counted(mask)
        level, rest = split_uniform(u, LEVELS)
        boots = torch.arange(len(u), device=u.device) < n
        span = torch.where(boots, 2.0 ** (level + 1) / FINEST, torch.full_like(u, 1 / FINEST))
        t = ((torch.where(boots, rest, u) / span).floor() + 1) * span
        t = t.clamp(max=1.0)
        x = self.inner.noisy(self.normalised(obs, target), noise, t, counted)
        with torch.no_grad():
            cond, theirs = self.conditions(obs)
            wanted = self.teacher.denoise(x, t, theirs).float()
            if n:
                wanted[:n] = self.two_half_spans(self.averaged, x[:n], t[:n], span[:n], cond[:n]).float()
        return counted_mean(torch.square(self.velocity(self.denoiser, x, t, span, cond).float() - wanted), counted)


class MeanFlowModel(AverageVelocity):
    """The MeanFlow head. Its network must have forward-mode derivatives. Arguments not named here: `OneStepHead`.

    Args:
        spec: The robot.
        stats: Statistics its teacher was built with.
        model: See `OneStepHead`.
        denoiser: See `OneStepHead`.
        equal: Share of samples whose span is 0, which learn the velocity itself.
        power: p of a sample's adaptive weight 1 / (err^2 + 1e-3)^p, which is not differentiated; 0 is plain squares.

    Raises:
        ConfigError: `equal` is not between 0 and 1, or what `AverageVelocity` refuses.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        model: Callable[[RobotSpec, Stats], ChunkNetwork],
        denoiser: Callable[..., nn.Module],
        equal: float = 0.5,
        power: float = 0.5,
    ) -> None:
        # Slow features: the identity differentiates by the span.
        super().__init__(spec, stats, model=model, denoiser=denoiser, span_scale=10.0)
        if not 0 <= equal <= 1:
            raise ConfigError(f"`equal` must lie within [0, 1], got {equal}")
        self.equal, self.power = equal, power

    def spans(self, u: Float[Tensor, "B"]) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """Return times t and spans t - r for u uniform in [0, 1): two logit-normal times, or one twice."""
        coin, rest = split_uniform(u, 64)
        part, second = split_uniform(rest, 512)
        pair = torch.stack([(part + 0.5) / 512, second]).clamp(1e-4, 1 - 1e-4)
        times = torch.sigmoid(LOG_MEAN + LOG_STD * torch.special.ndtri(pair))
        late, early = times.amax(dim=0), times.amin(dim=0)
        same = (coin + 0.5) / 64 < self.equal
        return torch.where(same, times[0], late), torch.where(same, torch.zeros_like(late), late - early)

    @torch.no_grad()
    def identity(
        self,
        x: Float[Tensor, "B H A"],
        t: Float[Tensor, "B"],
        span: Float[Tensor, "B"],
        cond: Float[Tensor, "B C"],
        v: Float[Tensor, "B H A"],
    ) -> Float[Tensor, "B H A"]:
        """Return v - (t - r) du/dt, what u should be, for the velocity `v` at (x, t).

        Raises:
            ConfigError: The network has no forward-mode derivative.
        """

        def average(x: Tensor, t: Tensor, span: Tensor) -> Tensor:
            return self.velocity(self.denoiser, x, t, span, cond)

        # r is held, so the span grows with t.
        tangents = (v, torch.ones_like(t), torch.ones_like(span))
        try:
            _, change = torch.func.jvp(average, (x, t, span), tangents)
        except (NotImplementedError, RuntimeError) as error:
            raise ConfigError(
                f"{type(self.denoiser).__name__} has no forward-mode derivative here ({error}); a MeanFlow head needs "
                "a network that has, such as denoiser=mlp"
            ) from error
        return v - span[:, None, None] * change

    def loss(
        self,
        obs: Mapping[str, Tensor],
        target: Float[Tensor, "B H A"],
        noise: Float[Tensor, "B H A"],
        u: Float[Tensor, "B"],
        mask: Bool[Tensor, "B H"],
    ) -> Float[Tensor, ""]:
        """Return the weighted squared error to the MeanFlow identity; arguments as of `ChunkNetwork.loss`."""
        counted = self.counted(mask)
        t, span = self.spans(u)
        x = self.inner.noisy(self.normalised(obs, target), noise, t, counted)
        with torch.no_grad():
            cond, theirs = self.conditions(obs)
            v = self.teacher.denoise(x, t, theirs).float()
        wanted = self.identity(x, t, span, cond, v)
        error = torch.square(self.velocity(self.denoiser, x, t, span, cond).float() - wanted)
        size = (error.detach() * counted[..., None]).sum(dim=(1, 2)) / (
            counted.sum(dim=1).clamp(min=1) * error.shape[2]
        )
        return counted_mean(error / (size + 1e-3)[:, None, None] ** self.power, counted)
