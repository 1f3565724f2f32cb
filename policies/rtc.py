"""Real-time chunking with torch: guided sampling with the vector-Jacobian product, and the plain policy in batches.

The arithmetic is `robot_rl.deploy.realtime_chunking`'s; this file adds only the derivative, which needs autograd. Its
graph cannot be exported for every denoiser (the backward pass of a convolution has no ONNX counterpart), so a bundle
carries the parts for the identity form alone, and this form runs where torch does.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from policies.denoising import DenoisingModel
from policies.torch_policy import TorchBatchPolicy
from robot_rl.deploy.promises import Promise
from robot_rl.deploy.realtime_chunking import BETA, solve_guided
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec
from robot_rl.values import Obs

JACOBIANS = ("vjp", "identity")


def sample_guided(
    model: DenoisingModel,
    obs: Mapping[str, Tensor],
    noise: Float[Tensor, "B H A"],
    *,
    target: Float[Tensor, "B H A"],
    weights: Float[Tensor, "B H"],
    beta: float = BETA,
    jacobian: str = "vjp",
) -> Float[Tensor, "B H A"]:
    """Return normalised chunks guided towards `target` (real-time chunking).

    Args:
        model: The policy.
        obs: Observations {name: [B, O, ...]} in physical units.
        noise: Standard normal.
        target: Normalised actions; finite also where they do not count.
        weights: How much each step is held to them.
        beta: Largest guidance gain.
        jacobian: `vjp`, the derivative of the denoiser, or `identity` in its place.

    Raises:
        ConfigError: An unknown `jacobian`.
    """
    if jacobian not in JACOBIANS:
        raise ConfigError(f"`jacobian` must be one of {JACOBIANS}, got {jacobian!r}")
    with torch.no_grad():
        cond = model.encode(obs)
        start = model.path.initial(model.noise_scale * noise, model.times[0])

    def denoised(x: Tensor, t: float) -> Tensor:
        output = model.denoise(x, x.new_full((x.shape[0],), t), cond)
        return torch.as_tensor(model.path.denoised(x, t, output))

    def with_identity(x: Tensor, t: float) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        with torch.no_grad():
            return denoised(x, t), lambda error: error

    def with_derivative(x: Tensor, t: float) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        alpha, sigma = model.path.coefficients(t)
        with torch.enable_grad():
            at = x.detach().requires_grad_(True)
            clean = denoised(at, t)

        def pull(error: Tensor) -> Tensor:
            if not clean.requires_grad:  # a constant denoiser
                return torch.zeros_like(error)
            (gradient,) = torch.autograd.grad(clean, at, error)
            return (alpha + sigma) * gradient

        return clean.detach(), pull

    guide = with_derivative if jacobian == "vjp" else with_identity
    solved = solve_guided(
        model.path, guide, start, model.times, target=target, weights=weights, beta=beta, clip=model.clip
    )
    return torch.as_tensor(solved)


class TorchSampler:
    """A chunk model as a `robot_rl.deploy.promises.ChunkSampler` and `realtime_chunking.GuidedDenoiser` in one.

    Args:
        model: The model; put into evaluation mode.
        spec: The robot, restricted to the observations that the model reads.
        n_execute: Actions to execute before asking again.
        jacobian: Of guided sampling, see `sample_guided`.

    Raises:
        ConfigError: `n_execute` is more than the chunk holds from the newest observation on.
    """

    def __init__(self, model: DenoisingModel, spec: RobotSpec, *, n_execute: int, jacobian: str = "vjp") -> None:
        if jacobian not in JACOBIANS:
            raise ConfigError(f"`jacobian` must be one of {JACOBIANS}, got {jacobian!r}")
        self._batch = TorchBatchPolicy(model, spec, n_execute=n_execute)
        self.model, self.spec, self.jacobian = model, spec, jacobian

    @property
    def n_obs(self) -> int:
        """O, observation steps."""
        return self.model.n_obs

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
        """Lowest and highest action seen in training, [A] each."""
        return self.model.action_low.cpu().numpy(), self.model.action_high.cpu().numpy()

    @property
    def horizon(self) -> int:
        """H of the model."""
        return self.model.horizon

    @property
    def action_offset(self) -> int:
        """Control step of the model's row 0 relative to the newest observation."""
        return self.model.action_offset

    def chunks(self, obs: Obs, noise: np.ndarray, promise: Promise | None = None) -> np.ndarray:
        """Return the plain policy's actions [B, H, A]; what was promised makes no difference."""
        return self._batch.act_batch(obs, noise).action

    def normalised(self, obs: Obs, action: np.ndarray) -> np.ndarray:
        """Return physical chunks [B, H, A] as the network sees them."""
        with torch.no_grad():
            return np.asarray(self.model.normalised(self._tensors(obs), self._tensor(action)).cpu().numpy())

    def physical(self, obs: Obs, normalised: np.ndarray) -> np.ndarray:
        """Return normalised chunks in physical units."""
        with torch.no_grad():
            return np.asarray(self.model.physical(self._tensors(obs), self._tensor(normalised)).cpu().numpy())

    def sample_guided(
        self, obs: Obs, noise: np.ndarray, *, target: np.ndarray, weights: np.ndarray, beta: float
    ) -> np.ndarray:
        """Return normalised chunks guided towards `target`, see the function of this name."""
        chunk = sample_guided(
            self.model, self._tensors(obs), self._tensor(noise), target=self._tensor(target),
            weights=self._tensor(weights), beta=beta, jacobian=self.jacobian,
        )  # fmt: skip
        return np.asarray(chunk.cpu().numpy())

    def _tensors(self, obs: Obs) -> dict[str, Tensor]:
        return {name: torch.as_tensor(obs[name], device=self.model.action_low.device) for name in self.spec.obs}

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=self.model.action_low.device)
