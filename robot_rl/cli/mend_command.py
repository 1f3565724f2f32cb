"""`robot-rl mend <operation> [key=value ...]`: shows what an edit of a store would change, and does it when told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from robot_rl.cli.config import load_config, plain, to_yaml
from robot_rl.cli.progress import bar
from robot_rl.data.mend import fields, join, operations, recompute
from robot_rl.data.mend.apply import apply_plan, trash_bytes, undo
from robot_rl.data.mend.plan import Mend, Plan
from robot_rl.data.mend.selection import Selection, select
from robot_rl.data.store import EpisodeStore
from robot_rl.data.transaction import Record, journal
from robot_rl.errors import ConfigError

Planner = Callable[[Mend, DictConfig], Plan]


def _ids(mend: Mend, settings: DictConfig) -> list[str]:
    return select(mend.store, Selection(episodes=plain(settings.episodes), **plain(settings.where)))


def _delete(mend: Mend, settings: DictConfig) -> Plan:
    return operations.plan_delete(mend, _ids(mend, settings))


def _trim(mend: Mend, settings: DictConfig) -> Plan:
    trim = operations.Trim(**plain(settings.trim))
    return operations.plan_trim(mend, _ids(mend, settings), trim, outcome=settings.set.outcome)


def _split(mend: Mend, settings: DictConfig) -> Plan:
    at = [float(moment) for moment in settings.split.at]
    ids = _ids(mend, settings)
    return operations.plan_split(mend, ids, at, unit=settings.split.unit, outcome=settings.set.outcome)


def _join(mend: Mend, settings: DictConfig) -> Plan:
    return join.plan_join(mend, _ids(mend, settings), outcome=settings.set.outcome, **plain(settings.join))


def _merge(mend: Mend, settings: DictConfig) -> Plan:
    if settings.other is None:
        raise ConfigError("`mend.other` is missing; give the store whose episodes are to be copied")
    return operations.plan_merge(mend, EpisodeStore.open(settings.other))


def _relabel(mend: Mend, settings: DictConfig) -> Plan:
    return operations.plan_relabel(mend, _ids(mend, settings), **plain(settings.set))


def _rename(mend: Mend, settings: DictConfig) -> Plan:
    return fields.plan_rename(mend, {} if settings.names is None else plain(settings.names))


def _drop(mend: Mend, settings: DictConfig) -> Plan:
    return fields.plan_drop(mend, plain(settings.fields))


def _recompute(mend: Mend, settings: DictConfig) -> Plan:
    options = plain(settings.recompute)
    known = {name: about.text for name, about in recompute.RECOMPUTATIONS.items()} | recompute.DOCUMENTS
    if options["what"] not in known:
        listed = "; ".join(f"{name} ({text})" for name, text in known.items())
        raise ConfigError(f"`mend.recompute.what` must be one of: {listed}; got {options['what']!r}")
    ids = [] if options["what"] == "index" else _ids(mend, settings)
    return recompute.plan_recompute(mend, ids, **options)


OPERATIONS: Mapping[str, tuple[Planner, str]] = {
    "delete": (_delete, "episodes to the trash"),
    "trim": (_trim, "cut off heads and tails: mend.trim.head=, tail=, unit=s|steps, or mend.trim.idle=true"),
    "split": (_split, "at moments: mend.split.at=[1.5,3.0]"),
    "join": (_join, "episodes of one attempt become one: mend.episodes=[first,second]"),
    "merge": (_merge, "copy the episodes of another store: mend.other="),
    "relabel": (_relabel, "mend.set.outcome= mend.set.task="),
    "rename": (_rename, "streams: mend.names={old: new}"),
    "drop": (_drop, "streams: mend.fields=[name]"),
    "recompute": (_recompute, "mend.recompute.what=" + "|".join([*recompute.RECOMPUTATIONS, *recompute.DOCUMENTS])),
}
"""Name to (how it is planned, what it does)."""


OTHERS = {"undo": "take the last one back", "log": "what was done", "empty-trash": "free what was taken out"}


def run(arguments: Sequence[str], console: Console) -> Record | None:
    """Run `robot-rl mend` with what follows it, and return the journal's entry of what was done or taken back.

    Raises:
        ConfigError: No or an unknown operation, or an unknown key.
        RobotRLError: Whatever the operation refuses; the store is as it was.
    """
    if not arguments or arguments[0] not in {*OPERATIONS, *OTHERS}:
        known = {name: text for name, (_, text) in OPERATIONS.items()} | OTHERS
        listed = "; ".join(f"{name} ({text})" for name, text in known.items())
        got = f"`{arguments[0]}`" if arguments else "nothing"
        raise ConfigError(f"robot-rl mend needs one of: {listed}; got {got}")
    operation, overrides = arguments[0], list(arguments[1:])
    config = load_config([item for item in overrides if item != "--cfg"])
    if "--cfg" in overrides:
        console.print(to_yaml(config), markup=False, highlight=False)
        return None
    mend = Mend(EpisodeStore.open(config.store))
    if operation == "undo":
        return _undo(mend, console)
    if operation == "log":
        return _log(mend, console)
    if operation == "empty-trash":
        _empty_trash(mend, console, apply=config.mend.apply)
        return None
    plan = OPERATIONS[operation][0](mend, config.mend)
    show(plan, console, rows=config.mend.rows)
    if plan.changes and config.mend.apply:
        return _apply(plan, console)
    told = "nothing was changed; mend.apply=true does it" if plan.changes else "nothing to change"
    console.print(told, markup=False)
    return None


def _apply(plan: Plan, console: Console) -> Record | None:
    with bar(console) as progress:
        task = progress.add_task(plan.operation, total=len(plan.products))
        record = apply_plan(plan, progress=lambda done, total: progress.update(task, completed=done))
    undo_command = f"robot-rl mend undo store={plan.root}"
    console.print(f"done as transaction {plan.number}; `{undo_command}` takes it back", markup=False)
    return record


def show(plan: Plan, console: Console, *, rows: int) -> None:
    """Print what a plan would change: a line an episode, then counts and disk space."""
    table = Table(
        "episode", "what happens", "becomes", title=f"mend {plan.operation}: {plan.root}", title_justify="left"
    )
    for change in plan.changes[:rows]:
        table.add_row(change.episode, change.what, "\n".join(product.id for product in change.products))
    if len(plan.changes) > rows:
        table.add_row("...", f"and {len(plan.changes) - rows} more", "")
    console.print(table)
    for id, why in list(plan.skipped.items())[:rows]:
        console.print(f"{id} stays: {why}", markup=False)
    console.print(
        f"{len(plan.changes)} changes, {len(plan.skipped)} left as they are; {len(plan.out)} episodes out, "
        f"{len(plan.products)} in; {plan.nbytes / 1e6:.1f} MB needed",
        markup=False,
    )


def _undo(mend: Mend, console: Console) -> Record:
    record = undo(mend.root)
    console.print(f"transaction {record.number} ({record.operation} of {record.when}) was taken back", markup=False)
    return record


def _log(mend: Mend, console: Console) -> Record | None:
    records = journal(mend.root)
    table = Table("number", "when", "operation", "out", "in", "documents", "state", title=f"mends of {mend.root}")
    for record in records:
        counts = (str(len(record.out)), str(len(record.into)), str(len(record.files)))
        table.add_row(
            str(record.number), record.when, record.operation, *counts, "undone" if record.undone else "applied"
        )
    console.print(table)
    return records[-1] if records else None


def _empty_trash(mend: Mend, console: Console, *, apply: bool) -> None:
    nbytes = trash_bytes(mend.root)
    console.print(f"{nbytes / 1e6:.1f} MB in the trash of {mend.root}; what is freed cannot be undone", markup=False)
    if apply:
        mend.store.empty_trash()
        console.print("freed")
    else:
        console.print("nothing was changed; mend.apply=true does it", markup=False)
