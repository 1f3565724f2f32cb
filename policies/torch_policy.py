"""The adapters that let a torch chunk model drive a robot, or many simulated ones: numpy in, numpy out."""

import numpy as np
import torch
from torch import Tensor

from policies.chunk_network import ChunkNetwork
from policies.disagreement import horizons_of, sample_with_disagreement
from robot_rl.deploy.consensus import Consensus, due_steps
from robot_rl.errors import ConfigError
from robot_rl.evaluation.lockstep import BatchChunks
from robot_rl.specs import RobotSpec
from robot_rl.values import ActionChunk, Obs, PolicyInput


class TorchBatchPolicy:
    """BatchPolicy around a chunk model; puts the model into evaluation mode.

    Row 0 of a chunk is due at the newest observation (earlier rows of a model whose chunk starts at the oldest
    observation are cut off), and actions are clamped to the range seen in training.

    Args:
        model: The model.
        spec: The robot, restricted to the observations that the model reads.
        n_execute: Actions to execute before asking again.
        consensus: Execute of each chunk what the horizons of a mixture agree on, in place of `n_execute`.

    Raises:
        ConfigError: `n_execute` is more than the chunk holds from the newest observation on, or `consensus` is given
            for a model whose horizons cannot disagree.
    """

    def __init__(
        self, model: ChunkNetwork, spec: RobotSpec, *, n_execute: int, consensus: Consensus | None = None
    ) -> None:
        room = model.horizon + model.action_offset
        if not 1 <= n_execute <= room:
            raise ConfigError(
                f"`n_execute` must be in [1, {room}] (horizon {model.horizon}, action_offset {model.action_offset}), "
                f"got {n_execute}"
            )
        self.model, self.spec, self._n_execute = model.eval(), spec, n_execute
        self._consensus, self._horizons = consensus, horizons_of(model)
        if consensus is not None:
            consensus.check(self._horizons, room)

    @property
    def n_obs(self) -> int:
        """O, observation steps."""
        return self.model.n_obs

    @property
    def n_execute(self) -> int:
        """Actions to execute before asking again."""
        return self._n_execute

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one sample."""
        return self.model.noise_shape

    def act_batch(self, obs: Obs, noise: np.ndarray) -> BatchChunks:
        """Return chunks for obs {name: [B, O, ...]} and noise [B, *noise_shape].

        Raises:
            SpecError: An observation is missing or not [B, O, ...] as specified.
        """
        self.spec.validate_obs({name: obs[name] for name in self.spec.obs if name in obs}, leading=2)
        device = self.model.action_low.device
        tensors = {name: torch.as_tensor(obs[name], device=device) for name in self.spec.obs}
        draw = torch.as_tensor(noise, dtype=torch.float32, device=device)
        with torch.no_grad():
            if self._consensus is None:
                return BatchChunks(self._due(self.model.sample(tensors, draw)))
            normalised, apart = sample_with_disagreement(self.model, tensors, draw)
            action = self.model.physical(tensors, normalised)
        offset = self.model.action_offset
        n = due_steps(self._consensus, apart.cpu().numpy(), self._horizons, action_offset=offset)
        return BatchChunks(self._due(action), n)

    def _due(self, action: Tensor) -> np.ndarray:
        clamped = action.clamp(self.model.action_low, self.model.action_high)
        return np.asarray(clamped[:, -self.model.action_offset :].cpu().numpy())


class TorchPolicy:
    """Policy around a chunk model, for one robot; `TorchBatchPolicy` with a batch of one.

    `prefix` and `delay_steps` of its input are not used: the plain policy ignores what was promised.

    Args:
        model: The model.
        spec: The robot, restricted to the observations that the model reads.
        n_execute: Actions to execute before asking again.
        seed: Seed of the noise that is drawn when `PolicyInput.noise` is `None`.
        consensus: As of `TorchBatchPolicy`.

    Raises:
        ConfigError: As of `TorchBatchPolicy`.
    """

    def __init__(
        self,
        model: ChunkNetwork,
        spec: RobotSpec,
        *,
        n_execute: int,
        seed: int = 0,
        consensus: Consensus | None = None,
    ) -> None:
        self._batch = TorchBatchPolicy(model, spec, n_execute=n_execute, consensus=consensus)
        self.model, self.spec = self._batch.model, spec
        self._rng = np.random.default_rng(seed)

    @property
    def n_obs(self) -> int:
        """O, observation steps."""
        return self._batch.n_obs

    @property
    def n_execute(self) -> int:
        """Actions to execute before asking again."""
        return self._batch.n_execute

    def seed(self, seed: int) -> None:
        """Start the noise over, so that what follows depends on this seed alone."""
        self._rng = np.random.default_rng(seed)

    def reset(self) -> None:
        """Nothing to forget: the policy keeps no state but its noise generator, which runs on over episodes."""

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        """Return a chunk whose row 0 is due at `policy_input.stamp_ns`.

        Raises:
            SpecError: An observation is missing or not [O, ...] as specified.
        """
        self.spec.validate_obs(policy_input.obs, leading=1)
        noise = policy_input.noise
        if noise is None:
            noise = self._rng.standard_normal(self._batch.noise_shape, dtype=np.float32)
        obs = {name: np.asarray(policy_input.obs[name])[None] for name in self.spec.obs}
        chunks = self._batch.act_batch(obs, np.asarray(noise)[None])
        n_execute = None if chunks.n_execute is None else int(chunks.n_execute[0])
        return ActionChunk(policy_input.stamp_ns, self.spec.step_ns, chunks.action[0], n_execute)
