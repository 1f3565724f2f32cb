"""A real recorder process for store_kill: joints 500 Hz, camera 30 Hz, control 20 Hz, as fast as the machine goes.

Every value is its index, so that a reader can tell a right sample from a wrong one. Run:
`python -m benchmarks._store_writer <store> <steps per episode> [period of a control step in seconds]`. It writes one
line `<id>` to standard output after each commit, and never ends by itself.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from robot_rl.data.store import EpisodeStore
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import RecordingMeta

MS = 1_000_000
SPEC = RobotSpec(
    name="kill",
    obs={
        "q": ArraySpec(name="q", shape=(7,), unit="rad"),
        "camera": ArraySpec(name="camera", shape=(48, 64, 3), dtype="uint8"),
    },
    action=ActionSpec(name="action", shape=(7,), unit="rad"),
    control_hz=20.0,
)


def picture(i: int) -> np.ndarray:
    """Return a picture that tells its index: gray i modulo 250."""
    return np.full((48, 64, 3), i % 250, np.uint8)


def record(store: EpisodeStore, steps: int, period_s: float) -> str:
    """Record one episode of `steps` control steps and return its id."""
    writer = store.writer(RecordingMeta(task="kill", source="scripted"))
    joint = frame = 0
    for step in range(steps):
        until = (step + 1) * 50 * MS
        while joint * 2 * MS < until:
            writer.append("q", joint * 2 * MS, np.full(7, joint, np.float32))
            joint += 1
        while frame * 1000 * MS // 30 < until:
            writer.append("camera", frame * 1000 * MS // 30, picture(frame))
            frame += 1
        writer.append("action", step * 50 * MS + MS, np.full(7, step, np.float32))
        time.sleep(period_s)
    return writer.commit()


def main() -> None:
    """Record until killed."""
    store = EpisodeStore.open(sys.argv[1])
    period_s = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    while True:
        sys.stdout.write(record(store, int(sys.argv[2]), period_s) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
