"""Identifiable multi-rate recordings: the value of a sample is its index."""

from __future__ import annotations

import numpy as np

from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream

MS = 1_000_000

SPEC = RobotSpec(
    name="arm",
    obs={
        "q": ArraySpec(name="q", shape=(7,), unit="rad"),
        "camera": ArraySpec(name="camera", shape=(24, 32, 3), dtype="uint8"),
    },
    action=ActionSpec(name="action", shape=(2,), unit="rad"),
    control_hz=20.0,
)


def joints(i: int) -> np.ndarray:
    return np.full(7, i, np.float32) + np.arange(7, dtype=np.float32) / 8


def command(i: int) -> np.ndarray:
    return np.array([i, -i], np.float32)


def picture(i: int, shape: tuple[int, int, int] = (24, 32, 3)) -> np.ndarray:
    """Return a smooth picture whose mean red is about i, with channels that differ so that BGR would show."""
    image = np.zeros(shape, np.uint8)
    image[..., 0] = i % 250
    if shape[-1] == 3:
        image[..., 2] = np.linspace(0, 255, shape[1], dtype=np.uint8)
    return image


def recording(seconds: float = 1.0, **meta: object) -> Recording:
    """Joints 500 Hz from 0 ms, camera 30 Hz from 5 ms, commands 20 Hz from 12 ms."""
    q = np.arange(0, round(seconds * 1000) * MS, 2 * MS, dtype=np.int64)
    camera = 5 * MS + (np.arange(int(seconds * 30), dtype=np.int64) * 1_000_000_000) // 30
    action = np.arange(12 * MS, round(seconds * 1000) * MS, 50 * MS, dtype=np.int64)
    return Recording(
        {
            "q": Stream(q, np.stack([joints(i) for i in range(len(q))])),
            "camera": Stream(camera, np.stack([picture(i) for i in range(len(camera))])),
            "action": Stream(action, np.stack([command(i) for i in range(len(action))])),
        },
        RecordingMeta(task="reach", source="human", **meta),  # type: ignore[arg-type]
    )
