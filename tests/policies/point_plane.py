"""A point in the plane and demonstrations that take it from near the centre to one of four corners."""

import numpy as np

from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Episode, RecordingMeta, Tick

CORNERS = [np.array([x, y], np.float32) for x in (-1.0, 1.0) for y in (-1.0, 1.0)]
STEP = 0.25
NEAR = 0.25


class PointInPlane:
    """A point that moves by the action, at most `STEP` a side; succeeds when it comes near the corner."""

    SPEC = RobotSpec(
        name="point",
        obs={"position": ArraySpec(name="position", shape=(2,))},
        action=ActionSpec(name="action", shape=(2,), low=-STEP, high=STEP),
        control_hz=10,
    )

    def __init__(self, corner):
        self._corner = corner
        self.spec = self.SPEC

    def reset(self, seed):
        self._n = 0
        self._x = np.random.default_rng(seed).uniform(-0.1, 0.1, 2).astype(np.float32)
        return self._tick(None)

    def step(self, action):
        self._n += 1
        self._x = self._x + np.clip(action, -STEP, STEP)
        return self._tick(action)

    def _tick(self, action):
        near = bool(np.linalg.norm(self._x - self._corner) < NEAR)
        late = not near and self._n >= 12
        return Tick(
            stamp_ns=self._n * 10**8, obs={"position": self._x.astype(np.float32)}, action=action, success=near,
            action_executed=action, reward=float(near), terminated=near, truncated=late,
        )  # fmt: skip

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)

    def close(self):
        pass


def demonstrations(n, seed):
    """Return episodes of five steps, each to a corner at random."""
    rng = np.random.default_rng(seed)
    episodes = []
    for e in range(n):
        x, corner = rng.uniform(-0.1, 0.1, 2), CORNERS[int(rng.integers(4))]
        position, action = [], []
        for _ in range(5):
            position.append(x)
            action.append(np.clip(corner - x, -STEP, STEP) * rng.uniform(0.9, 1.0))
            x = x + action[-1]
        rows = [np.asarray(column, np.float32) for column in (position, action)]
        episodes.append(
            Episode(
                id=f"demo{e}", stamp_ns=np.arange(5, dtype=np.int64) * 10**8, obs={"position": rows[0]},
                final_obs={"position": x.astype(np.float32)}, action=rows[1], action_executed=rows[1],
                reward=np.zeros(5, np.float32), by_human=np.zeros(5, bool), valid=np.ones(5, bool), terminated=True,
                truncated=False, meta=RecordingMeta(),
            )
        )  # fmt: skip
    return episodes
