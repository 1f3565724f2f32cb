"""An arm that stands still whatever it is told, and keeps what it was told."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.specs import RobotSpec
from robot_rl.values import Tick
from tests.ros.formula_bundle import ROBOT

PRESENT = np.array([0.1, 0.2, 0.3, -1.4, 0.5, 0.6, 0.7, 0.05], np.float32)
PATIENT = ("task.safety.obs_age_s=60", "task.safety.command_gap_s=60")
"""For loops whose clock is not what is tested: this machine may be busy."""


def still(bundle: Path, folder: Path, *more: str) -> list[str]:
    """Return the overrides of a loop with such an arm, which notes its orders in `folder`/told.npy."""
    return [
        f"bundle={bundle}", f"out={folder}", "task.env._target_=tests.cli.still_arm.StillArm", "~task.env.robot",
        "~task.env.task", f"+task.env.file={folder / 'told.npy'}", "task.safety.slow_start_s=0", *PATIENT, *more,
    ]  # fmt: skip


class StillArm:
    """An `Env` of the lift arm.

    Args:
        file: Where the actions [N, 8] go when it is closed.
    """

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self._actions: list[np.ndarray] = []

    @property
    def spec(self) -> RobotSpec:
        return ROBOT

    def reset(self, seed: int) -> Tick:
        return self._tick()

    def step(self, action: np.ndarray) -> Tick:
        self._actions.append(action.copy())
        return self._tick(action=action, action_executed=action)

    def render(self) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)

    def close(self) -> None:
        np.save(self._file, np.array(self._actions))

    @staticmethod
    def _tick(**more: Any) -> Tick:
        obs = {"joint_position": PRESENT[:7].copy(), "gripper_width": PRESENT[7:].copy()}
        return Tick(stamp_ns=time.monotonic_ns(), obs=obs, **more)
