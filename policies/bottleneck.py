"""Regularised encoders: a variational bottleneck and reconstruction around any encoder (RL-100, arXiv 2510.14830).

    loss = policy loss + kl_weight KL(N(mu, sigma) || N(0, 1)) + reconstruct_weight (sum of reconstruction errors)

The feature is mu + sigma eps while a loss is computed in training, and mu everywhere else: in evaluation, in sampling
and in the exported graph. (Variational information bottleneck: Alemi et al. 2017, arXiv 1612.00410.)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policies.encoders import Encoder, Stats, steps_for_loss
from policies.reconstruction import Reconstruction
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec

_LOG_VAR = 10.0  # a variance within e^-10 .. e^10, so that a bad batch cannot overflow; a departure


def standard_normal_kl(mu: Float[Tensor, "*N F"], log_var: Float[Tensor, "*N F"]) -> Float[Tensor, ""]:
    """Return KL(N(mu, diag exp(log_var)) || N(0, 1)) in nats: summed over the features, averaged over the rest."""
    return 0.5 * (mu.square() + log_var.exp() - 1.0 - log_var).sum(dim=-1).mean()


class BottleneckEncoder(Encoder):
    """An encoder whose features pass a variational bottleneck, must reconstruct what was seen, or both.

    Args:
        spec: The robot.
        stats: Statistics by observation name.
        n_obs: O, observation steps.
        part: The encoder inside, called as part(spec, stats, n_obs=...).
        dim: Width of the bottleneck; the inner encoder's when `None`.
        kl_weight: Weight of the divergence (RL-100: 1e-5 for single actions, 1e-4 for chunks); `None` leaves the
            bottleneck out and passes the inner features on.
        reconstruct: What must be found again in the features, each called as reconstruct(spec, stats, n_obs=...,
            in_dim=...): see `policies.reconstruction`.
        reconstruct_weight: Weight of their sum (RL-100: 0.5; pictures 0.05 to 0.1).

    Raises:
        ConfigError: A negative weight, or neither bottleneck nor reconstruction.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        n_obs: int,
        part: Callable[..., Encoder],
        dim: int | None = None,
        kl_weight: float | None = 1e-4,
        reconstruct: Sequence[Callable[..., Reconstruction]] = (),
        reconstruct_weight: float = 0.5,
    ) -> None:
        inner = part(spec, stats, n_obs=n_obs)
        if min(0.0 if kl_weight is None else kl_weight, reconstruct_weight) < 0:
            raise ConfigError(
                f"`kl_weight` and `reconstruct_weight` must be 0 or more, got {kl_weight} and {reconstruct_weight}"
            )
        if kl_weight is None and (not reconstruct or dim is not None):
            raise ConfigError(
                "without `kl_weight` there is no bottleneck: give something to `reconstruct` and no `dim`, got "
                f"{len(reconstruct)} and {dim}"
            )
        width = inner.step_dim if dim is None else dim
        super().__init__(n_obs, width)
        self.part = inner
        self.kl_weight, self.reconstruct_weight = kl_weight, reconstruct_weight
        self.mu = nn.Identity() if kl_weight is None else nn.Linear(inner.step_dim, width)
        self.log_var = None if kl_weight is None else nn.Linear(inner.step_dim, width)
        self.reconstruct = nn.ModuleList([make(spec, stats, n_obs=n_obs, in_dim=width) for make in reconstruct])

    def steps(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B O F"]:
        """Return the means, the same in training and evaluation."""
        return self.mu(self.part.steps(obs))

    def steps_for_loss(self, obs: Mapping[str, Tensor]) -> tuple[Float[Tensor, "B O F"], Float[Tensor, ""]]:
        """Return the features, drawn in training from torch's global generator, and what they cost."""
        inner, cost = steps_for_loss(self.part, obs)
        features = self.mu(inner)
        if self.log_var is not None:
            log_var = self.log_var(inner).float().clamp(-_LOG_VAR, _LOG_VAR)
            cost = cost + cast(float, self.kl_weight) * standard_normal_kl(features.float(), log_var)
            if self.training:
                features = features + (0.5 * log_var).exp() * torch.randn_like(log_var)
        for head in self.reconstruct:
            cost = cost + self.reconstruct_weight * head(features, obs)
        return features, cost
