"""One gradient step, and everything that changes with it: weights, their average, the optimiser, the generators."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from robot_rl.data.windows import WindowBatch
from robot_rl.errors import CheckpointError, ConfigError, TrainingError
from robot_rl.imitation.ema import Ema
from robot_rl.imitation.metrics import BatchTensors, to_tensors
from robot_rl.imitation.schedule import cosine_with_warmup
from robot_rl.imitation.surroundings import stream_seed
from robot_rl.interfaces import ChunkModel

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class _Step:
    """A step whose numbers have not been looked at yet."""

    number: int
    batch: BatchTensors
    noise: Tensor
    u: Tensor
    health: Tensor
    """Loss plus gradient norm: not finite if either is not."""


@dataclass(frozen=True, kw_only=True)
class LearnerSettings:
    """How a `Learner` learns; the words are those of `Trainer`."""

    steps: int
    lr: float
    weight_decay: float
    betas: tuple[float, float]
    warmup_steps: int
    ema_decay: float
    ema_power: float | None
    grad_clip: float | None
    seed: int
    precision: Precision
    compile: bool


class Learner:
    """Trains one chunk model by AdamW; knows nothing of data order, time, files or people.

    Args:
        model: A `ChunkModel` that is an `nn.Module`; moved to `device`.
        settings: How to learn.
        device: Where to compute.
        dump_dir: Where the batch goes that made the loss something else than a number.

    Raises:
        ConfigError: The model is not a `ChunkModel` and `nn.Module`.
    """

    def __init__(self, model: ChunkModel, settings: LearnerSettings, *, device: torch.device, dump_dir: Path) -> None:
        if not isinstance(model, nn.Module) or not isinstance(model, ChunkModel):
            raise ConfigError(f"`model` must be an nn.Module with ChunkModel's methods, got {type(model).__name__}")
        self.model: nn.Module = model.to(device).train()
        self.settings, self.device, self.step = settings, device, 0
        self._dump_dir = dump_dir
        self._loss = torch.compile(model.loss) if settings.compile else model.loss
        self._names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            _decay_groups(model, settings.weight_decay), lr=settings.lr, betas=settings.betas, fused=True
        )
        self.ema = Ema(model, max_decay=settings.ema_decay, power=settings.ema_power)
        self.generator = torch.Generator().manual_seed(stream_seed(settings.seed, 0))
        self._sums = torch.zeros(2, device=device)
        self._summed = 0
        self._unchecked: _Step | None = None

    @property
    def ema_model(self) -> ChunkModel:
        """The model with averaged weights, in eval mode."""
        self.ema.sync()
        return cast("ChunkModel", self.ema.model)

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        s = self.settings
        return s.lr * cosine_with_warmup(self.step, steps=s.steps, warmup_steps=s.warmup_steps)

    def update(self, batch: WindowBatch) -> None:
        """Make one gradient step.

        The loss is looked at one step late, so that a GPU never waits for Python.

        Raises:
            TrainingError: The loss or the gradient of the step before was not finite.
        """
        tensors = to_tensors(batch, self.device)
        obs, action, mask = tensors
        noise = torch.randn(action.shape, generator=self.generator).to(self.device, non_blocking=True)
        u = torch.rand(len(action), generator=self.generator).to(self.device, non_blocking=True)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            loss = self._loss(obs, action, noise, u, mask)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        limit = float("inf") if self.settings.grad_clip is None else self.settings.grad_clip
        norm = nn.utils.clip_grad_norm_(self._parameters, limit, foreach=True)
        self.optimizer.step()
        self.ema.update()
        self.step += 1
        self._sums += torch.stack((loss.detach(), norm))
        self._summed += 1
        self.check()
        self._unchecked = _Step(self.step, tensors, noise, u, loss.detach() + norm)

    def check(self) -> None:
        """Look at the step that has not been looked at. Call before weights are evaluated or saved.

        Raises:
            TrainingError: Its loss or gradient was not finite; the batch is in the dump folder.
        """
        step, self._unchecked = self._unchecked, None
        if step is None or bool(torch.isfinite(step.health)):
            return
        obs, action, mask = step.batch
        fields = {f"obs.{name}": value for name, value in obs.items()}
        fields |= {"action": action, "mask": mask, "noise": step.noise, "u": step.u}
        path = self._dump_dir / f"bad_batch_step_{step.number:08d}.safetensors"
        save_file({name: value.contiguous().cpu() for name, value in fields.items()}, path)
        bad = [name for name, value in fields.items() if not bool(torch.isfinite(value).all())]
        cause = f"the batch holds NaN or infinity in {bad}" if bad else "the batch is finite, so lower lr or grad_clip"
        raise TrainingError(f"step {step.number}: loss or gradient is not finite; {cause}. The batch is in {path}")

    def drain(self) -> dict[str, float]:
        """Return the means since the last call, and the present learning rate and decay."""
        loss, norm = (self._sums / max(1, self._summed)).tolist()
        self._sums.zero_()
        self._summed = 0
        return {"train/loss": loss, "train/grad_norm": norm, "train/lr": self.lr, "train/ema_decay": self.ema.decay}

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return the optimiser's state as `<parameter>/<field>`."""
        tensors: dict[str, Tensor] = {}
        for parameter, state in self.optimizer.state.items():
            tensors |= {f"{self._names[id(parameter)]}/{field}": value for field, value in state.items()}
        return tensors

    def load_optimizer_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `optimizer_tensors` returned.

        Raises:
            CheckpointError: A parameter has no state.
        """
        fields: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, field = key.rsplit("/", 1)
            fields.setdefault(name, {})[field] = value
        missing = sorted(set(self._names.values()) - set(fields))
        if missing:
            raise CheckpointError(f"the optimiser state lacks parameters {missing}; the network was changed")
        order = [p for group in self.optimizer.param_groups for p in group["params"]]
        state = {i: fields[self._names[id(p)]] for i, p in enumerate(order)}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})

    def state(self) -> dict[str, Any]:
        """Return step, average count and generator states as plain JSON."""
        rng = {"noise": self.generator.get_state(), "torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        encoded = {name: base64.b64encode(value.numpy().tobytes()).decode() for name, value in rng.items()}
        return {"step": self.step, "ema_updates": self.ema.updates, "rng": encoded}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.step, self.ema.updates = int(state["step"]), int(state["ema_updates"])
        rng = {name: _tensor(text) for name, text in state["rng"].items()}
        self.generator.set_state(rng["noise"])
        torch.set_rng_state(rng["torch"])
        if self.device.type == "cuda" and "cuda" in rng:
            torch.cuda.set_rng_state(rng["cuda"], self.device)


def _tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters: matrices and kernels decay; biases, norms, embeddings and learned positions do not."""
    embedding = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    decay: list[Tensor] = []
    rest: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = name.endswith("weight") and parameter.ndim >= 2 and id(parameter) not in embedding
            (decay if decays else rest).append(parameter)
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
