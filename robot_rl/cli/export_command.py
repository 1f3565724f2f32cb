"""`robot-rl export`: an episode store back into a diffusion_policy Zarr replay buffer."""

from __future__ import annotations

from omegaconf import DictConfig
from rich.console import Console

from robot_rl.data.replay_buffer_io import export_replay_buffer
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError


def run(config: DictConfig, console: Console) -> None:
    """Export `store` to `target`."""
    if config.target is None:
        raise ConfigError("`target` is missing; give the folder to write: robot-rl export target=<zarr>")
    store = EpisodeStore.open(config.store)
    export_replay_buffer(store, config.target)
    console.print(f"{len(store)} episodes in {config.target}")
