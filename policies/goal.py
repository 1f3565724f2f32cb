"""Goals: what is to be reached, as a part of the observation, and its absence, for classifier-free guidance.

An observation `goal_<name>` holds what `<name>` should become: a state or a picture. In training the goal of some
samples is replaced by a learned vector that means "none", so that one network learns D_c = E[a | x, obs, goal] and
D_u = E[a | x, obs]; `DenoisingModel` with `guidance` samples from D_u + guidance (D_c - D_u)
(Ho & Salimans 2022, arXiv 2207.12598, with guidance = 1 + w; BESO, Reuss et al. 2023, arXiv 2304.02532, section III-C).

Departures from BESO's code, which zeroes each number of each goal by itself: a sample keeps its whole goal or loses it,
and none is a vector of its own, because zero may well be a goal.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policies.encoders import Encoder, StateEncoder, Stats, lookup
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec

GOAL_DROPPED = "goal_dropped"
"""Key beside the observations, bool [B]: whose goals are to be taken as absent; given, nothing is drawn."""


class GoalEncoder(Encoder):
    """Encodes goals for each observation step; a part of a `CompositeEncoder`, beside what encodes the present.

    Only the newest row of a goal is read. In training, goals are dropped by torch's global generator.

    Args:
        spec: The robot; it has the observations `names`.
        stats: Statistics of what `encoder` normalises, under the goals' names.
        n_obs: O, observation steps.
        names: Goal observations, `goal_<name>`.
        encoder: Made as encoder(spec, stats, n_obs=1) of a spec with the goals alone: `StateEncoder` for states,
            `policies.vision.ImageEncoder` for pictures.
        dim: Width of the goal's embedding.
        drop: Probability that a sample's goal is dropped in training; guidance needs it above 0.

    Raises:
        ConfigError: No goal, one that the robot has not or that is not called `goal_...`, or `drop` outside [0, 1).
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        n_obs: int,
        names: Sequence[str],
        encoder: Callable[..., Encoder] = StateEncoder,
        dim: int = 64,
        drop: float = 0.1,
    ) -> None:
        if not names or not all(name.startswith("goal_") for name in names):
            raise ConfigError(f"`names` of GoalEncoder must name observations `goal_<name>`, got {list(names)}")
        if not 0.0 <= drop < 1.0:
            raise ConfigError(f"`drop` must be a probability in [0, 1), got {drop}")
        super().__init__(n_obs, dim)
        for name in names:
            lookup(spec, name, "GoalEncoder")
        self.names, self.drop = tuple(names), drop
        self.goal = encoder(spec.select(list(names)), stats, n_obs=1)
        self.embed = nn.Sequential(nn.Linear(self.goal.step_dim, dim), nn.SiLU())
        self.none = nn.Parameter(0.1 * torch.randn(dim))

    def steps(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B O F"]:
        """Return the goal's embedding, the same at each step, or that of no goal."""
        embedded = self.embed(self.goal.steps({name: obs[name][:, -1:] for name in self.names}))  # [B, 1, F]
        dropped = obs.get(GOAL_DROPPED)
        if dropped is None and self.training and self.drop > 0:
            dropped = torch.rand(len(embedded), device=embedded.device) < self.drop
        if dropped is not None:
            embedded = torch.where(dropped[:, None, None], self.none.to(embedded.dtype), embedded)
        return embedded.expand(-1, self.n_obs, -1)


def without_goal(obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the observations of a batch with every goal marked as absent."""
    some = next(iter(obs.values()))
    return {**obs, GOAL_DROPPED: torch.ones(some.shape[0], dtype=torch.bool, device=some.device)}


def knows_absence(encoder: nn.Module) -> bool:
    """Return whether an encoder has goals and was trained without them too."""
    return any(isinstance(part, GoalEncoder) and part.drop > 0 for part in encoder.modules())
