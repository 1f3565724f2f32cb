"""Small robomimic files, written as robomimic's documentation describes them; the value tells demo and row."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

ENV_ARGS = {
    "env_name": "Lift", "type": 1, "env_version": "1.4.1",
    "env_kwargs": {
        "robots": ["Panda"], "control_freq": 20, "controller_configs": {"type": "OSC_POSE", "control_delta": True},
    },
}  # fmt: skip
LENGTHS = (4, 6, 3)


def demo_arrays(demo: int, n: int) -> dict[str, np.ndarray]:
    """Return the arrays of one demonstration."""
    rows = 100 * demo + np.arange(n + 1, dtype=np.float64)
    pictures = np.random.default_rng(demo).integers(0, 256, (n + 1, 8, 10, 3), dtype=np.uint8)
    eef = rows[:, None] + np.arange(3) / 8
    reward = np.zeros(n)
    reward[-1] = 1.0
    return {
        "obs/robot0_eef_pos": eef[:n], "next_obs/robot0_eef_pos": eef[1:],
        "obs/agentview_image": pictures[:n], "next_obs/agentview_image": pictures[1:],
        "actions": np.stack([rows[:n] / 1000, -rows[:n] / 1000], axis=1), "rewards": reward,
        "dones": (np.arange(n) == n - 1).astype(np.int64), "states": rows[:n, None] + np.zeros(5),
    }  # fmt: skip


def write_robomimic(
    path: Path,
    *,
    lengths: Sequence[int] = LENGTHS,
    env_args: Any = ENV_ARGS,
    change: Callable[[int, dict[str, np.ndarray]], None] = lambda demo, arrays: None,
    mask: dict[str, list[str]] | None = None,
) -> Path:
    """Write a file; `change` may alter the arrays of a demonstration before they are written."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(lengths)
        if env_args is not None:
            data.attrs["env_args"] = env_args if isinstance(env_args, str) else json.dumps(env_args)
        for i, n in enumerate(lengths):
            arrays = demo_arrays(i, n)
            change(i, arrays)
            group = data.create_group(f"demo_{i}")
            group.attrs["num_samples"] = n
            for name, values in arrays.items():
                group.create_dataset(name, data=values)
        for key, names in (mask or {}).items():
            file.create_dataset(f"mask/{key}", data=np.array(names, dtype="S"))
    return path
