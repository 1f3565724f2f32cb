"""`robot-rl report`: a store as one HTML page."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from robot_rl.cli.progress import bar
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.evaluation.report import write_report
from robot_rl.view.store_report import read_check, store_sections
from robot_rl.view.survey import Survey, survey
from robot_rl.view.thumbnails import montages


def report_path(store: EpisodeStore, out: str | None) -> Path:
    """Return where the report goes: `out`, else beside the store.

    Raises:
        ConfigError: The store is behind a URL and `out` is not given.
    """
    if out is not None:
        return Path(out)
    if "://" in store.url:
        raise ConfigError(f"`store_report.out` is missing; the store at {store.url} is not on this disk")
    place = Path(store.url)
    return place.with_name(f"{place.name}_report.html")


def run(config: DictConfig, console: Console) -> Path:
    """Write the report of `store`; a `check.json` of it, beside the report or in `check.out`, is taken in."""
    store, wanted = EpisodeStore.open(config.store), config.store_report
    path = report_path(store, None if wanted.out is None else str(wanted.out))
    with bar(console) as progress:
        bar_id = progress.add_task("reading episodes", total=None)
        found = survey(store, lambda done, total: progress.update(bar_id, completed=done, total=total))
    checks = [path.with_name("check.json"), Path(config.check.out) / "check.json"]
    with tempfile.TemporaryDirectory() as folder:
        sections = store_sections(
            store, found, pictures=montages(store, _spread(store.ids(), int(wanted.thumbnails)), folder),
            check=_check_of(store, checks), max_rows=int(wanted.rows),
        )  # fmt: skip
        write_report(path, title=f"Episodes of {store.spec.name}", subtitle=_subtitle(found), sections=sections)
    console.print(f"{len(found.episodes)} episodes: {path}", soft_wrap=True)
    return path


def _check_of(store: EpisodeStore, places: Sequence[Path]) -> dict[str, Any] | None:
    """Return the first verdict on this store."""
    found = (read_check(place) for place in places if place.is_file())
    return next((check for check in found if check.get("store") == store.url), None)


def _spread(ids: Sequence[str], count: int) -> list[str]:
    """Return up to `count` ids, evenly spread."""
    if len(ids) <= count:
        return list(ids)
    return [ids[round(i * (len(ids) - 1) / max(1, count - 1))] for i in range(count)]


def _subtitle(found: Survey) -> str:
    outcomes = ", ".join(f"{count} {name}" for name, count in found.count("outcome").most_common())
    return f"{len(found.episodes)} episodes, {60 * found.hours:.1f} minutes: {outcomes}"
