"""Models of real size with untrained weights: latency and parity do not depend on what was learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from policies.denoising import DenoisingModel
from policies.diffusion import DiffusionModel
from policies.encoders import CompositeEncoder, StateEncoder
from policies.flow import FlowModel
from policies.mlp import ResidualMLP
from policies.transformer import ChunkTransformer
from policies.unet1d import ConditionalUnet1d
from policies.vision import ImageEncoder
from robot_rl.data.normalizer import FieldStats
from robot_rl.specs import RobotSpec

N_OBS, HORIZON, N_EXECUTE = 2, 16, 8
DENOISERS: Mapping[str, Callable[..., nn.Module]] = {
    "residual MLP": ResidualMLP,
    "U-Net 1D": partial(ConditionalUnet1d, down_dims=(64, 128, 256)),
    "transformer": ChunkTransformer,
}
FAMILIES: Mapping[str, Callable[..., DenoisingModel]] = {
    "flow": partial(FlowModel, n_steps=10),
    "diffusion, epsilon": partial(DiffusionModel, n_steps=10, prediction="epsilon"),
    "diffusion, sample": partial(DiffusionModel, n_steps=10, prediction="sample"),
    "diffusion, v": partial(DiffusionModel, n_steps=10, prediction="v"),
}
ENCODERS: Mapping[str, Callable[..., Any]] = {
    "state": StateEncoder,
    "image": partial(CompositeEncoder, parts=[StateEncoder, partial(ImageEncoder, crop=(84, 84), width=16)]),
}


def stats_around(center: np.ndarray, reach: float | np.ndarray) -> FieldStats:
    """Return statistics of data spread evenly over center +- reach."""
    low, high = center - reach, center + reach
    return FieldStats(low, high, center, (high - low) / np.sqrt(12), low, high, 1000)


def make_model(
    spec: RobotSpec, stats: Mapping[str, FieldStats], *, family: str = "flow", denoiser: str = "residual MLP",
    encoder: str = "state",
) -> DenoisingModel:  # fmt: skip
    """Return an untrained model; its output layer is drawn like the others, so that the solver has work to do."""
    torch.manual_seed(0)
    return FAMILIES[family](
        spec, stats, encoder=ENCODERS[encoder], denoiser=DENOISERS[denoiser], n_obs=N_OBS, horizon=HORIZON,
        action_offset=1 - N_OBS,
    )  # fmt: skip


def n_parameters(model: nn.Module) -> int:
    """Return how many numbers are learned."""
    return sum(p.numel() for p in model.parameters())
