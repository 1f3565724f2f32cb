"""`robot-rl export`: an episode store as a data set of another format, and what that cannot hold."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from robot_rl.cli.config import plain
from robot_rl.cli.progress import bar
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError

Writer = Callable[..., Mapping[str, str]]
WRITERS = {
    "lerobot": "robot_rl.data.lerobot_export:export_lerobot",
    "robomimic": "robot_rl.data.robomimic_export:export_robomimic",
    "replay_buffer": "robot_rl.data.replay_buffer_io:export_replay_buffer",
}
"""What writes each format: `module:function`, called with (store, path, progress=..., **options)."""


def run(config: DictConfig, console: Console) -> Mapping[str, str]:
    """Export `store` to `target` and return what is lost, field -> why."""
    if config.target is None:
        raise ConfigError(
            "`target` is missing; give the folder or file to write: "
            "robot-rl export store=<folder> target=<path> export.format=lerobot"
        )
    settings = plain(config.export)
    name = _format(settings["format"], config.target)
    write, store = _writer(name), EpisodeStore.open(config.store)
    options = {key: value for key, value in settings.items() if key not in ("format", "options") and value is not None}
    options |= settings["options"]
    known = [p.name for p in inspect.signature(write).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    if unknown := sorted(set(options) - (set(known) - {"progress"})):
        raise ConfigError(f"export to {name} has no option {unknown}; it takes {sorted(set(known) - {'progress'})}")
    with bar(console) as progress:
        bar_id = progress.add_task(f"exporting to {Path(config.target).name}", total=None)

        def show(done: int, total: int) -> None:
            progress.update(bar_id, completed=done, total=total)

        lost = write(store, config.target, progress=show, **options)
    _show(lost, console)
    console.print(f"{len(store)} episodes in {config.target} ({name})")
    return lost


def _format(name: str | None, target: str) -> str:
    if name is None:
        name = "robomimic" if Path(target).suffix in (".hdf5", ".h5") else "replay_buffer"
    if name not in WRITERS:
        raise ConfigError(f"`export.format` must be one of {sorted(WRITERS)}, got {name!r}")
    return name


def _writer(name: str) -> Writer:
    module, function = WRITERS[name].split(":")
    found: Writer = getattr(importlib.import_module(module), function)
    return found


def _show(lost: Mapping[str, str], console: Console) -> None:
    if not lost:
        return
    table = Table("not in the export", "why")
    for field, why in lost.items():
        table.add_row(field, why)
    console.print(table)
