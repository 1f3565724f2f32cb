"""A small recording whose every part can be told from its picture, curve or band."""

from collections.abc import Mapping

import numpy as np

from robot_rl.data.store import EpisodeStore
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream

MS = 1_000_000
START = 1_700_000_000_000_000_000
N = 60
LAG = 3
"""Steps by which joints follow their command."""
ORANGE = (250, 120, 10)

SPEC = RobotSpec(
    name="arm",
    obs={
        "q": ArraySpec(name="q", shape=(2,), unit="rad"),
        "force": ArraySpec(name="force", shape=(3,), unit="N"),
        "front": ArraySpec(name="front", shape=(48, 64, 3), dtype="uint8"),
    },
    action=ActionSpec(name="action", shape=(2,), unit="rad"),
    control_hz=20.0,
)
EXTRA = {
    "cloud": ArraySpec(name="cloud", shape=(16, 3), unit="m"),
    "depth": ArraySpec(name="depth", shape=(20, 30), dtype="uint16", unit="mm"),
    "latent": ArraySpec(name="latent", shape=(100,)),
}


def commands(phase: float = 0.0) -> np.ndarray:
    t = np.arange(N) / 20.0
    return np.stack([np.sin(3 * t + phase), np.cos(2 * t + phase)], axis=1).astype(np.float32)


def picture(i: int) -> np.ndarray:
    """Return a grey picture that brightens with time, with an orange patch."""
    image = np.full((48, 64, 3), 40 + i, np.uint8)
    image[10:40, 10:50] = ORANGE
    return image


def recording(*, phase: float = 0.0, start: int = START, meta: Mapping[str, object] | None = None) -> Recording:
    """Joints at 100 Hz that follow the command three steps late; a camera at 20 Hz that lost pictures 20 to 29; a
    person who takes over at step 30."""
    ticks = start + 50 * MS * np.arange(N, dtype=np.int64)
    action, fine = commands(phase), start + 10 * MS * np.arange(5 * N, dtype=np.int64)
    late = np.maximum(np.arange(5 * N) // 5 - LAG, 0)
    kept = np.r_[0:20, 30:N]
    rng = np.random.default_rng(0)
    streams = {
        "q": Stream(fine, action[late]),
        "force": Stream(ticks, rng.standard_normal((N, 3)).astype(np.float32)),
        "front": Stream(ticks[kept] + 5 * MS, np.stack([picture(i) for i in kept])),
        "action": Stream(ticks, action),
        "action_executed": Stream(ticks, action * np.float32(0.9)),
        "reward": Stream(ticks, (np.arange(N) == N - 1).astype(np.float32)),
        "by_human": Stream(ticks, np.arange(N) >= 30),
        "cloud": Stream(ticks[:4], np.arange(4 * 48, dtype=np.float32).reshape(4, 16, 3)),
        "depth": Stream(ticks[:3], np.full((3, 20, 30), 500, np.uint16)),
        "latent": Stream(ticks[:5], np.zeros((5, 100), np.float32)),
    }
    fields: dict[str, object] = {"task": "reach", "source": "policy", "outcome": "success", "terminated": True}
    return Recording(streams, RecordingMeta(**{**fields, **(meta or {})}))  # type: ignore[arg-type]


def store(path: object, episodes: int = 2) -> EpisodeStore:
    """Return a store of small episodes, the second an hour after the first and failed."""
    made = EpisodeStore.create(str(path), SPEC, extra=EXTRA)
    for i in range(episodes):
        outcome = "success" if i % 2 == 0 else "failure"
        made.append(recording(phase=0.4 * i, start=START + i * 3_600_000 * MS, meta={"outcome": outcome}), id=f"ep{i}")
    return made
