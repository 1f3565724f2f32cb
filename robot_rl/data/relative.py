"""Statistics of actions relative to the pose they start from, for models that predict differences (chunk-relative)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from robot_rl.data.normalizer import FieldStats, StatsAccumulator
from robot_rl.data.windows import WindowDataset
from robot_rl.errors import ConfigError

BATCH = 4096


def fit_relative_stats(dataset: WindowDataset, names: Sequence[str], *, seed: int = 0) -> FieldStats:
    """Return statistics of action[h] - reference, arrays [H, A]: one scale a step, as later steps are farther off.

    The reference is the newest value of the named observations, joined: the action that would hold the present pose.
    Steps beyond an episode's end do not count.

    Args:
        dataset: Training windows.
        names: Observations that make up the reference, in the action's order.
        seed: Of the sample that quantiles are taken from.

    Raises:
        ConfigError: The named observations do not join to the action's width, or a step of the chunk never occurs.
    """
    steps = [StatsAccumulator(seed=seed) for _ in range(dataset.window.horizon)]
    for batch in dataset.batches(BATCH):
        reference = np.concatenate([batch.obs[name][:, -1].reshape(len(batch), -1) for name in names], axis=1)
        if reference.shape[1] != batch.action.shape[2]:
            raise ConfigError(
                f"{list(names)} join to {reference.shape[1]} elements, the action has {batch.action.shape[2]}; "
                "name the observations that make up the action holding the present pose"
            )
        relative = batch.action - reference[:, None]
        for h, step in enumerate(steps):
            step.update(relative[batch.mask[:, h], h])
    done = [step.finish() for step in steps]
    arrays = {f.name: np.stack([getattr(s, f.name) for s in done]) for f in fields(FieldStats) if f.name != "count"}
    return FieldStats(**arrays, count=min(s.count for s in done))
