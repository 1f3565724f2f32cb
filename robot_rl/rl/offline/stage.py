"""A stage of training that survives being killed: model, optimiser, random state and progress, in checkpoints."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robot_rl.imitation.checkpoint import CheckpointFolder, CheckpointTensors, load_checkpoint
from robot_rl.rl.optimise import restore, saved


class Stage:
    """The checkpoints of one stage.

    Args:
        folder: Where they lie; `None` keeps none.
        model: What is trained.
        optimiser: What trains it.
        generator: The stage's random numbers.
        constants: What must be the same when it goes on, plain JSON.
        kept: What is delivered of it (the `ema` file of a checkpoint); `None` for the model itself.
    """

    def __init__(
        self,
        folder: str | Path | None,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        generator: torch.Generator,
        *,
        constants: Mapping[str, Any],
        kept: nn.Module | None = None,
    ) -> None:
        self._folder = None if folder is None else CheckpointFolder(folder)
        self._model, self._optimiser, self._generator = model, optimiser, generator
        self._kept, self._constants = model if kept is None else kept, dict(constants)

    def save(self, step: int, **state: Any) -> None:
        """Save it all; `state` is plain JSON."""
        if self._folder is None:
            return
        body = {
            "step": step, "state": state, "config": self._constants, "rng": _text(self._generator.get_state()),
            "lr": [group["lr"] for group in self._optimiser.param_groups],
        }  # fmt: skip
        tensors = CheckpointTensors(self._model, self._kept, saved({"optimiser": self._optimiser}))
        self._folder.save(tensors, body, best=False)

    def restore(self) -> tuple[int, dict[str, Any]] | None:
        """Fill model, optimiser and random state from the last checkpoint; return its step and `state` if there is one.

        Raises:
            CheckpointError: It is damaged or of another network.
            ConfigError: It was made with other constants; the message names them.
        """
        path = None if self._folder is None else self._folder.find("last")
        if path is None:
            return None
        found, tensors = load_checkpoint(path, model=self._model, ema=self._kept, expected_config=self._constants)
        restore({"optimiser": self._optimiser}, tensors)
        for group, lr in zip(self._optimiser.param_groups, found["lr"], strict=True):
            group["lr"] = lr
        self._generator.set_state(_tensor(found["rng"]))
        return int(found["step"]), dict(found["state"])


def _text(state: Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
