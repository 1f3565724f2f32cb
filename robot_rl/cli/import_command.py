"""`robot-rl import`: a diffusion_policy Zarr replay buffer into an episode store."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from robot_rl.cli.config import build
from robot_rl.cli.progress import bar
from robot_rl.data.replay_buffer_io import import_replay_buffer
from robot_rl.data.replay_layout import ReplayLayout
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError


def run(config: DictConfig, console: Console) -> EpisodeStore:
    """Import `source` into `store` with the task's layout; goes on where it stopped."""
    if config.source is None:
        raise ConfigError("`source` is missing; give the folder of a Zarr replay buffer: robot-rl import source=<zarr>")
    if config.task["import"] is None:
        raise ConfigError(f"task `{config.task.name}` says nothing about how to import; give it an `import` mapping")
    layout: ReplayLayout = build(config.task["import"])
    with bar(console) as progress:
        bar_id = progress.add_task(f"importing {Path(config.source).name}", total=None)

        def show(done: int, total: int) -> None:
            progress.update(bar_id, completed=done, total=total)

        store = import_replay_buffer(config.source, config.store, layout, progress=show)
    console.print(f"{len(store)} episodes in {config.store}")
    return store
