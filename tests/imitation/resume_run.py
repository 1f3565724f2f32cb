"""The run of the kill test, as a module so that a child process trains exactly what the test trains.

`python -m tests.imitation.resume_run RUN_DIR` trains until it is past its first checkpoint, writes `RUN_DIR/ready`
and waits to be killed.
"""

import sys
import time
from pathlib import Path

import torch

from robot_rl.imitation.trainer import Trainer
from tests.imitation.linear_flow import LinearFlow, make_windows


def make_trainer(run_dir: Path, **changes) -> Trainer:
    settings = {
        "steps": 40, "batch_size": 16, "lr": 1e-2, "warmup_steps": 5, "log_every": 1, "eval_every": 10,
        "checkpoint_every": 20, "best_by": "val/loss", "seed": 5, "tensorboard": False,
    } | changes  # fmt: skip
    # Dropout draws from torch's global generator, which therefore must survive the kill as well.
    model = LinearFlow(hidden=16, dropout=0.2, seed=1)
    return Trainer(model, make_windows([30, 25, 20]), make_windows([20], seed=9), run_dir=run_dir, **settings)


class StallingClock:
    """Time that stands still in the seventh step after the first checkpoint of step 20."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.calls = run_dir, 0

    def __call__(self) -> float:
        if (self.run_dir / "checkpoints" / "step-00000020").exists():
            self.calls += 1
        if self.calls > 14:  # two a step
            (self.run_dir / "ready").touch()
            time.sleep(120)
        return time.monotonic()


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    make_trainer(folder, clock=StallingClock(folder)).fit()
