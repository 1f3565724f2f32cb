"""Carry out a plan as one transaction, tell what was done, take it back."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from robot_rl import __version__
from robot_rl.data import layout, transaction
from robot_rl.data.backend import LocalBackend
from robot_rl.data.episode_file import check_document
from robot_rl.data.files import from_json, write_new
from robot_rl.data.mend.plan import Plan
from robot_rl.data.reader import read_document
from robot_rl.data.schema import StoreSchema, migrate
from robot_rl.data.staging import staged
from robot_rl.data.store_lock import mending, recorders
from robot_rl.data.transaction import Record, episode_json
from robot_rl.errors import SpecError, StoreError

Progress = Callable[[int, int], None]


def apply_plan(plan: Plan, *, progress: Progress | None = None) -> Record | None:
    """Do what a plan says: all of it, or nothing.

    Args:
        plan: As shown in the preview.
        progress: Called with (episodes written, episodes to write).

    Returns:
        The journal's entry, `None` when there is nothing to do.

    Raises:
        StoreError: The store was changed since the plan was made, somebody else mends it, it is being recorded to
            while its fields change, or the disk is full. The store is as it was.
    """
    if not plan.changes:
        return None
    root = plan.root
    with mending(root):
        transaction.recover(root)
        if plan.number != transaction.next_number(root):
            raise StoreError("another mend of this store came between; make the plan again")
        _check_room(plan)
        place = transaction.workplace(root, plan.number)
        shutil.rmtree(place, ignore_errors=True)  # what a killed mend had begun to stage
        try:
            record = _stage(plan, place, progress)
            transaction.apply(root, record, plan.seen, partial(_check_fields, root, plan.schema, plan.out))
        except BaseException as error:
            if not transaction.abandoned(root, plan.number):
                raise  # the originals lie there: whoever opens the store next puts them back, or `undo` does
            shutil.rmtree(place, ignore_errors=True)
            if isinstance(error, OSError | StoreError):
                why = str(error).partition(";")[0]
                raise StoreError(f"{plan.operation} was not done, the store {root} is as it was: {why}") from error
            raise
        if plan.reindex:
            transaction.reindex(root, LocalBackend(root).episode_ids())
    return record


def _check_room(plan: Plan) -> None:
    free = shutil.disk_usage(plan.root).free
    if plan.nbytes > free:
        raise StoreError(f"{plan.operation} needs {plan.nbytes} bytes, {free} are free; nothing was done, make room")


def _stage(plan: Plan, place: Path, progress: Progress | None) -> Record:
    """Write everything new into the workplace, durable, and return what shall move."""
    after: dict[str, str] = {}
    for name in ("in", "out", "new", "old"):
        (place / name).mkdir(parents=True)
    for done, product in enumerate(plan.products, 1):
        product.write(place / "in", product.id)
        after[episode_json(product.id)] = str(transaction.sha256(place / "in" / product.id / layout.EPISODE_FILE))
        if progress is not None:
            progress(done, len(plan.products))
    for i, (path, data) in enumerate(plan.files.items()):
        write_new(place / "new" / str(i), data)
        write_new(place / "old" / str(i), (plan.root / path).read_bytes())
        after[path] = hashlib.sha256(data).hexdigest()
    os.sync()  # once for all: one fsync a file would take minutes where thousands are relabelled
    return Record(
        number=plan.number, operation=plan.operation, arguments=plan.arguments, when=plan.when, version=__version__,
        out=tuple(plan.out), into=tuple(product.id for product in plan.products), files=tuple(plan.files), after=after,
    )  # fmt: skip


def _check_fields(root: Path, schema: StoreSchema | None, leaving: Collection[str]) -> None:
    """Raise where the store's fields cannot become those of `schema` now; `leaving` are replaced in the same moment.

    Raises:
        StoreError: It is being recorded to, or holds an episode with other fields.
    """
    if schema is None:
        return
    busy = [*recorders(root), *(folder.name for folder in staged(root / layout.STAGING))]
    if busy:
        raise StoreError(f"fields cannot change while {root} is recorded to ({', '.join(busy)}); stop that first")
    backend = LocalBackend(root)
    for id in sorted(set(backend.episode_ids()) - set(leaving)):
        try:
            check_document(read_document(backend, id), schema)
        except SpecError as error:
            raise StoreError(
                f"episode {id} came since and does not have the fields: {error}; nothing was done"
            ) from error


def last(root: Path) -> Record:
    """Return the transaction that `undo` would take back.

    Raises:
        StoreError: There is none.
    """
    records = [record for record in transaction.journal(root) if not record.undone]
    if not records:
        raise StoreError(f"no mend of {root} is left to undo")
    return records[-1]


def undo(root: Path) -> Record:
    """Take back the last transaction that was not undone yet, and return it.

    Raises:
        StoreError: There is none, its originals are gone, or what it made was changed since; nothing has changed.
    """
    with mending(root):
        transaction.recover(root)
        record = last(root)
        schema = _old_schema(root, record)
        transaction.undo(root, record, partial(_check_fields, root, schema, record.into))
    return record


def _old_schema(root: Path, record: Record) -> StoreSchema | None:
    """Return the schema that undoing brings back, `None` where it stays; a lost one is found by the undo itself."""
    if layout.STORE_FILE not in record.files:
        return None
    old = transaction.workplace(root, record.number) / "old" / str(record.files.index(layout.STORE_FILE))
    return StoreSchema.from_dict(migrate(from_json(old.read_bytes(), str(old)), str(old))) if old.exists() else None


def trash_bytes(root: Path) -> int:
    """Return the bytes that `empty_trash` frees; files that an episode shares are not counted."""
    stats = (path.stat() for path in (root / layout.TRASH).rglob("*") if path.is_file())
    return sum(stat.st_size for stat in stats if stat.st_nlink == 1)
