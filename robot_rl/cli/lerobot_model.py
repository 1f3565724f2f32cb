"""Checkpoint folders of LeRobot where a command takes a trained policy of ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from robot_rl.cli.config import plain
from robot_rl.cli.model_card import ModelCard
from robot_rl.data.store import EpisodeStore
from robot_rl.specs import RobotSpec

if TYPE_CHECKING:
    from policies.chunk_network import ChunkNetwork
    from policies.torch_policy import TorchPolicy


def is_lerobot(path: str | Path) -> bool:
    """Whether there is a checkpoint folder of LeRobot at `path`."""
    root = Path(path)
    return (root / "config.json").is_file() and (root / "model.safetensors").is_file()


def lerobot_model(path: str, settings: DictConfig) -> tuple[ModelCard, ChunkNetwork]:
    """Return a checkpoint's card and model.

    Args:
        path: The checkpoint's folder.
        settings: The `lerobot` section of the configuration.

    Raises:
        ConfigError: It cannot be opened, or lacks a control rate.
        StoreError: The store that shall tell the robot is not there.
    """
    from policies.lerobot_checkpoint import load_lerobot_policy

    robot = None if settings.store is None else EpisodeStore.open(settings.store).spec
    loaded = load_lerobot_policy(
        path, robot=robot, control_hz=settings.control_hz, names=plain(settings.names), n_steps=settings.n_steps,
        sampler=settings.sampler,
    )  # fmt: skip
    card = ModelCard(
        task="", policy=loaded.recipe, spec=loaded.spec, stats=loaded.stats, n_execute=loaded.n_execute,
        data_digest=f"lerobot-{loaded.digest}",
    )  # fmt: skip
    return card, loaded.model


def lerobot_policy(path: str, robot: RobotSpec) -> TorchPolicy:
    """Return a checkpoint's policy for a robot whose observations are called as its features."""
    from policies.lerobot_checkpoint import load_lerobot_policy
    from policies.torch_policy import TorchPolicy

    loaded = load_lerobot_policy(path, robot=robot)
    return TorchPolicy(loaded.model, loaded.spec, n_execute=loaded.n_execute)


def lerobot_id(path: str | Path) -> str:
    """Return what tells a checkpoint from others."""
    from policies.lerobot_files import read_checkpoint

    return f"lerobot-{read_checkpoint(path).digest[:16]}"
