"""What one-step heads need of their teachers: the model within a chain, its noise-free path, and whether both agree."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policies.chain import DenoisingChain
from policies.chunk_network import ChunkNetwork
from policies.denoising import DenoisingModel
from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import GaussianPath, Prediction, solve


def denoising_of(model: ChunkNetwork) -> DenoisingModel:
    """Return the denoising model that a model is or is a chain of.

    Raises:
        ConfigError: It is neither.
    """
    inner = model.model if isinstance(model, DenoisingChain) else model
    if not isinstance(inner, DenoisingModel):
        raise ConfigError(
            f"a head is distilled from a model that denoises (diffusion, flow, EDM, or a chain of one), got "
            f"{type(model).__name__}"
        )
    return inner


def head_path(path: GaussianPath, prediction: Prediction | None) -> GaussianPath:
    """Return the path with what a head's network predicts."""
    if prediction is None:
        return dataclasses.replace(path, prediction="sample") if path.prediction == "epsilon" else path
    if prediction == "epsilon":
        raise ConfigError(
            "`prediction` of a one-step head must not be epsilon: at the noisy end its error is divided by "
            "sqrt(alpha_bar); use sample, velocity (flow) or v (diffusion)"
        )
    return dataclasses.replace(path, prediction=prediction)


@torch.no_grad()
def warm_start(student: nn.Module, teacher: nn.Module, *, grown: int = 0) -> bool:
    """Copy a teacher's weights, inputs that a layer has more of than there set to zero; return whether they fit.

    Args:
        student: The network to fill.
        teacher: The network to copy.
        grown: How many inputs, the last ones, the student's layers that read the condition may have more.
    """
    mine, theirs = student.state_dict(), teacher.state_dict()
    if set(mine) != set(theirs):
        return False
    filled: dict[str, Tensor] = {}
    for name, weight in mine.items():
        source = theirs[name]
        wider = weight.ndim >= 2 and weight.shape == (source.shape[0], source.shape[1] + grown, *source.shape[2:])
        if weight.shape != source.shape and not wider:
            return False
        filled[name] = torch.zeros_like(weight)
        filled[name][(slice(None), slice(source.shape[1])) if weight.shape != source.shape else ...] = source
    student.load_state_dict(filled)
    return True


def check_teacher(inner: DenoisingModel, teacher: DenoisingModel) -> None:
    """Raise unless a teacher's chunks mean the same as those of the model that a head was built of.

    Raises:
        ConfigError: Names the first thing that differs, with both values.
    """
    if (mine := inner.path.kind) != (theirs := teacher.path.kind):
        raise ConfigError(f"the head is of a {mine} path and its teacher of a {theirs} path; distil it anew")
    for name in ("n_obs", "horizon", "action_dim", "action_offset", "relative_to", "guidance", "clip", "noise_scale"):
        ours, other = getattr(inner, name), getattr(teacher, name)
        if ours != other:
            raise ConfigError(f"`{name}` is {ours!r} for the head and {other!r} for its teacher; distil it anew")
    for name in ("scale", "offset"):
        ours, other = getattr(inner.normalizer, name), getattr(teacher.normalizer, name)
        if ours.shape != other.shape or not torch.allclose(ours, other.to(ours), rtol=1e-6, atol=1e-6):
            raise ConfigError(
                f"`normalizer.{name}` differs between head and teacher: {ours.flatten()[:4].tolist()} and "
                f"{other.flatten()[:4].tolist()} (first elements); a head must normalise actions as its teacher does"
            )
    shapes, others = (
        {name: tuple(value.shape) for name, value in part.encoder.state_dict().items()} for part in (inner, teacher)
    )
    if shapes != others:
        differing = sorted(set(shapes.items()) ^ set(others.items()))[0]
        raise ConfigError(f"the encoders of head and teacher differ in `{differing[0]}`; distil it anew")


def noise_free_chunk(
    model: DenoisingModel, cond: Float[Tensor, "B C"], noise: Float[Tensor, "B H A"]
) -> Float[Tensor, "B H A"]:
    """Return the normalised chunk that a model reaches from `noise` without adding more; `cond` is of its `encode`."""

    def denoise(x: Tensor, t: float) -> Tensor:
        return model.denoise(x, x.new_full((x.shape[0],), t), cond)

    if model.n_step_noise == 0:
        return model.run_sampler(noise, denoise)
    start = model.path.initial(model.noise_scale * noise, model.times[0])
    return solve(model.path, denoise, start, model.times, clip=model.clip)
