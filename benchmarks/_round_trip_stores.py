"""The stores that round trips start from: one of each kind of data the project meets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from robot_rl.data.foreign import import_dataset
from robot_rl.data.formats import open_dataset
from robot_rl.data.replay_buffer_io import import_replay_buffer
from robot_rl.data.replay_layout import pusht_layout
from robot_rl.data.store import EpisodeStore
from robot_rl.evaluation.rollouts import run_episode
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Outcome, Recording, RecordingMeta, Stream
from tests.data import store_data

SPEC = RobotSpec(
    name="arm",
    obs={
        "q": ArraySpec(name="q", shape=(7,), unit="rad"),
        "force": ArraySpec(name="force", shape=(), dtype="float64", unit="N"),
        "camera": ArraySpec(name="camera", shape=(24, 32, 3), dtype="uint8"),
        "depth": ArraySpec(name="depth", shape=(12, 16, 1), dtype="uint8"),
    },
    action=ActionSpec(name="action", shape=(2,), unit="rad", low=-1.0, high=1.0),
    control_hz=15.0,
)
EXTRA = {
    "base": ArraySpec(name="base", shape=(2,), dtype="float64"),
    "phase": ArraySpec(name="phase", shape=(), dtype="int64"),
}


def state_store(path: Path) -> EpisodeStore:
    """Return a store without pictures: two attempts at lifting in simulation by the scripted expert."""
    from sim.env import ArmEnv
    from sim.expert import LiftExpert

    env, expert = ArmEnv(), LiftExpert()
    store = EpisodeStore.create(path, env.spec)
    try:
        for seed in (0, 1):
            recording, _ = run_episode(env, expert, seed, meta=RecordingMeta(task="lift the cube", source="scripted"))
            if recording is not None:
                store.append(recording, id=f"lift-{seed}")
    finally:
        env.close()
    return store


def picture_store(path: Path) -> EpisodeStore:
    """Return a store of two cameras, one JPEG and one PNG, optional streams, a human who takes over, and labels."""
    store = EpisodeStore.create(path, SPEC, extra=EXTRA, codecs={"depth": "png"})
    attempts: list[tuple[int, Outcome]] = [(7, "success"), (5, "failure"), (1, "unknown")]
    for i, (n, outcome) in enumerate(attempts):
        store.append(_drawn(i, n, outcome), id=f"drawn-{i}")
    return store


def _drawn(number: int, n: int, outcome: Outcome) -> Recording:
    rng = np.random.default_rng(number)
    stamps = 1_700_000_000_000_000_000 + np.array([round(i * 1e9 / 15) for i in range(n + 1)], np.int64)
    row = 100.0 * number + np.arange(n + 1)
    ticks = n if outcome == "failure" else n + 1  # that one ends without an observation after the last action
    streams = {
        "q": Stream(stamps[:ticks], (row[:ticks, None] + np.arange(7) / 8).astype(np.float32)),
        "force": Stream(stamps[:ticks], row[:ticks] + 0.1),
        "camera": Stream(stamps[:ticks], np.stack([store_data.picture(int(r)) for r in row[:ticks]])),
        "depth": Stream(stamps[:ticks], rng.integers(0, 256, (ticks, 12, 16, 1), dtype=np.uint8)),
        "action": Stream(stamps[:n], rng.uniform(-1, 1, (n, 2)).astype(np.float32)),
        "action_executed": Stream(stamps[:n], rng.uniform(-1, 1, (n, 2)).astype(np.float32)),
        "reward": Stream(stamps[:n], rng.uniform(0, 1, n).astype(np.float32)),
        "by_human": Stream(stamps[:n], np.arange(n) % 3 == 1),
        "base": Stream(stamps[:n], rng.normal(size=(n, 2))),
        "phase": Stream(stamps[:n], np.arange(n, dtype=np.int64) - 2**40),
    }
    meta = RecordingMeta(
        task=f"put {number} away", outcome=outcome, source="human", on_grid=True, terminated=outcome == "success",
        truncated=outcome != "success", seed=number, policy_version="v1", calibration_id="c1",
        extra={"note": [1, "two"]},
    )  # fmt: skip
    return Recording(streams, meta)


def off_grid_store(path: Path) -> EpisodeStore:
    """Return a store of recordings with joints at 500 Hz, a camera at 30 Hz and commands at 20 Hz."""
    store = EpisodeStore.create(path, store_data.SPEC)
    for i, seconds in enumerate((0.6, 0.4)):
        recording = store_data.recording(seconds)
        store.append(replace(recording, meta=replace(recording.meta, seed=i)), id=f"reach-{i}")
    return store


def pusht_store(path: Path, data: Path) -> EpisodeStore:
    """Return PushT's first human demonstrations, with pictures."""
    return import_replay_buffer(data / "pusht_cchi_v7" / "pusht_cchi_v7_replay.zarr", path, pusht_layout(), limit=2)


def robosuite_store(path: Path, data: Path) -> EpisodeStore:
    """Return robosuite's published demonstration of stacking."""
    import_dataset(open_dataset(data / "robosuite_demos" / "v1.0.0" / "stack" / "panda"), path)
    return EpisodeStore.open(path)


MADE: dict[str, Callable[[Path], EpisodeStore]] = {
    "pictures, extras, labels": picture_store,
    "off grid, three rates": off_grid_store,
}
SIMULATED: dict[str, Callable[[Path], EpisodeStore]] = {"lift, state": state_store}
PUBLISHED: dict[str, Callable[[Path, Path], EpisodeStore]] = {"PushT": pusht_store, "robosuite stack": robosuite_store}
