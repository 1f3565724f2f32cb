"""Latent-consistency head of a diffusion policy: consistent along its teacher's DDIM steps, boundary and EMA target.

Luo et al. 2023 (LCM, arXiv 2310.04378) as RL-100's code has it (`back_up`). With N trained steps cut into S intervals,
t_j = (j + 1) N / S - 1 and p = max(t_j - N / S, 0),

    f(x, t) = c_skip(t) x + c_out(t) D(x, t)        c_skip = s^2 / ((b t)^2 + s^2)    c_out = b t / sqrt((b t)^2 + s^2)
    L = || f(x_t, t) - sg f-(x_p, p) ||^2           x_t = sqrt(alpha_bar_t) a + sqrt(1 - alpha_bar_t) eps

where x_p is one DDIM step of the teacher and f- the averaged head. f(x, 0) = x whatever the weights, so that
consistency reaches from noise to data. One call at t = N - 1 is the chunk.

Departures from RL-100: the network predicts the sample or v in training as well as when sampling (theirs is trained as
epsilon and read as the sample); masked steps are pure noise and do not count, as in the teacher's training.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from policies.chunk_network import ChunkNetwork, counted_mean
from policies.encoders import Stats
from policies.one_step import OneStepHead, denoised_by
from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import Prediction
from robot_rl.specs import RobotSpec


def boundary(
    t: Float[Tensor, "B"], *, spread: float = 0.5, scale: float = 10.0
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Return c_skip and c_out of trained steps `t`: 1 and 0 at t = 0.

    Args:
        t: Steps, in the unit that the schedule counts in.
        spread: s, of the data.
        scale: b, how fast c_out rises.
    """
    scaled = scale * t
    return spread**2 / (scaled**2 + spread**2), scaled / (scaled**2 + spread**2).sqrt()


class ConsistencyModel(OneStepHead):
    """The head; its teacher must be a diffusion policy. Arguments not named here are as of `OneStepHead`.

    Args:
        spec: The robot.
        stats: Statistics its teacher was built with.
        model: See `OneStepHead`.
        denoiser: See `OneStepHead`.
        prediction: See `OneStepHead`.
        n_intervals: S, of the schedule; the teacher steps over one at a time.
        target_decay: Decay of the averaged head that targets come from.

    Raises:
        ConfigError: A teacher of another path, or intervals that do not divide the schedule.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        model: Callable[[RobotSpec, Stats], ChunkNetwork],
        denoiser: Callable[..., nn.Module],
        prediction: Prediction | None = None,
        n_intervals: int = 10,
        target_decay: float = 0.95,
    ) -> None:
        super().__init__(spec, stats, model=model, denoiser=denoiser, prediction=prediction, target_decay=target_decay)
        if self.path.kind != "vp":
            raise ConfigError(
                f"a latent-consistency head needs a diffusion teacher (path vp), got a {self.path.kind} path; use "
                "head=same_noise, or shortcut and mean_flow for a flow"
            )
        if not 1 <= n_intervals <= self.path.n_train or self.path.n_train % n_intervals:
            raise ConfigError(f"`n_intervals` must divide the {self.path.n_train} trained steps, got {n_intervals}")
        self.interval = self.path.n_train // n_intervals
        self.n_intervals = n_intervals

    def consistent(
        self,
        network: nn.Module,
        x: Float[Tensor, "B H A"],
        t: Float[Tensor, "B"],
        cond: Float[Tensor, "B C"],
    ) -> Float[Tensor, "B H A"]:
        """Return f(x, t) of one of the head's networks."""
        skip, out = (c[:, None, None] for c in boundary(t))
        return skip * x + out * denoised_by(self, network, x, t, cond)

    def predict(self, cond: Float[Tensor, "B C"], noise: Float[Tensor, "B H A"]) -> Float[Tensor, "B H A"]:
        """Return the normalised chunk: f at the noisiest step."""
        x = self.inner.noise_scale * noise
        return self.consistent(self.denoiser, x, x.new_full((x.shape[0],), float(self.path.n_train - 1)), cond)

    def loss(
        self,
        obs: Mapping[str, Tensor],
        target: Float[Tensor, "B H A"],
        noise: Float[Tensor, "B H A"],
        u: Float[Tensor, "B"],
        mask: Bool[Tensor, "B H"],
    ) -> Float[Tensor, ""]:
        """Return the mean squared inconsistency over one teacher step; arguments as of `ChunkNetwork.loss`."""
        self.move_target()
        teacher, counted = self.teacher, self.counted(mask)
        j = (u * self.n_intervals).floor().clamp(max=self.n_intervals - 1)
        t = (j + 1) * self.interval - 1
        before = (t - self.interval).clamp(min=0)
        x = self.inner.noisy(self.normalised(obs, target), noise, t, counted)
        with torch.no_grad():
            cond, theirs = self.conditions(obs)
            stepped = teacher.path.step(x, teacher.denoised(x, t, t, theirs), t, before)
            wanted = self.consistent(self.averaged, stepped, before, cond).float()
        return counted_mean(torch.square(self.consistent(self.denoiser, x, t, cond).float() - wanted), counted)
