"""The imitation loop: one for every `ChunkModel`, whatever it learns by.

Everything random is drawn from generators that a checkpoint holds, and the learning rate is a function of the step, so
a resumed run on a CPU continues bit for bit (same machine, same `threads`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch

from robot_rl.data.windows import WindowDataset, WindowSpec
from robot_rl.errors import ConfigError
from robot_rl.imitation.checkpoint import CheckpointFolder, check_same_config, read_state
from robot_rl.imitation.learner import LearnerSettings, Precision
from robot_rl.imitation.metrics import actions_digest
from robot_rl.imitation.run import Resume, TrainRun
from robot_rl.imitation.summary import TrainSummary
from robot_rl.imitation.surroundings import surroundings
from robot_rl.interfaces import ChunkModel

BestBy = Literal["val/action_error_normalised", "val/loss"]
_CHOICES = {"precision": ("fp32", "bf16"), "best_by": ("val/action_error_normalised", "val/loss")}


@dataclass(eq=False, repr=False)
class Trainer:
    """Trains a chunk model on windows of demonstrations.

    Args:
        model: A `ChunkModel` that is an `nn.Module`. It is trained in place; the weights to use afterwards are the
            averaged ones in the checkpoint (`load_model_weights`).
        train: Training windows.
        val: Windows of held-out episodes; `None` trains without held-out metrics and without a best checkpoint.
        run_dir: Folder of this run: config.json, metrics.jsonl, tensorboard/, checkpoints/, learning_curve.png.
        steps: Updates of the whole run; the cosine schedule ends here.
        batch_size: Windows a step.
        lr: Peak learning rate of AdamW.
        weight_decay: AdamW's, on matrices and kernels only.
        betas: AdamW's.
        warmup_steps: Updates of linear warm-up.
        ema_decay: Cap of the weight average's decay.
        ema_power: Exponent of its warm-up 1 - (1 + t)^-power; `None` for a constant decay.
        grad_clip: Largest gradient norm; `None` does not clip.
        seed: Fixes data order, noise, times and dropout. The model's initial weights are the caller's.
        precision: `bf16` computes the loss under autocast; weights and optimiser stay fp32.
        compile: Compile the loss with torch.compile.
        device: `auto` takes a GPU if there is one.
        log_every: Steps between records of training metrics.
        eval_every: Steps between held-out evaluations.
        checkpoint_every: Steps between checkpoints; a new best one is saved whenever it is found.
        max_minutes: Stop after this much training time, over all resumes, with checkpoint and evaluation.
        threads: Threads of torch on the CPU; `None` leaves them as they are.
        val_windows: Held-out windows evaluated, spread evenly over `val`.
        best_by: Held-out metric whose minimum makes the best checkpoint.
        tensorboard: Write TensorBoard events too.
        config: Anything else to record and to hold constant over resumes, such as the model's settings; plain JSON.
        clock: Monotonic seconds; an argument for tests.

    Raises:
        ConfigError: A setting out of range, or windows that do not fit the model.
    """

    model: ChunkModel
    train: WindowDataset
    val: WindowDataset | None = None
    _: KW_ONLY
    run_dir: str | Path
    steps: int
    batch_size: int = 256
    lr: float = 3e-4
    weight_decay: float = 1e-6
    betas: tuple[float, float] = (0.95, 0.999)
    warmup_steps: int = 500
    ema_decay: float = 0.999
    ema_power: float | None = 0.75
    grad_clip: float | None = 1.0
    seed: int = 0
    precision: Precision = "fp32"
    compile: bool = False
    device: str = "auto"
    log_every: int = 100
    eval_every: int = 2000
    checkpoint_every: int = 2000
    max_minutes: float | None = None
    threads: int | None = None
    val_windows: int = 512
    best_by: BestBy = "val/action_error_normalised"
    tensorboard: bool = True
    config: Mapping[str, Any] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.run_dir = Path(self.run_dir)
        for name in ("steps", "batch_size", "log_every", "eval_every", "checkpoint_every", "val_windows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        for name, high in (("ema_decay", 1.0), ("lr", float("inf")), ("weight_decay", float("inf"))):
            if not 0.0 <= getattr(self, name) <= high:
                raise ConfigError(f"`{name}` must lie within [0, {high}], got {getattr(self, name)}")
        if not 0 <= self.warmup_steps < self.steps:
            raise ConfigError(f"`warmup_steps` must lie within [0, steps={self.steps}), got {self.warmup_steps}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"`{name}` must be one of {choices}, got {getattr(self, name)!r}")
        wanted = WindowSpec(self.model.n_obs, self.model.horizon, self.model.action_offset)
        for name, data in (("train", self.train), ("val", self.val)):
            if data is not None and data.window != wanted:
                raise ConfigError(f"`{name}` has {data.window}, but the model needs {wanted}")

    def fit(self, resume: Resume = "auto") -> TrainSummary:
        """Train until the steps or the time are used up, or a signal comes.

        Args:
            resume: `auto` continues from the last checkpoint if there is one, `previous` from the one before it,
                `never` refuses a run folder that has one.

        Raises:
            ConfigError: The folder's checkpoint was trained with other settings; the message names them.
            CheckpointError: The checkpoint is incomplete or altered.
            TrainingError: The loss is not finite; the message names the step and the dumped batch.
        """
        with surroundings(self.threads, self.seed) as interrupt, contextlib.closing(TrainRun(self, resume)) as run:
            return run.summarise(run.loop(interrupt))

    def check_folder(self) -> None:
        """Raise where the run folder holds another run, as `fit` would; before anything beside it is written over.

        Raises:
            ConfigError: Its last checkpoint was trained with other settings; the message names them.
            CheckpointError: The checkpoint is incomplete or altered.
        """
        last = CheckpointFolder(Path(self.run_dir) / "checkpoints").find("last")
        if last is not None:
            check_same_config(read_state(last)["config"], self.constants(), where=last)

    def constants(self) -> dict[str, Any]:
        """Return, as plain JSON, everything that must not change when a run is resumed."""
        model = self.model
        weights = sum(p.numel() for p in model.parameters()) if isinstance(model, torch.nn.Module) else 0
        settings = (*(f.name for f in fields(LearnerSettings)), "batch_size", "val_windows", "best_by")
        window = {**asdict(self.train.window), "obs_names": list(self.train.obs_names)}
        data = {"train": self.train} if self.val is None else {"train": self.train, "val": self.val}
        return {
            **{name: getattr(self, name) for name in settings},
            "betas": list(self.betas),
            "model": {"class": type(model).__name__, "parameters": weights, **window},
            "data": {name: {"windows": len(d), "actions_sha256": actions_digest(d)} for name, d in data.items()},
            "config": dict(self.config),
        }
