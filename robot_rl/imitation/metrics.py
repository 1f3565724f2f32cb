"""Held-out metrics: the same windows, noise and times at every call, so that curves show the model and nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from robot_rl.data.dataset import ACTION
from robot_rl.data.normalizer import StatsAccumulator, affine_for
from robot_rl.data.windows import WindowBatch, WindowDataset
from robot_rl.errors import ConfigError
from robot_rl.interfaces import ChunkModel, ShapedNoise

BatchTensors = tuple[dict[str, Tensor], Tensor, Tensor]


def to_tensors(batch: WindowBatch, device: torch.device) -> BatchTensors:
    """Return `(obs, action, mask)` of a batch as tensors on `device`, without a copy where that is the CPU."""
    obs = {name: torch.from_numpy(value).to(device, non_blocking=True) for name, value in batch.obs.items()}
    action = torch.from_numpy(batch.action).to(device, non_blocking=True)
    return obs, action, torch.from_numpy(batch.mask).to(device, non_blocking=True)


class HeldOut:
    """Loss and action error of a model on windows it was not trained on.

    Args:
        data: Windows of held-out episodes.
        unit: [A] physical size of one normalised unit of each action element, from `action_unit`.
        n_windows: How many windows to use at most, spread evenly over `data`.
        batch_size: Windows at a time.
        seed: Fixes noise and times.

    Raises:
        ConfigError: `data` is empty.
    """

    def __init__(self, data: WindowDataset, unit: np.ndarray, *, n_windows: int, batch_size: int, seed: int) -> None:
        if len(data) == 0:
            raise ConfigError("`val` has no window; hold out at least one episode, or pass val=None")
        self._data = data
        self._unit = np.asarray(unit, dtype=np.float64)
        n = min(n_windows, len(data))
        index = np.linspace(0, len(data) - 1, n).round().astype(np.int64)
        self._index = [index[i : i + batch_size] for i in range(0, n, batch_size)]
        self._generator = torch.Generator().manual_seed(seed)
        # Stratified over [0, 1): each of n equal parts has one time, in an order that has nothing to do with the data.
        u = (torch.randperm(n, generator=self._generator) + torch.rand(n, generator=self._generator)) / n
        self._u = [u[i : i + batch_size] for i in range(0, n, batch_size)]
        self._start = self._generator.get_state()

    @torch.no_grad()
    def evaluate(self, model: ChunkModel, *, device: torch.device) -> dict[str, float]:
        """Return the metrics of `model`, which must be in eval mode.

        `val/loss` is the training loss, `val/action_error/<i>` the mean |sampled - recorded| of action element i in
        physical units, `val/action_error_normalised/<i>` the same in half training ranges and
        `val/action_error_normalised` its mean over elements. Steps outside the episode do not count.
        """
        self._generator.set_state(self._start)
        loss, error, count = 0.0, np.zeros(model.action_dim), 0
        for index, u in zip(self._index, self._u, strict=True):
            obs, action, mask = to_tensors(self._data.gather(index), device)
            noise = torch.randn(action.shape, generator=self._generator).to(device)
            n = int(mask.sum())
            loss += n * float(model.loss(obs, action, noise, u.to(device), mask))
            difference = (model.sample(obs, self._sampling_noise(model, noise)) - action).abs().double()  # [B, H, A]
            error += (difference * mask[..., None]).sum(dim=(0, 1)).cpu().numpy()
            count += n
        physical, normalised = error / count, error / count / self._unit
        return {
            "val/loss": loss / count,
            "val/action_error_normalised": float(normalised.mean()),
            **{f"val/action_error/{i}": float(value) for i, value in enumerate(physical)},
            **{f"val/action_error_normalised/{i}": float(value) for i, value in enumerate(normalised)},
        }

    def _sampling_noise(self, model: ChunkModel, noise: Tensor) -> Tensor:
        """Return `noise` [B, H, A] as `model` wants it, with more of it where its sampler adds noise on its way."""
        rows = model.noise_shape[0] - noise.shape[1] if isinstance(model, ShapedNoise) else 0
        more = torch.randn(len(noise), rows, noise.shape[2], generator=self._generator).to(noise.device)
        return torch.cat([noise, more], dim=1)


def action_unit(train: WindowDataset) -> np.ndarray:
    """Return [A] half the range of each action element over the training steps; 1 where an element never moves."""
    accumulator = StatsAccumulator()
    for rows in train.table.episode_rows(ACTION):
        accumulator.update(rows)
    return 1.0 / affine_for(accumulator.finish(), "min_max").scale


def actions_digest(data: WindowDataset) -> str:
    """Return the sha256 of all valid actions in order, which tells one data set from another."""
    digest = hashlib.sha256()
    for rows in data.table.episode_rows(ACTION):
        digest.update(np.ascontiguousarray(rows).tobytes())
    return digest.hexdigest()
