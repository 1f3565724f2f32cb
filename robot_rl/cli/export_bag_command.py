"""`robot-rl export-bag`: one episode as MCAP with standard ROS 2 messages."""

from __future__ import annotations

from omegaconf import DictConfig
from rich.console import Console

from robot_rl.data.mcap_io import export_mcap
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError


def run(config: DictConfig, console: Console) -> None:
    """Export `episode` (the newest by default) of `store` to the file `bag`."""
    if config.bag is None:
        raise ConfigError("`bag` is missing; give the MCAP file to write: robot-rl export-bag bag=<file.mcap>")
    store = EpisodeStore.open(config.store)
    ids = store.ids()
    if not ids:
        raise ConfigError(f"the store at {config.store} is empty")
    id = ids[-1] if config.episode is None else str(config.episode)
    topics = export_mcap(store, id, config.bag)
    console.print(f"episode {id} in {config.bag}: {topics}")
