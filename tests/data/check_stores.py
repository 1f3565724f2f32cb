"""Sound recordings of a small arm, into which the tests of the checks plant one fault each.

`q` follows the action two ticks later, the gripper (element 3) only switches, `force` is a noisy sensor that no action
drives, `object` lies still until the middle of the episode, and the camera sees a texture that moves with the arm.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robot_rl.data.checks import CheckSettings, Finding, StoreVerdict, Thresholds, check_store
from robot_rl.data.store import EpisodeStore
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream

HZ = 20.0
STEP = 50_000_000
LAG = 2
PICTURE = (24, 32, 3)
SPEC = RobotSpec(
    name="arm",
    obs={
        "q": ArraySpec(name="q", shape=(4,), unit="rad"),
        "force": ArraySpec(name="force", shape=(2,), unit="N"),
        "object": ArraySpec(name="object", shape=(2,), unit="m"),
        "camera": ArraySpec(name="camera", shape=PICTURE, dtype="uint8"),
    },
    action=ActionSpec(name="action", shape=(4,), unit="rad", low=-3.0, high=3.0),
    control_hz=HZ,
)
EXTRA = {"note": ArraySpec(name="note", shape=(1,))}

Arrays = dict[str, np.ndarray]
Fault = Callable[[Arrays], None]
_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def path_of(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Return a smooth random motion of three joints and a switching gripper: seconds [N] -> [N, 4]."""
    speed, phase = rng.uniform(1.0, 4.0, (3, 4)), rng.uniform(0, 2 * np.pi, (3, 4))
    size = rng.uniform(0.2, 0.4, (3, 4))
    close, open_ = rng.uniform(1.5, 2.5), rng.uniform(4.0, 5.0)

    def at(t: np.ndarray) -> np.ndarray:
        joints = (size * np.sin(speed * t[:, None, None] + phase)).sum(axis=2)
        grip = ((t > close) & (t < open_)).astype(float)
        return np.concatenate([joints, grip[:, None]], axis=1)

    return at


def arrays(seed: int, steps: int = 120) -> Arrays:
    """Return one sound episode on the control clock, N + 1 observations; `lag` of `q` is two ticks."""
    rng = np.random.default_rng(seed)
    motion, t = path_of(rng), np.arange(steps + 1) / HZ
    q = motion(t - LAG / HZ) + np.array([1e-4, 1e-4, 1e-4, 0.0]) * rng.normal(size=(steps + 1, 4))
    start, lifted = rng.uniform(-0.2, 0.2, 2), np.maximum(0, t - t[-1] / 2)[:, None] * rng.uniform(0.05, 0.1, 2)
    texture = cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), (32, 24), interpolation=cv2.INTER_NEAREST)
    shift = np.round(8 * q[:, 0]).astype(int)
    camera = np.stack([np.roll(texture, s, axis=1) for s in shift])
    noise = rng.integers(-6, 7, camera.shape)
    return {
        "q": q.astype(np.float32),
        "force": (0.1 * rng.normal(size=(steps + 1, 2)) + 3 * q[:, :2]).astype(np.float32),
        "object": (start + lifted).astype(np.float32),
        "camera": np.clip(camera.astype(int) + noise, 0, 255).astype(np.uint8),
        "action": motion(t[:-1]).astype(np.float32),
    }


def on_grid(data: Mapping[str, np.ndarray], **meta: Any) -> Recording:
    """Return a recording born on the control clock."""
    ticks = 1_000_000_000 + STEP * np.arange(len(data["q"]), dtype=np.int64)
    streams = {name: Stream(ticks[: len(rows)], rows) for name, rows in data.items()}
    return Recording(streams, RecordingMeta(**{"task": "reach", "outcome": "success", "on_grid": True, **meta}))


def off_grid(seed: int, seconds: float = 6.0, **meta: Any) -> Recording:
    """Return a recording whose streams run at 100, 50, 10, 30 and 20 Hz, with half a millisecond of jitter."""
    rng = np.random.default_rng(seed)
    motion, texture = path_of(rng), rng.integers(0, 256, PICTURE, dtype=np.uint8)

    def clock(hz: float, begin_s: float) -> np.ndarray:
        t = begin_s + np.arange(int(seconds * hz)) / hz + rng.uniform(-5e-4, 5e-4, int(seconds * hz))
        return t

    t = {"q": clock(100, 0.0), "force": clock(50, 0.004), "object": clock(10, 0.01), "camera": clock(30, 0.008),
         "action": clock(HZ, 0.02)}  # fmt: skip
    q = motion(t["q"] - LAG / HZ)
    camera = np.stack([np.roll(texture, round(20 * x), axis=1) for x in motion(t["camera"])[:, 0]])
    camera = np.clip(camera + rng.integers(-6, 7, camera.shape), 0, 255).astype(np.uint8)
    data = {
        "q": q + 1e-4 * rng.normal(size=q.shape), "force": rng.normal(size=(len(t["force"]), 2)),
        "object": np.linspace(0, 0.1, len(t["object"]))[:, None] * rng.uniform(0.5, 1, 2),
        "action": motion(t["action"]),
    }  # fmt: skip
    rows = {**{n: x.astype(np.float32) for n, x in data.items()}, "camera": camera}
    stamps = {n: (1e9 * (5 + x)).astype(np.int64) for n, x in t.items()}
    streams = {name: Stream(stamps[name], rows[name]) for name in t}
    return Recording(streams, RecordingMeta(**{"task": "reach", "outcome": "success", **meta}))


def fill(url: Path, recordings: Mapping[str, Recording] | list[Recording]) -> EpisodeStore:
    """Return a new store of these recordings; a list is numbered e0, e1 ..."""
    store = EpisodeStore.create(url, SPEC, extra=EXTRA, codecs={"camera": "png"})
    named = recordings if isinstance(recordings, Mapping) else {f"e{i}": r for i, r in enumerate(recordings)}
    for id, recording in named.items():
        store.append(recording, id=id)
    return store


@cache
def sound(*, grid: bool) -> Path:
    """Return a folder with a store of five sound episodes: e0, e1, e2, e4, e5."""
    folder = tempfile.TemporaryDirectory()
    _FOLDERS.append(folder)
    make = (lambda i: on_grid(arrays(i))) if grid else off_grid
    fill(Path(folder.name) / "store", {f"e{i}": make(i) for i in (0, 1, 2, 4, 5)})
    return Path(folder.name) / "store"


def among_sound(url: Path, faulty: Recording, *, grid: bool) -> EpisodeStore:
    """Return a store of five sound episodes and this one, e3."""
    shutil.copytree(sound(grid=grid), url, dirs_exist_ok=True)
    store = EpisodeStore.open(url)
    store.append(faulty, id="e3")
    return store


def planted(url: Path, fault: Fault | None = None, **meta: Any) -> EpisodeStore:
    """Return a store of six episodes on the grid, of which e3 has a fault."""
    data = arrays(3)
    if fault is not None:
        fault(data)
    return among_sound(url, on_grid(data, **meta), grid=True)


def verdict_on(store: EpisodeStore, **thresholds: Any) -> StoreVerdict:
    return check_store(store, CheckSettings(thresholds=Thresholds(**thresholds), val_fraction=0.2))


def raised(verdict: StoreVerdict) -> list[Finding]:
    """Return what is worse than ok."""
    return [finding for finding in verdict.everything if finding.severity != "ok"]


def only(verdict: StoreVerdict, check: str, *, episode: str = "e3") -> Finding:
    """Return the one finding that is worse than ok, which must be this check's in this episode."""
    found = raised(verdict)
    assert [(f.check, f.episode) for f in found] == [(check, episode)], [
        (f.check, f.episode, f.where, f.what) for f in found
    ]
    return found[0]
