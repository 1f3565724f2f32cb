"""What fine-tuning asks of a policy: a denoising chain with known densities, as `policies.chain.DenoisingChain` is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from robot_rl.interfaces import ChainModel


@runtime_checkable
class TunableChain(ChainModel, Protocol):
    """A chain model that is a module, in parts. Axis letters: T tuned steps, S = T + 1 states."""

    action_low: Tensor
    action_high: Tensor
    """Range of the actions seen in imitation, [A] each; what is executed is clamped to it."""
    n_tuned: int

    @property
    def encoder(self) -> nn.Module:
        """Maps obs {name: [B, O, ...]} to the condition [B, C]."""

    @property
    def denoiser(self) -> nn.Module:
        """What is tuned."""

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Shape of the noise of one chain: H rows to start from, and H more for each step."""

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Return the condition [B, C]."""

    def states(self, cond: Tensor, noise: Tensor, step_noise: Tensor) -> Tensor:
        """Return the states around the tuned steps [B, S, H, A] for `noise` [B, H, A], `step_noise` [B, K, H, A]."""

    def transition_log_prob(self, cond: Tensor, chain: Tensor) -> Tensor:
        """Return the log-density of each element of each tuned step, [B, T, H, A]."""

    def physical(self, obs: Mapping[str, Tensor], normalised: Tensor) -> Tensor:
        """Return a normalised chunk [B, H, A] in physical units."""

    def eval(self) -> Any:
        """Put the module into evaluation mode."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the weights."""

    def state_dict(self) -> dict[str, Any]:
        """Return weights and constants by name."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Take weights and constants."""
