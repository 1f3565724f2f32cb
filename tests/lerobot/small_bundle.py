"""A small regression policy with random weights."""

from functools import partial

import numpy as np
import torch

from policies.encoders import StateEncoder
from policies.mlp import ResidualMLP
from policies.regression import RegressionModel
from robot_rl.data.normalizer import FieldStats
from robot_rl.specs import RobotSpec


def _stats(size: int) -> FieldStats:
    low, high = np.full(size, 50.0), np.full(size, 450.0)
    return FieldStats(low, high, (low + high) / 2, (high - low) / 4, low, high, 100)


def regression(spec: RobotSpec) -> tuple[RegressionModel, dict[str, FieldStats]]:
    """Return a model for `spec` that reads two steps and predicts eight."""
    torch.manual_seed(0)
    stats = {name: _stats(array.size) for name, array in {**spec.obs, "action": spec.action}.items()}
    model = RegressionModel(
        spec, stats, encoder=StateEncoder, denoiser=partial(ResidualMLP, width=32, n_blocks=1), n_obs=2, horizon=8
    )
    return model.eval(), stats
