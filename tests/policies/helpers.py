"""A small robot, its statistics, and batches, for the tests of models."""

import functools

import numpy as np
import torch

from policies.diffusion import DiffusionModel
from policies.edm import EDMModel
from policies.encoders import StateEncoder
from policies.flow import FlowModel
from policies.mlp import ResidualMLP
from policies.transformer import ChunkTransformer
from policies.unet1d import ConditionalUnet1d
from robot_rl.data.normalizer import FieldStats
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec

SPEC = RobotSpec(
    name="pusher",
    obs={
        "agent_pos": ArraySpec(name="agent_pos", shape=(2,), unit="px", low=0.0, high=512.0),
        "block_pose": ArraySpec(name="block_pose", shape=(3,), low=(0.0, 0.0, -3.0), high=(512.0, 512.0, 3.0)),
    },
    action=ActionSpec(name="action", shape=(2,), unit="px", kind="position", low=0.0, high=512.0),
    control_hz=10,
)


def field_stats(low, high) -> FieldStats:
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    return FieldStats(low, high, (low + high) / 2, (high - low) / 4, low, high, 100)


STATS = {
    "agent_pos": field_stats([0, 0], [512, 512]),
    "block_pose": field_stats([100, 0, -3], [300, 512, 3]),
    "action": field_stats([10, 20], [500, 400]),
}
HORIZON = 8
DENOISERS = {
    "mlp": functools.partial(ResidualMLP, width=64, n_blocks=2, time_dim=16, context_dim=32),
    "mlp_concat": functools.partial(ResidualMLP, width=64, n_blocks=2, time_dim=16, conditioning="concat"),
    "unet": functools.partial(ConditionalUnet1d, down_dims=(16, 32), kernel_size=3, time_dim=16),
    "transformer": functools.partial(ChunkTransformer, width=32, n_layers=2, n_heads=2, cond_tokens=2, time_dim=16),
}
FAMILIES = {
    "flow": FlowModel,
    "epsilon": functools.partial(DiffusionModel, prediction="epsilon"),
    "sample": functools.partial(DiffusionModel, prediction="sample"),
    "v": functools.partial(DiffusionModel, prediction="v"),
    "edm": EDMModel,
}
encoder = functools.partial(StateEncoder, angles={"block_pose": [2]})


def model(family: str = "flow", denoiser: str = "mlp", **kwargs):
    torch.manual_seed(0)
    settings = {"encoder": encoder, "n_obs": 2, "horizon": HORIZON, "action_offset": -1} | kwargs
    return FAMILIES[family](SPEC, STATS, denoiser=DENOISERS[denoiser], **settings)


def batch(size: int = 3, n_obs: int = 2, seed: int = 0):
    """Return obs and target actions, physical."""
    g = torch.Generator().manual_seed(seed)
    obs = {
        "agent_pos": torch.rand(size, n_obs, 2, generator=g) * 512,
        "block_pose": torch.rand(size, n_obs, 3, generator=g) * torch.tensor([200.0, 512.0, 6.0])
        + torch.tensor([100.0, 0.0, -3.0]),
    }
    low, high = torch.tensor([10.0, 20.0]), torch.tensor([500.0, 400.0])
    return obs, low + (high - low) * torch.rand(size, HORIZON, 2, generator=g)
