"""`robot-rl import`: a data set of another format into an episode store, with every defect told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from robot_rl.cli.config import build, plain
from robot_rl.cli.progress import bar
from robot_rl.data.foreign import ForeignDataset, ImportReport, import_dataset
from robot_rl.data.formats import Format, find_format
from robot_rl.data.replay_buffer_io import import_replay_buffer
from robot_rl.data.replay_layout import ReplayLayout
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError

REPORT = "import_report.json"
_OURS = ("format", "skip_broken", "limit", "options")
"""Keys of `import` that the command itself reads; the others go to the format's reader where they are not null."""


def run(config: DictConfig, console: Console) -> EpisodeStore:
    """Import `source` into `store`; goes on where it stopped."""
    if config.source is None:
        raise ConfigError(
            "`source` is missing; give the folder or file of a data set: robot-rl import source=<path> store=<folder>"
        )
    settings = plain(config["import"])
    format = find_format(config.source, settings["format"])
    if format.name == "replay_buffer" and config.task["import"] is not None:
        return _import_buffer(config, settings, console)
    dataset = format.open(config.source, **_options(format, settings))
    _show_defects(dataset, console)
    with bar(console) as progress:
        bar_id = progress.add_task(f"importing {Path(config.source).name}", total=None)

        def show(done: int, total: int) -> None:
            progress.update(bar_id, completed=done, total=total)

        report = import_dataset(
            dataset, config.store, source=config.source, keep_sound=settings["skip_broken"],
            limit=settings["limit"], progress=show,
        )  # fmt: skip
    _finish(report, config.store, console)
    return EpisodeStore.open(config.store)


def _options(format: Format, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the format's reader is given.

    Raises:
        ConfigError: A setting that this format does not have.
    """
    asked = {key: value for key, value in settings.items() if key not in _OURS and value is not None}
    return {**asked, **(settings["options"] or {})}


def _import_buffer(config: DictConfig, settings: dict[str, Any], console: Console) -> EpisodeStore:
    """Import a replay buffer exactly, by the layout that the task gives."""
    layout: ReplayLayout = build(config.task["import"])
    with bar(console) as progress:
        bar_id = progress.add_task(f"importing {Path(config.source).name}", total=None)

        def show(done: int, total: int) -> None:
            progress.update(bar_id, completed=done, total=total)

        store = import_replay_buffer(config.source, config.store, layout, limit=settings["limit"], progress=show)
    console.print(f"{len(store)} episodes in {config.store}")
    return store


def _show_defects(dataset: ForeignDataset, console: Console) -> None:
    console.print(f"{dataset.format}: {len(dataset)} episodes, streams {list(dataset.schema.streams)}")
    if not dataset.defects:
        console.print("no defect found")
        return
    table = Table("severity", "where", "episodes", "what", "what to do", title=f"{len(dataset.defects)} defects")
    for defect in dataset.defects:
        some = ", ".join(map(str, defect.episodes[:5])) + (" ..." if len(defect.episodes) > 5 else "")
        count = f"{len(defect.episodes)}: {some}" if defect.episodes else ""
        table.add_row(defect.severity, defect.where, count, defect.what, defect.advice)
    console.print(table, markup=False)


def _finish(report: ImportReport, store: str, console: Console) -> None:
    """Tell what was done, and write it beside a store on this disk."""
    if report.lost:
        table = Table("field", "what is not in the store", title="not imported")
        for name, why in report.lost.items():
            table.add_row(name, why)
        console.print(table, markup=False)
    console.print(f"{report.imported} of {report.episodes} episodes in {store}, {len(report.skipped)} left out")
    if Path(store).is_dir():
        path = Path(store) / REPORT
        path.write_text(json.dumps(report.to_dict(), indent=1) + "\n")
        console.print(f"report: {path}")
