"""One optimiser step that refuses a loss which is not finite, gradients that pass through a module without it, and
optimisers as tensors for a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robot_rl.errors import TrainingError


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Give a module's parameters no gradient inside the block; gradients through it still flow."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


def step(
    optimiser: torch.optim.Optimizer,
    loss: Tensor,
    parameters: Iterable[Tensor],
    *,
    what: str,
    max_norm: float | None = None,
) -> float:
    """Take one step down the gradient of `loss` and return its value.

    Args:
        optimiser: Holds the parameters.
        loss: Scalar.
        parameters: Whose gradient is bounded.
        what: Whose loss it is, for the message.
        max_norm: Bound of the gradient's norm; `None` for none.

    Raises:
        TrainingError: The loss is not finite; nothing was changed.
    """
    value = float(loss.detach())
    if value != value or value in (float("inf"), float("-inf")):
        raise TrainingError(
            f"the {what}'s loss became {value}; nothing was changed by this step. Look for NaN in the stored "
            "observations and rewards, or lower the learning rate, and resume from the last checkpoint"
        )
    for group in optimiser.param_groups:  # what `zero_grad` does, without its bookkeeping
        for parameter in group["params"]:
            parameter.grad = None
    loss.backward()  # type: ignore[no-untyped-call]
    if max_norm is not None:
        nn.utils.clip_grad_norm_(parameters, max_norm)
    optimiser.step()
    return value


def descend(
    optimiser: torch.optim.Optimizer, loss: Tensor, parameters: Sequence[Tensor], max_norm: float, *, what: str
) -> float:
    """Take one step down the gradient of `loss` and return the gradient's norm.

    Raises:
        TrainingError: Loss or gradient is not finite; no weight was changed by this step.
    """
    optimiser.zero_grad(set_to_none=True)
    value = float(loss.detach())
    norm = float("nan")
    if math.isfinite(value):
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(parameters, max_norm))
    if not math.isfinite(norm):
        part = "loss" if not math.isfinite(value) else "gradient"
        raise TrainingError(
            f"the {what}'s {part} is not finite ({norm if part == 'gradient' else value}); the weights of before this "
            "update stay. Look for NaN in rewards and observations, lower the learning rate, or raise `std_min`"
        )
    optimiser.step()
    return norm


def saved(optimisers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Return the state of optimisers as `<name>/<parameter's number>/<field>`."""
    return {
        f"{name}/{index}/{field}": value
        for name, optimiser in optimisers.items()
        for index, state in optimiser.state_dict()["state"].items()
        for field, value in state.items()
    }


def restore(optimisers: Mapping[str, torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Give optimisers the state that `saved` took from them."""
    for name, optimiser in optimisers.items():
        fields: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            owner, index, field = key.split("/")
            if owner == name:
                fields.setdefault(int(index), {})[field] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": fields})
