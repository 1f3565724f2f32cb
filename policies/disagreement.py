"""How far the horizons of a mixture are apart on the chunk they sample together (`policies.horizons`)."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from policies.chunk_network import ChunkNetwork
from policies.denoising import DenoisingModel
from policies.horizons import MixtureOfHorizons, disagreement, fuse
from policies.regression import RegressionModel
from robot_rl.errors import ConfigError


def horizons_of(model: ChunkNetwork) -> tuple[int, ...]:
    """Return the horizons whose disagreement a model can tell: none without a mixture, or with guidance.

    `accumulated` disagreement is defined for the sampler `ddim` alone.
    """
    mixture = model.denoiser
    if not isinstance(mixture, MixtureOfHorizons):
        return ()
    if isinstance(model, DenoisingModel):
        steps = mixture.disagreement == "final" or model.sampler == "ddim"
        return mixture.horizons if steps and not model.is_guided else ()
    return mixture.horizons if isinstance(model, RegressionModel) else ()


def sample_with_disagreement(
    model: ChunkNetwork, obs: Mapping[str, Tensor], noise: Float[Tensor, "B M A"]
) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B H"]]:
    """Return the normalised chunk and, for each step, the gate-weighted L1 distance of the horizons from it.

    All horizons share the sampler's state, so that the horizons' own chunks are those that its last step leads to from
    there (the mixture's option `final`). With `accumulated` the distances of every step's results are added up, which
    for a flow is the sum of |dt| sum_h alpha_h ||v_h - v_mix||_1. Normalised units, before any clip; a rule should look
    at ratios only.

    Args:
        model: A model with a mixture of horizons (`horizons_of`).
        obs: Observations {name: [B, O, ...]} in physical units.
        noise: As of `sample`.

    Raises:
        ConfigError: A model that cannot tell it.
    """
    mixture = model.denoiser
    if isinstance(mixture, MixtureOfHorizons) and horizons_of(model):
        if isinstance(model, RegressionModel):
            return _in_one_call(model, mixture, obs)
        if isinstance(model, DenoisingModel):
            return _along_the_sampler(model, mixture, obs, noise)
    raise ConfigError(
        f"this {type(model).__name__} cannot tell the disagreement of horizons: it needs a mixture of them, no "
        "guidance, and the sampler `ddim` if it is `accumulated`"
    )


def _in_one_call(
    model: RegressionModel, mixture: MixtureOfHorizons, obs: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    cond = model.encode(obs)
    outputs, gate = mixture.per_horizon(*model.queries(cond), cond)
    mixed = fuse(outputs, gate)
    return mixed, disagreement(outputs, gate, mixed)


def _along_the_sampler(
    model: DenoisingModel, mixture: MixtureOfHorizons, obs: Mapping[str, Tensor], noise: Tensor
) -> tuple[Tensor, Tensor]:
    accumulated = mixture.disagreement == "accumulated"
    cond, after = model.encode(obs), dict(zip(model.times[:-1], model.times[1:], strict=True))
    apart: list[Tensor] = []

    def denoise(x: Tensor, t: float) -> Tensor:
        time = x.new_full((x.shape[0],), t)
        outputs, gate = mixture.per_horizon(*model.network_inputs(x, time), cond)
        mixed = model.native(x, time, fuse(outputs, gate))
        if accumulated or t == model.times[-2]:
            native = [mixed, *(model.native(x, time, output) for output in outputs.unbind(1))]
            reached = [model.path.denoised(x, t, prediction) for prediction in native]
            if accumulated:
                reached = [model.path.step(x, chunk, t, after[t]) for chunk in reached]
            # Beyond its reach a horizon's output is meaningless, and its weight is zero.
            apart.append(disagreement(torch.stack(reached[1:], dim=1), gate, reached[0]))
        return mixed

    sampled = model.run_sampler(noise, denoise)
    return sampled, torch.stack(apart).sum(dim=0) if accumulated else apart[-1]
