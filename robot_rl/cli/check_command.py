"""`robot-rl check`: a verdict on every episode of a store and on the store, for people and for CI."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robot_rl.cli.check_report import check_sections, headline
from robot_rl.cli.config import build
from robot_rl.cli.progress import bar
from robot_rl.data.checks import CheckSettings, Finding, StoreVerdict, check_store
from robot_rl.data.checks.finding import SEVERITIES, Severity
from robot_rl.data.files import replace_file
from robot_rl.data.store import EpisodeStore
from robot_rl.evaluation.report import write_report

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def run(config: DictConfig, console: Console) -> int:
    """Check `store`, write check.json and check.html, and return the exit status: 0, 1 (strict) or 3."""
    store = EpisodeStore.open(config.store)
    settings = CheckSettings(
        thresholds=build(config.check.thresholds), verify=config.check.verify,
        val_fraction=config.train.val_fraction, seed=config.seed,
    )  # fmt: skip
    with bar(console) as progress:
        task = progress.add_task(f"checking {len(store)} episodes", total=2 * len(store))
        verdict = check_store(store, settings, lambda done, total: progress.update(task, completed=done, total=total))
    show(verdict, console)
    out = Path(config.check.out)
    out.mkdir(parents=True, exist_ok=True)
    document = json.dumps(verdict.to_dict(), indent=1, allow_nan=False)
    replace_file(out / "check.json", document.encode())
    title, sections = f"Check of {verdict.store}", check_sections(verdict)
    report = write_report(out / "check.html", title=title, subtitle=headline(verdict), sections=sections)
    console.print(f"{out / 'check.json'} and {report}", highlight=False)
    return verdict.exit_status(strict=config.check.strict)


def show(verdict: StoreVerdict, console: Console) -> None:
    """Print one line per kind of finding, the worst first, and the headline."""
    groups: dict[tuple[Severity, str], list[Finding]] = defaultdict(list)
    for finding in verdict.everything:
        groups[finding.severity, finding.check].append(finding)
    table = Table("", "check", "episodes", "the first of them", "what to do")
    for (severity, check), found in sorted(groups.items(), key=lambda item: -SEVERITIES.index(item[0][0])):
        first = found[0]
        episodes = len({f.episode for f in found if f.episode})
        where = " ".join(part for part in (first.episode, first.where) if part)
        what = f"{where}: {first.what}" if where else first.what
        count = str(episodes) if episodes else "store"
        # Names and messages may hold brackets, which are no markup.
        table.add_row(Text(severity, COLOURS[severity]), check, count, Text(what), Text(first.advice))
    if groups:
        console.print(table)
    console.print(Text(headline(verdict), COLOURS[verdict.severity]))
