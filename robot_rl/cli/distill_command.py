"""`robot-rl distill`: a one-step head of a trained policy, from the observations of a store. Resumes by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from robot_rl.cli.config import plain
from robot_rl.cli.distill_teacher import Teacher, check_data, open_teacher, remember
from robot_rl.cli.finetune_base import identify
from robot_rl.cli.model_card import ModelCard
from robot_rl.cli.train_command import datasets
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.imitation.checkpoint import load_model_weights
from robot_rl.imitation.summary import TrainSummary
from robot_rl.imitation.trainer import Trainer

if TYPE_CHECKING:
    from policies.one_step import OneStepHead

TRAINING = (
    "steps", "batch_size", "lr", "warmup_steps", "weight_decay", "precision", "compile", "threads", "max_minutes",
    "eval_every", "checkpoint_every",
)  # fmt: skip


def head_card(config: DictConfig, teacher: Teacher, data_digest: str) -> ModelCard:
    """Return the recipe of a head: the configured one, with the teacher's model and, by default, its network in it."""
    node: dict[str, Any] = {**plain(config.head), "model": {**teacher.node, "_partial_": True}}
    if node["denoiser"] is None:
        node["denoiser"] = teacher.node["denoiser"]
    card = teacher.card
    return ModelCard(
        task=card.task, policy=node, spec=card.spec, stats=card.stats, n_execute=card.n_execute, data_digest=data_digest
    )


def new_head(config: DictConfig, teacher: Teacher, card: ModelCard) -> tuple[OneStepHead, bool]:
    """Return a head with its teacher attached, drawn from `seed`, and whether it began with the teacher's weights.

    Raises:
        ConfigError: The card is of no one-step head, or the teacher is not one that it can follow.
    """
    import torch

    from policies.one_step import OneStepHead

    torch.manual_seed(int(config.seed))
    head = card.build_model()
    if not isinstance(head, OneStepHead):
        raise ConfigError(f"`head._target_` must be a one-step head, got {type(head).__name__}")
    return head, head.teach(teacher.model)


def like_the_teacher(config: DictConfig, teacher: Teacher) -> DictConfig:
    """Return the configuration with windows and observations as the teacher's.

    Raises:
        ConfigError: The teacher is of another task.
    """
    if config.task.name != teacher.card.task:
        raise ConfigError(f"{teacher.run} was trained on task `{teacher.card.task}`, got task={config.task.name}")
    window = {"n_obs": teacher.model.n_obs, "horizon": teacher.model.horizon, "obs": list(teacher.card.spec.obs)}
    merged = OmegaConf.merge(config, {"task": window})
    assert isinstance(merged, DictConfig)
    return merged


def run(config: DictConfig, console: Console) -> TrainSummary:
    """Distil `head` from the run `run` into `distill.out`, and compare it with its teacher.

    Raises:
        ConfigError: Teacher and head do not fit, or the folder holds a head of another teacher, recipe or data.
        KeyboardInterrupt: It was told to stop; the same command goes on.
    """
    from robot_rl.cli.distill_report import compare, show

    if config.run == config.distill.out:
        raise ConfigError(f"`distill.out` must be another folder than the teacher's, got {config.run} for both")
    teacher, store = open_teacher(config.run), EpisodeStore.open(config.store)
    check_data(store.spec, teacher.card)
    config = like_the_teacher(config, teacher)
    train, val = datasets(config, store)
    card = head_card(config, teacher, store.digest())
    head, started = new_head(config, teacher, card)
    origin = "its teacher's weights" if started else "fresh weights"
    if config.distill.start is not None:
        load_model_weights(head, Path(config.distill.start) / "checkpoints" / "last")
        head.adopt(teacher.model)
        origin = f"the head {config.distill.start}"
    settings = {name: plain(config.distill[name]) for name in TRAINING}
    recorded = {"policy": card.policy, "data_digest": card.data_digest, "teacher": teacher.id}
    if config.distill.start is not None:
        recorded["start"] = identify(config.distill.start)
    trainer = Trainer(
        head, train, val, run_dir=config.distill.out, seed=config.seed, config=recorded, best_by="val/loss", **settings
    )
    trainer.check_folder()  # before anything in it is written over
    card.save(config.distill.out)
    remember(config.distill.out, teacher)
    console.print(f"{type(head).__name__} of {teacher.run}, K = {teacher.n_steps}, from {origin}; {len(train)} windows")
    summary = trainer.fit(resume="auto")
    if summary.status == "interrupted":
        console.print(f"stopped after {summary.step} of {config.distill.steps} steps")
        raise KeyboardInterrupt
    console.print(f"distilled {summary.step} steps in {summary.seconds / 60:.1f} min into {config.distill.out}")
    show(compare(config, teacher, val, console), console)
    return summary
