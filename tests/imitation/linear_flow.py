"""A real but tiny ChunkModel: flow matching whose velocity is linear in (noised action, observation, time)."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from robot_rl.data.windows import WindowDataset, WindowSpec
from robot_rl.values import Episode, RecordingMeta

WINDOW = WindowSpec(n_obs=2, horizon=4)


class LinearFlow(nn.Module):
    """x_t = (1 - t) action + t noise; v = noise - action is regressed on (x_t, obs, t) by one linear map or an MLP."""

    def __init__(self, *, n_obs=2, horizon=4, action_dim=2, obs_dim=2, hidden=0, dropout=0.0, seed=0):
        super().__init__()
        self.n_obs, self.horizon, self.action_dim, self.action_offset = n_obs, horizon, action_dim, 0
        width, n_in = horizon * action_dim, horizon * action_dim + n_obs * obs_dim + 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = [nn.Linear(n_in, width)]
            if hidden:
                layers = [nn.Linear(n_in, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, width)]
            self.net = nn.Sequential(nn.Dropout(dropout), *layers)
        self.register_buffer("scale", torch.tensor([10.0, 0.5])[:action_dim])

    def velocity(self, x: Tensor, obs: Mapping[str, Tensor], t: Tensor) -> Tensor:
        return self.net(torch.cat([x.flatten(1), obs["pos"].flatten(1), t[:, None]], dim=1)).reshape(x.shape)

    def sample(self, obs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        x, n = noise, 10
        for i in range(n):
            x = x - self.velocity(x, obs, torch.full((len(x),), 1 - i / n)) / n
        return x * self.scale

    def loss(self, obs: Mapping[str, Tensor], target: Tensor, noise: Tensor, u: Tensor, mask: Tensor) -> Tensor:
        action, t = target / self.scale, u[:, None, None]
        error = self.velocity((1 - t) * action + t * noise, obs, u) - (noise - action)
        return (error.square() * mask[..., None]).sum() / (mask.sum() * self.action_dim)


def make_windows(lengths: list[int], *, seed: int = 0, constant: float | None = None) -> WindowDataset:
    """Windows of random walks `pos` [N, 2] whose action is (10, 0.5) * (pos reversed), or `constant`."""
    rng = np.random.default_rng(seed)
    episodes = []
    for e, n in enumerate(lengths):
        pos = np.tanh(0.3 * rng.standard_normal((n, 2)).cumsum(axis=0)).astype(np.float32)
        action = pos[:, ::-1] * np.array([10.0, 0.5], np.float32)
        if constant is not None:
            action = np.full_like(action, constant)
        episodes.append(
            Episode(
                id=str(e), stamp_ns=np.arange(n, dtype=np.int64) * 10**8, obs={"pos": pos}, final_obs=None,
                action=action, action_executed=action, reward=np.zeros(n, np.float32), by_human=np.zeros(n, bool),
                valid=np.ones(n, bool), terminated=True, truncated=False, meta=RecordingMeta(),
            )
        )  # fmt: skip
    return WindowDataset(episodes, WINDOW, threads=1)
