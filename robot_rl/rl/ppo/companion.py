"""A one-step head that is trained beside the policy it is distilled from, while that one moves: lambda_CD of RL-100.

RL-100 (Lei et al. 2025, arXiv 2510.14830) adds lambda_CD times the head's error to the policy's loss. No gradient of it
reaches the policy, and policy and head share no weight that is trained: the sum's two terms are two problems. So they
have an optimiser each here, as in the released code, and the factor becomes the head's learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from robot_rl.errors import ConfigError
from robot_rl.rl.optimise import step

HeadError = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""The head's mean squared error to its teacher, as that is now, for obs {name: [B, O, ...]} and noise [B, H, A]."""


class Companion:
    """A head, how wrong it is, and its optimiser.

    Args:
        head: Is trained in place.
        error: What is minimised; its gradient must reach the head alone.
        noise_shape: (H, A) of the chunk.
        lr: Learning rate.
        max_norm: Bound of the gradient's norm.

    Raises:
        ConfigError: A learning rate that is not above 0.
    """

    def __init__(
        self, head: nn.Module, error: HeadError, *, noise_shape: tuple[int, int], lr: float, max_norm: float = 1.0
    ) -> None:
        if not lr > 0:
            raise ConfigError(f"`head_lr` must be above 0, got {lr}; null leaves the head out")
        self.head, self._error, self._shape, self._max_norm = head, error, noise_shape, max_norm
        self._trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(self._trained, lr=lr)

    def follow(self, obs: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, float]:
        """Take a step towards the teacher on the observations of a minibatch, and return what to log.

        Raises:
            TrainingError: The error is not finite; nothing was changed by this step.
        """
        one = next(iter(obs.values()))
        noise = torch.randn((len(one), *self._shape), generator=generator).to(one.device)
        loss = self._error(obs, noise)
        return {"head/loss": step(self.optimiser, loss, self._trained, what="one-step head", max_norm=self._max_norm)}
