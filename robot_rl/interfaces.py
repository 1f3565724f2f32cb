"""The protocols that rooms agree on. Each has a contract test kit in `tests/contracts/`.

Tensors appear only in annotations here, so that the robot side imports this module without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from robot_rl.specs import RobotSpec
from robot_rl.values import ActionChunk, Obs, PolicyInput, Recording, Tick

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Policy(Protocol):
    """Drives a robot: a network, an ONNX session, a script or a person. numpy in, physical units out."""

    @property
    def n_obs(self) -> int:
        """O, how many observation steps `act` needs (oldest first)."""

    @property
    def n_execute(self) -> int:
        """How many actions of a chunk to execute before asking again, if nothing else decides."""

    def reset(self) -> None:
        """Forget the last episode."""

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        """Return a chunk whose row 0 is due at `policy_input.stamp_ns`."""


@runtime_checkable
class Seedable(Protocol):
    """A policy that draws random numbers and can be told from which seed."""

    def seed(self, seed: int) -> None:
        """Start the policy's random numbers again from `seed`."""


@runtime_checkable
class StepPolicy(Protocol):
    """A correction at control rate on top of a chunked base: the residual actor."""

    def act(self, obs: Obs, base_action: np.ndarray) -> np.ndarray:
        """Return the corrected action [A], given one observation step and the base's action [A]."""


@runtime_checkable
class Holding(Protocol):
    """A step policy that keeps its correction for several ticks."""

    @property
    def held(self) -> int:
        """Ticks since the correction of the last `act` was chosen; 0 if it was chosen there."""

    def renew(self) -> None:
        """Choose anew at the next tick."""


@runtime_checkable
class Env(Protocol):
    """A simulated or real arm with a task. The seed fixes everything random about an episode."""

    @property
    def spec(self) -> RobotSpec:
        """What passes in and out."""

    def reset(self, seed: int) -> Tick:
        """Start an episode; the tick carries the first observation and no action."""

    def step(self, action: np.ndarray) -> Tick:
        """Apply `action` [A] for one control period."""

    def render(self) -> np.ndarray:
        """Return a picture for people, uint8 [height, width, 3]."""

    def close(self) -> None:
        """Release what the environment holds. Calling it twice is allowed."""


@runtime_checkable
class EpisodeSink(Protocol):
    """Where whole attempts go: memory in simulation, the store on robots."""

    def append(self, recording: Recording) -> str:
        """Add one attempt and return its id; it is visible when, and only when, it is whole."""


@runtime_checkable
class ChunkModel(Protocol):
    """A torch model of action chunks. Physical units on both sides: normalisation lives inside."""

    n_obs: int
    horizon: int
    action_dim: int
    action_offset: int
    """Control step of the chunk's first action relative to the newest observation: 0, or 1-O for DP and LeRobot."""

    def sample(self, obs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        """Return action [B, H, A] for obs {name: [B, O, ...]} and standard normal noise [B, H, A]."""

    def loss(self, obs: Mapping[str, Tensor], target: Tensor, noise: Tensor, u: Tensor, mask: Tensor) -> Tensor:
        """Return the scalar training loss.

        `target`, `noise` [B, H, A]; `u` [B] uniform in [0, 1), which the model maps to its own time law;
        `mask` [B, H] bool, false where the window left the episode.
        """


@runtime_checkable
class ShapedNoise(Protocol):
    """A chunk model that says what noise one sample takes, which may be more than [H, A]."""

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one sample; the first H rows are what sampling starts from."""


@runtime_checkable
class ChainModel(ChunkModel, Protocol):
    """A chunk model whose denoising is a Markov chain with known log-probabilities."""

    def chain(self, obs: Mapping[str, Tensor], noise: Tensor, step_noise: Tensor) -> Tensor:
        """Return every state of the chain [B, K+1, H, A], normalised, given `step_noise` [B, K, H, A]."""

    def log_prob(self, obs: Mapping[str, Tensor], chain: Tensor) -> Tensor:
        """Return the log-probability of each transition [B, K]."""


@runtime_checkable
class Critic(Protocol):
    """An ensemble of action values."""

    n_members: int

    def q(self, obs: Mapping[str, Tensor], action: Tensor) -> Tensor:
        """Return [E, B] values of `action` [B, H, A] in obs {name: [B, O, ...]}."""
