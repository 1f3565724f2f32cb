"""A frozen base on a line that proposes spread chunks, for critics that choose."""

import numpy as np

from tests.rl.reach import SPEC


class Spread:
    """A `ChunkSampler` on the line of `reach`: every action of a chunk is the noise's first number, held to [-1, 1]."""

    n_obs, n_execute, spec = 2, 4, SPEC

    def __init__(self, horizon=4):
        self.horizon, self.calls = horizon, []

    @property
    def noise_shape(self):
        return self.horizon, 1

    @property
    def action_range(self):
        return np.full(1, -1.0, np.float32), np.full(1, 1.0, np.float32)

    def chunks(self, obs, noise, promise=None):
        assert obs["x"].shape == (len(noise), self.n_obs, 1)
        self.calls.append((obs["x"].copy(), noise.copy()))
        return np.clip(np.repeat(noise[:, :1], self.horizon, axis=1), -1, 1).astype(np.float32)
