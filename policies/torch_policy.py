"""The adapter that lets a torch ChunkModel drive a robot: numpy in, numpy out, one observation at a time."""

import numpy as np
import torch

from policies.denoising import DenoisingModel
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec
from robot_rl.values import ActionChunk, PolicyInput


class TorchPolicy:
    """Policy around a chunk model; puts the model into evaluation mode.

    Row 0 of a chunk it returns is due at the newest observation (earlier rows of a model whose chunk starts at the
    oldest observation are cut off), and actions are clamped to the range seen in training. `prefix` and `delay_steps`
    are not used: the plain policy ignores what was promised.

    Args:
        model: The model.
        spec: The robot, restricted to the observations that the model reads.
        n_execute: Actions to execute before asking again.
        seed: Seed of the noise that is drawn when `PolicyInput.noise` is `None`.

    Raises:
        ConfigError: `n_execute` is more than the chunk holds from the newest observation on.
    """

    def __init__(self, model: DenoisingModel, spec: RobotSpec, *, n_execute: int, seed: int = 0) -> None:
        room = model.horizon + model.action_offset
        if not 1 <= n_execute <= room:
            raise ConfigError(
                f"`n_execute` must be in [1, {room}] (horizon {model.horizon}, action_offset {model.action_offset}), "
                f"got {n_execute}"
            )
        self.model = model.eval()
        self.spec = spec
        self._n_execute = n_execute
        self._rng = np.random.default_rng(seed)

    @property
    def n_obs(self) -> int:
        """O, observation steps."""
        return self.model.n_obs

    @property
    def n_execute(self) -> int:
        """Actions to execute before asking again."""
        return self._n_execute

    def reset(self) -> None:
        """Nothing to forget: the policy keeps no state but its noise generator, which runs on over episodes."""

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        """Return a chunk whose row 0 is due at `policy_input.stamp_ns`.

        Raises:
            SpecError: An observation is missing or not [O, ...] as specified.
        """
        model = self.model
        self.spec.validate_obs(policy_input.obs, leading=1)
        device = model.action_low.device
        obs = {name: torch.as_tensor(policy_input.obs[name], device=device)[None] for name in self.spec.obs}
        noise = policy_input.noise
        if noise is None:
            noise = self._rng.standard_normal((model.horizon, model.action_dim), dtype=np.float32)
        with torch.no_grad():
            action = model.sample(obs, torch.as_tensor(noise, dtype=torch.float32, device=device)[None])[0]
            action = action.clamp(model.action_low, model.action_high)
        rows = action[-model.action_offset :].cpu().numpy()
        return ActionChunk(policy_input.stamp_ns, self.spec.step_ns, rows)
