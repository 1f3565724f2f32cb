"""A bundle of robot-rl as a LeRobot policy: ONNX Runtime inside, LeRobot's tensors outside."""

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from lerobot_policy_robot_rl.configuration_robot_rl import RobotRLConfig
from lerobot_policy_robot_rl.inputs import Place, places, read
from robot_rl.bundle import PolicyBundle
from robot_rl.deploy.history import ObsHistory
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.errors import ConfigError, SafetyStop


class RobotRLPolicy(PreTrainedPolicy):
    """Runs a bundle. Its actions are clamped to the range that is frozen in it; observations of each environment are
    stacked as in training, the first one standing in for those before it.

    Raises:
        ConfigError: No bundle is given, or more actions shall be executed than a chunk holds.
        BundleError: The bundle is incomplete or altered.
    """

    config_class = RobotRLConfig
    name = "robot_rl"

    def __init__(self, config: RobotRLConfig, **kwargs: Any) -> None:
        super().__init__(config)
        if not config.bundle:
            raise ConfigError("`policy.bundle` is missing; give the folder that robot-rl package wrote")
        self.bundle = PolicyBundle.open(config.bundle)
        self.onnx = OnnxPolicy(self.bundle, threads=config.threads, seed=config.seed)
        manifest = self.bundle.manifest
        room = manifest.horizon + manifest.action_offset
        self.n_execute = self.onnx.n_execute if config.n_execute is None else config.n_execute
        if not 1 <= self.n_execute <= room:
            raise ConfigError(f"`policy.n_execute` must be in [1, {room}] for this bundle, got {self.n_execute}")
        self._rng = np.random.default_rng(config.seed)
        self._where: dict[str, Place] | None = None
        # LeRobot asks a policy's parameters where it lives.
        self.register_buffer("_device", torch.zeros(0), persistent=False)
        self.reset()

    def reset(self) -> None:
        """Forget the last episode."""
        self._history: ObsHistory | None = None
        self._queue: deque[np.ndarray] = deque()

    def select_action(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        """Return the action [B, A] of this tick, asking the bundle for a chunk when the last one is used up."""
        stack = self._push(batch)
        if not self._queue:
            self._queue.extend(self._chunk(stack)[: self.n_execute])
        return torch.from_numpy(self._queue.popleft())

    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        """Return a whole chunk [B, H, A] for the observations up to now, row 0 due at the newest."""
        return torch.from_numpy(np.stack(self._chunk(self._push(batch)), axis=1))

    def _push(self, batch: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """Add the newest observations and return their stacks, {name: [O, B, ...]}."""
        seen = {name: value for name, value in batch.items() if isinstance(value, Tensor) and "observation" in name}
        if self._where is None:
            self._where = places(self.onnx.spec, self.config.obs, {n: v.shape[1:] for n, v in seen.items()})
        if self._history is None:
            self._history = ObsHistory(self.onnx.n_obs)
        return self._history.push(read(seen, self._where, self.onnx.spec))

    def _chunk(self, stack: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Return the rows [B, A] of new chunks."""
        obs = {name: np.ascontiguousarray(np.moveaxis(value, 0, 1)) for name, value in stack.items()}
        size = len(next(iter(obs.values())))
        noise = self._rng.standard_normal((size, *self.onnx.noise_shape), dtype=np.float32)
        chunk = self.onnx.chunks(obs, noise)
        if not np.isfinite(chunk).all():
            raise SafetyStop(f"policy {self.bundle.id} answered NaN or infinity; its action was not used")
        return list(np.moveaxis(chunk, 1, 0))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict | None]:
        """Raise: a bundle is trained by robot-rl, not here."""
        raise NotImplementedError("a bundle is not trained by LeRobot; use robot-rl train, then robot-rl package")

    def get_optim_params(self) -> dict:
        """Nothing: its weights are in the bundle's graph."""
        return {}

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        self.config._save_pretrained(save_directory)

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, *, config: Any = None, **kwargs: Any) -> Any:
        """Return the policy of a folder that `python -m lerobot_policy_robot_rl` wrote."""
        found = RobotRLConfig.from_pretrained(pretrained_name_or_path) if config is None else config
        return cls(found).eval()
