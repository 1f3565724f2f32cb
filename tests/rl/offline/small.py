"""A one-step choice with a known best action, and small real parts for it: chain, data, critics, dynamics."""

from __future__ import annotations

import functools

import numpy as np
import torch

from policies.chain import DenoisingChain
from policies.encoders import StateEncoder
from policies.flow import FlowModel
from policies.mlp import ResidualMLP
from robot_rl.chain_step import ChainNoise
from robot_rl.data.normalizer import FieldStats
from robot_rl.rl.offline.data import OfflineData
from robot_rl.rl.offline.dynamics_fit import DynamicsSettings
from robot_rl.rl.offline.iql import IqlSettings
from robot_rl.rl.offline.policy import OfflinePolicy
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec

BEST = 0.5
SPEC = RobotSpec(
    name="choice",
    obs={"x": ArraySpec(name="x", shape=(1,))},
    action=ActionSpec(name="action", shape=(1,), kind="position"),
    control_hz=10.0,
)
UNIT = FieldStats(-np.ones(1), np.ones(1), np.zeros(1), np.ones(1), -np.ones(1), np.ones(1), 100)
STATS = {"x": UNIT, "action": UNIT}
IQL = IqlSettings(steps=400, batch_size=128, lr=3e-3, expectile=0.7, hidden=(32, 32), checkpoint_every=200)
DYNAMICS = DynamicsSettings(
    n_members=3, n_elites=2, hidden=(32, 32), epochs=25, patience=8, batch_size=128, lr=3e-3, checkpoint_every=5
)


def chain(*, n_steps: int = 3, noise_scale: float = 1.0, std: float = 0.1, horizon: int = 1, seed: int = 0):
    """Return an untrained chain of a flow."""
    torch.manual_seed(seed)
    model = functools.partial(
        FlowModel, encoder=functools.partial(StateEncoder, names=["x"]),
        denoiser=functools.partial(ResidualMLP, width=32, n_blocks=1, time_dim=8, context_dim=16), n_obs=1,
        horizon=horizon, n_steps=n_steps, time_law="uniform", noise_scale=noise_scale, action_norm="mean_std",
    )  # fmt: skip
    return DenoisingChain(SPEC, STATS, model=model, noise=ChainNoise(std_min=std, std_max=max(std, 0.2)))


def choices(n: int = 600, seed: int = 0, per_episode: int = 2) -> OfflineData:
    """Return n choices a ~ N(0, 0.35^2) that end at once and earn -(a - BEST)^2."""
    g = torch.Generator().manual_seed(seed)
    cond, following = torch.randn(n, 1, generator=g), torch.zeros(n, 1)
    action = 0.35 * torch.randn(n, 1, 1, generator=g)
    reward = -(action[:, 0, 0] - BEST).square()
    episode = torch.arange(n) // per_episode
    good = torch.zeros(int(episode.max()) + 1).index_add_(0, episode, reward) / per_episode > -0.35
    return OfflineData(
        cond=cond, action=action, mask=torch.ones(n, 1, dtype=torch.bool), reward=reward, bootstrap=torch.zeros(n),
        next_cond=following, episode=episode, phase=torch.rand(n, generator=g), success=good[episode],
    )  # fmt: skip


def imitate(model: DenoisingChain, data: OfflineData, steps: int = 250) -> OfflinePolicy:
    """Return a policy that has learned the data's actions."""
    optimiser = torch.optim.Adam(model.denoiser.parameters(), lr=5e-3)
    g = torch.Generator().manual_seed(1)
    for _ in range(steps):
        batch = data.rows(torch.randint(len(data), (128,), generator=g))
        noise, u = torch.randn(batch.action.shape, generator=g), torch.rand(128, generator=g)
        loss = model.loss({"x": batch.cond[:, None]}, batch.action, noise, u, batch.mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return OfflinePolicy(model, n_execute=1)


def true_returns(policy: OfflinePolicy, data: OfflineData, seed: int = 5) -> torch.Tensor:
    """Return what a policy really earns at every state."""
    action = policy.act(data.cond, torch.Generator().manual_seed(seed))
    return -(action[:, 0, 0] - BEST).square()
