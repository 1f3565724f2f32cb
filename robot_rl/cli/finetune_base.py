"""The frozen base of a fine-tuning run: what tells it from others, and the forms in which it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from robot_rl.bundle import PolicyBundle
from robot_rl.cli.evaluate_command import make_onnx_policy
from robot_rl.cli.lerobot_model import is_lerobot, lerobot_id, lerobot_policy
from robot_rl.cli.model_card import FILE as MODEL_FILE
from robot_rl.cli.model_card import torch_policy, trained_model
from robot_rl.deploy.promises import ChunkSampler, Promise
from robot_rl.errors import ConfigError
from robot_rl.imitation.checkpoint import read_state
from robot_rl.interfaces import Policy
from robot_rl.specs import RobotSpec
from robot_rl.values import Obs

if TYPE_CHECKING:
    from policies.torch_policy import TorchBatchPolicy


def identify(base: str | Path | None) -> str:
    """Return what tells a base from others: a bundle's id, or a digest of a training run's or a checkpoint's weights.

    Raises:
        ConfigError: There is none of these at this path.
    """
    if base is None:
        raise ConfigError("`base` must be a bundle, or the folder of `robot-rl train`, got null; give base=<its path>")
    root = Path(base)
    if (root / "manifest.json").is_file():
        return PolicyBundle.open(root).id
    if (root / MODEL_FILE).is_file():
        files = read_state(root / "checkpoints" / "last")["files"]
        return f"run-{files['ema.safetensors'][:16]}"
    if is_lerobot(root):
        return lerobot_id(root)
    raise ConfigError(f"there is neither a bundle nor a training run at base={base}; train one, or give its path")


def open_base(base: str | Path, robot: RobotSpec) -> Policy:
    """Return a base as a policy; `robot` tells a checkpoint of LeRobot what it drives."""
    if is_lerobot(base):
        return lerobot_policy(str(base), robot)
    return torch_policy(str(base)) if (Path(base) / MODEL_FILE).is_file() else make_onnx_policy(str(base))


def open_sampler(base: str | Path, robot: RobotSpec) -> ChunkSampler:
    """Return a base as what draws many chunks in one call; `robot` is as of `open_base`."""
    from policies.torch_policy import TorchBatchPolicy

    if is_lerobot(base):
        policy = lerobot_policy(str(base), robot)
        return TorchSampler(TorchBatchPolicy(policy.model, policy.spec, n_execute=policy.n_execute))
    if not (Path(base) / MODEL_FILE).is_file():
        return cast(ChunkSampler, make_onnx_policy(str(base)))
    card, model = trained_model(base)
    return TorchSampler(TorchBatchPolicy(model, card.spec, n_execute=card.n_execute))


class TorchSampler:
    """A trained run as a `ChunkSampler`; what was promised makes no difference to it.

    Args:
        batch: The run's model, batched.
    """

    def __init__(self, batch: TorchBatchPolicy) -> None:
        self._batch = batch

    @property
    def spec(self) -> RobotSpec:
        """What it reads and gives."""
        return self._batch.spec

    @property
    def n_obs(self) -> int:
        """O, observation steps."""
        return self._batch.n_obs

    @property
    def n_execute(self) -> int:
        """Actions to execute before asking again."""
        return self._batch.n_execute

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one chunk."""
        return self._batch.noise_shape

    @property
    def action_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest action, [A] each."""
        model = self._batch.model
        return model.action_low.cpu().numpy(), model.action_high.cpu().numpy()

    def chunks(self, obs: Obs, noise: np.ndarray, promise: Promise | None = None) -> np.ndarray:
        """Return physical actions [B, H, A] for obs {name: [B, O, ...]} and noise [B, *noise_shape]."""
        return self._batch.act_batch(obs, noise).action
