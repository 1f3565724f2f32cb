"""Small stores to export: one born on the grid with every kind of stream, one with streams at their own rates."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robot_rl.data.store import EpisodeStore
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream
from tests.data import store_data

HZ = 20.0
SPEC = RobotSpec(
    name="arm",
    obs={
        "q": ArraySpec(name="q", shape=(7,), unit="rad", low=-3.0, high=3.0),
        "grip": ArraySpec(name="grip", shape=(1,), unit="m"),
        "cam": ArraySpec(name="cam", shape=(64, 96, 3), dtype="uint8"),
        "small": ArraySpec(name="small", shape=(9, 12, 1), dtype="uint8"),
        "cloud": ArraySpec(name="cloud", shape=(5, 3), dtype="float64"),
        "count": ArraySpec(name="count", shape=(), dtype="int16"),
    },
    action=ActionSpec(name="action", shape=(2,), unit="rad"),
    control_hz=HZ,
)
EXTRA = {"chain": ArraySpec(name="chain", shape=(2, 3)), "index": ArraySpec(name="index", shape=(), dtype="int64")}


def arrays(n: int, seed: int) -> dict[str, np.ndarray]:
    """Return random rows of every stream."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, 96, dtype=np.float64)
    cam = np.stack([np.stack([np.tile(ramp, (64, 1)), np.full((64, 96), 20.0 * i), np.full((64, 96), 99.0)], -1)
                    for i in range(n)])  # fmt: skip
    return {
        "q": rng.random((n, 7), dtype=np.float32), "grip": rng.random((n, 1), dtype=np.float32),
        "cam": cam.astype(np.uint8), "small": rng.integers(0, 256, (n, 9, 12, 1), dtype=np.uint8),
        "cloud": rng.random((n, 5, 3)), "count": rng.integers(-99, 99, n).astype(np.int16),
        "action": rng.random((n, 2), dtype=np.float32), "action_executed": rng.random((n, 2), dtype=np.float32),
        "reward": rng.random(n, dtype=np.float32), "by_human": rng.random(n) < 0.5,
        "chain": rng.random((n, 2, 3), dtype=np.float32), "index": rng.integers(0, 9, n),
    }  # fmt: skip


def grid_store(
    url: str | Path, *, episodes: int = 3, leave_out: dict[int, tuple[str, ...]] | None = None
) -> EpisodeStore:
    """Return a store whose episode i has 5 + i steps; `leave_out` names streams that an episode shall lack."""
    store = EpisodeStore.create(url, SPEC, extra=EXTRA, codecs={"cam": "png", "small": "png"})
    for i in range(episodes):
        stamps = np.round(np.arange(5 + i) * 1e9 / HZ).astype(np.int64)
        data = {k: v for k, v in arrays(5 + i, i).items() if k not in (leave_out or {}).get(i, ())}
        meta = RecordingMeta(
            task=f"task {i % 2}", outcome="success" if i else "failure", source="human", on_grid=True,
            terminated=i != 1, seed=i, extra={"note": i},
        )  # fmt: skip
        store.append(Recording({name: Stream(stamps, rows) for name, rows in data.items()}, meta), id=f"ep-{i}")
    return store


def multi_rate_store(url: str | Path) -> EpisodeStore:
    """Return a store of two recordings whose streams have rates of their own."""
    store = EpisodeStore.create(url, store_data.SPEC, codecs={"camera": "png"})
    for i, seconds in enumerate((1.0, 0.6)):
        store.append(store_data.recording(seconds), id=f"rec-{i}")
    return store
