"""AND and OR of policies: chunks that all parents find equally likely, or that some parent finds likely.

SuperDiff (Skreta et al. 2024, arXiv 2412.17762): along a shared reverse diffusion the log-density of the state under
each parent is known without a divergence. In variance-exploding coordinates, v_i = (y - D_i) / sigma, one step of
length h = sigma - sigma' with z standard normal is

    dy = -2 h sum_i kappa_i v_i + sqrt(2 h sigma) z,        d log q_i = -(h / sigma) |v_i|^2 - <dy, v_i> / sigma.

OR weights by kappa = softmax(T log q + bias); AND chooses kappa, of sum 1, so that every log q grows alike: a linear
system in the differences of the v_i, solved for any number of parents.

Departures. The last step, to sigma = 0, takes the mixed denoiser with no noise. AND solves for the difference from
equal weights, and keeps these along a direction in which the parents do not differ (squared length below 1e-8, or
below 1e-6 of what it was before the directions already solved for), so that identical parents give the parent. Where
the clip bites, the log-densities of AND are no longer equal. GPC (arXiv 2510.01068) leaves flow policies out, as their
path is an ODE; here a flow policy is queried for its denoiser like any other.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from policies.agreement import Parent, end_step
from policies.compose import Composition, CompositionOptions, ParentDenoisers
from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import GaussianPath

OPERATORS = ("and", "or")
SMALLEST_SQUARE = 1e-8
SMALLEST_SHARE = 1e-6


def superpose(
    each: Callable[[Tensor, float], Tensor],
    y: Float[Tensor, "B H A"],
    levels: Sequence[float],
    step_noise: Float[Tensor, "S B H A"],
    *,
    operator: str,
    temperature: float = 1.0,
    bias: Float[Tensor, "M"] | None = None,
    clip: float | None = None,
) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "M B"]]:
    """Return the chunk that a superposed reverse diffusion reaches, and the parents' log-densities gained on the way.

    Args:
        each: Returns the parents' denoisers [M, B, H, A] at (y, sigma).
        y: State at `levels[0]`.
        levels: Falling noise levels that end in 0.
        step_noise: Standard normal, one for every step but the last.
        operator: `and` or `or`.
        temperature: T, how sharply OR chooses.
        bias: Added to T log q of each parent, for OR; `None` for zero.
        clip: Bound of the mixed denoiser.
    """
    gained = clean = y
    for step, (sigma, after) in enumerate(pairwise(levels)):
        velocity, h = (y - each(y, sigma)) / sigma, sigma - after
        if step == 0:
            gained = velocity.new_zeros(velocity.shape[:2])  # [M, B]
        kick = torch.zeros_like(y) if after == 0.0 else (2 * h * sigma) ** 0.5 * step_noise[step]
        if operator == "and":
            kappa = equal_density_weights(velocity, h, kick)
        else:
            logits = temperature * gained if bias is None else temperature * gained + bias[:, None]
            kappa = logits.softmax(dim=0)
        clean = y - sigma * (kappa[..., None, None] * velocity).sum(dim=0)
        if clip is not None:
            clean = clean.clip(-clip, clip)
        if after == 0.0:
            break
        dy = -2 * h * (y - clean) / sigma + kick
        gained = gained - (h * _dot(velocity, velocity) + _dot(dy, velocity)) / sigma
        y = y + dy
    return clean, gained


def equal_density_weights(
    velocity: Float[Tensor, "M B H A"], h: float, kick: Float[Tensor, "B H A"]
) -> Float[Tensor, "M B"]:
    """Return AND's weights, of sum 1, that let every parent's log-density grow alike over a step of length `h`.

    With d_i = v_i - v_M and kappa = 1/M + c, the condition is sum_j <d_i, d_j> c_j = r_i,
    r_i = (|v_i|^2 - |v_M|^2) / 2 - <mean(v) - kick / (2 h), d_i>.

    Args:
        velocity: (y - D_i) / sigma of each parent.
        h: Fall of the noise level.
        kick: The step's noise, sqrt(2 h sigma) z.
    """
    n = len(velocity) - 1
    delta = velocity[:-1] - velocity[-1]  # [M-1, B, H, A]
    square = _dot(velocity, velocity)  # [M, B]
    target = (square[:-1] - square[-1]) / 2 - _dot(velocity.mean(dim=0) - kick / (2 * h), delta)
    gram = [[_dot(delta[i], delta[j]) for j in range(n)] for i in range(n)]
    change = torch.stack(_solve_guarded(gram, list(target.unbind(0))))
    return torch.cat([change, -change.sum(dim=0, keepdim=True)]) + 1.0 / (n + 1)


def _solve_guarded(gram: list[list[Tensor]], target: list[Tensor]) -> list[Tensor]:
    """Solve a small positive semi-definite system by elimination; an unknown without a pivot is left at 0.

    It is written out for tensors [B] because ONNX has no operator that solves linear systems.
    """
    n, own = len(target), [gram[i][i] for i in range(len(target))]
    inverse: list[Tensor] = []
    for k in range(n):
        pivot = gram[k][k]
        usable = (pivot > SMALLEST_SQUARE) & (pivot > SMALLEST_SHARE * own[k])
        inverse.append(torch.where(usable, 1.0 / torch.where(usable, pivot, torch.ones_like(pivot)), 0.0))
        for i in range(k + 1, n):
            factor = gram[i][k] * inverse[k]
            gram[i] = [gram[i][j] - factor * gram[k][j] for j in range(n)]
            target[i] = target[i] - factor * target[k]
    solved: list[Tensor] = [torch.zeros_like(target[0])] * n
    for k in reversed(range(n)):
        rest = target[k]
        for j in range(k + 1, n):
            rest = rest - gram[k][j] * solved[j]
        solved[k] = rest * inverse[k]
    return solved


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product over the chunk."""
    return (a * b).sum(dim=(-2, -1))


class SuperposedModel(Composition):
    """AND or OR of parents; its sampler is stochastic and takes the noise of its steps as an argument.

    The state is in variance-exploding coordinates. `denoise` and `loss` know only the plain mean of the parents; it is
    `sample` that superposes them, so a bundle of it carries no solver to step.

    Args:
        parents: Two or more; see `Composition`.
        operator: `and` or `or`.
        temperature: How sharply OR chooses between the parents.
        bias: Added to the logits of OR, one number for each parent; zero if `None`.
        options: `policies.compose.CompositionOptions`.

    Raises:
        ConfigError: An unknown operator, a negative temperature, chunks of different steps, or what `Composition`
            refuses.
    """

    bias: Tensor

    def __init__(
        self,
        parents: Sequence[Parent],
        operator: str,
        *,
        temperature: float = 1.0,
        bias: Sequence[float] | None = None,
        **options: Unpack[CompositionOptions],
    ) -> None:
        if operator not in OPERATORS:
            raise ConfigError(f"`operator` must be one of {OPERATORS}, got {operator!r}")
        if not temperature >= 0:
            raise ConfigError(f"`temperature` must be 0 or more, got {temperature}")
        if bias is not None and len(bias) != len(parents):
            raise ConfigError(f"`bias` must be one number for each of {len(parents)} parents, got {list(bias)}")
        windows = {parent.name: (parent.model.action_offset, end_step(parent.model)) for parent in parents}
        if len(set(windows.values())) > 1:
            raise ConfigError(f"AND and OR compare densities of the same steps, got chunks over {windows}")
        equal = [1.0 / len(parents)] * len(parents)
        super().__init__(parents, equal, path=GaussianPath.ve(), **options)
        self.operator, self.temperature = operator, temperature
        self.register_buffer("bias", torch.tensor([0.0] * len(parents) if bias is None else list(bias)))

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Shape of the noise of one sample: the start, then each step but the last, one below the other."""
        return (len(self.levels) - 1) * self.horizon, self.action_dim

    def sample_normalised(self, obs: Mapping[str, Tensor], noise: Float[Tensor, "B N A"]) -> Float[Tensor, "B H A"]:
        """Return the normalised chunk for noise of `noise_shape`."""
        cond = self.encode(obs)
        draws = noise.unflatten(1, (-1, self.horizon)).transpose(0, 1)  # [steps, B, H, A]
        network = self.denoiser
        assert isinstance(network, ParentDenoisers)
        found, _ = superpose(
            lambda y, level: network.each(y, y.new_full((y.shape[0],), level), cond),
            self.path.initial(self.noise_scale * draws[0], self.levels[0]),
            self.levels,
            draws[1:],
            operator=self.operator,
            temperature=self.temperature,
            bias=self.bias,
            clip=self.clip,
        )
        return found
