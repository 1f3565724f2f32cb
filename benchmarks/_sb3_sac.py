"""Times Stable-Baselines3's SAC updates; run by critic_speed with an interpreter that has it. Needs nothing of ours.

Reads a number of updates a line from standard input and answers with the seconds they took.
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any


def main() -> None:
    """Answer until the input ends; arguments are observation width, action width, batch, replay rows, hidden width."""
    import gymnasium
    import numpy as np
    import torch

    sb3: Any = importlib.import_module("stable_baselines3")
    logger: Any = importlib.import_module("stable_baselines3.common.logger")

    n_obs, n_action, batch, rows, width = map(int, sys.argv[1:])
    torch.set_num_threads(1)

    class Still(gymnasium.Env):  # only its spaces are used
        observation_space = gymnasium.spaces.Box(-1, 1, (n_obs,), np.float32)
        action_space = gymnasium.spaces.Box(-1, 1, (n_action,), np.float32)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
            return np.zeros(n_obs, np.float32), {}

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
            return np.zeros(n_obs, np.float32), 0.0, False, False, {}

    networks = {"net_arch": [width, width]}
    model: Any = sb3.SAC(
        "MlpPolicy", Still(), policy_kwargs=networks, batch_size=batch, buffer_size=rows, seed=0, device="cpu"
    )
    rng = np.random.default_rng(0)
    for _ in range(rows):
        obs = rng.standard_normal((2, 1, n_obs), dtype=np.float32)
        action = rng.uniform(-1, 1, (1, n_action)).astype(np.float32)
        model.replay_buffer.add(obs[0], obs[1], action, rng.random(1), np.zeros(1), [{}])
    model.set_logger(logger.Logger(folder=None, output_formats=[]))
    model.train(gradient_steps=20, batch_size=batch)
    sys.stdout.write(f"{sb3.__version__}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        began = time.perf_counter()
        model.train(gradient_steps=int(line), batch_size=batch)
        sys.stdout.write(f"{time.perf_counter() - began}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
