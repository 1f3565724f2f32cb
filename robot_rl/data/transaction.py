"""Changes of many files of a local store that happen together: all of them or none, however the process ends.

Everything new is first written whole under trash/.mend/<n>/. Then, while nobody else may change the store, a note of
what will move is made durable (mend/applying.json), originals and new files change places by renames, and one last
rename makes the note the journal's entry <n>.json. Whoever finds a note whose process is gone puts everything back, so
a transaction killed at any point leaves the old state; putting back needs renames only, also on a full disk.

Undoing is the same way back: the entry becomes the note mend/undoing.json, so an undo cut short is finished later.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robot_rl.data import layout
from robot_rl.data.backend import LocalBackend
from robot_rl.data.files import from_json, fsync_dir, replace_file, to_json
from robot_rl.data.index import LogIndex
from robot_rl.data.rows import forget_maps
from robot_rl.data.store_lock import changing, mending
from robot_rl.errors import StoreError

Guard = Callable[[], None]
APPLYING, UNDOING = "applying.json", "undoing.json"
_ENTRY = re.compile(r"(\d{6})(\.undone)?\.json")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One transaction as the journal keeps it.

    Args:
        number: Its place in the journal; numbers grow and are never used again.
        operation: What was done.
        arguments: With which arguments, plain JSON.
        when: UTC time, ISO 8601.
        version: Version of the program.
        out: Ids of the episodes that left `episodes/`.
        into: Ids of the episodes that came instead.
        files: Paths of files with new content, relative to the store.
        after: Path -> SHA-256 of each new file, and of the episode.json of each episode that came.
        undone: Whether it was taken back.
    """

    number: int
    operation: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    when: str = ""
    version: str = ""
    out: tuple[str, ...] = ()
    into: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    after: Mapping[str, str] = field(default_factory=dict)
    undone: bool = False

    @property
    def touched(self) -> list[str]:
        """Ids of all episodes that it took out, brought in or relabelled."""
        named = [path.split("/")[1] for path in self.files if path.startswith(f"{layout.EPISODES}/")]
        return sorted({*self.out, *self.into, *named})


def episode_json(id: str) -> str:
    """Return the path of an episode's document."""
    return f"{layout.EPISODES}/{id}/{layout.EPISODE_FILE}"


def workplace(root: Path, number: int) -> Path:
    """Return where transaction `number` keeps what is new (`in`, `new`) and what was there (`out`, `old`)."""
    return root / layout.TRASH / ".mend" / f"{number:06d}"


def sha256(path: Path) -> str | None:
    """Return a file's SHA-256, `None` when there is no file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def journal(root: Path) -> list[Record]:
    """Return every transaction, oldest first.

    Raises:
        StoreError: An entry is damaged.
    """
    names = {path.name: match for path in (root / layout.JOURNAL).glob("*.json") if (match := _ENTRY.match(path.name))}
    return [_load(root / layout.JOURNAL / name, undone=bool(names[name][2])) for name in sorted(names)]


def next_number(root: Path) -> int:
    """Return the number of the next transaction."""
    return max((record.number for record in journal(root)), default=0) + 1


def _load(path: Path, *, undone: bool = False) -> Record:
    document = from_json(path.read_bytes(), str(path))
    lists = {key: tuple(document.get(key, ())) for key in ("out", "into", "files")}
    try:
        return Record(**{**document, **lists, "undone": undone})
    except TypeError as error:
        raise StoreError(f"{path} is not an entry of the mend journal: {error}") from error


def apply(root: Path, record: Record, expected: Mapping[str, str], guard: Guard) -> None:
    """Let what is staged in the workplace take its place.

    Args:
        root: The store.
        record: What moves.
        expected: Path -> SHA-256 that a file must have still.
        guard: Called when nobody else can change the store any more; raises where it must not go on.

    Raises:
        StoreError: A file was changed meanwhile, an id is taken, or the disk is full; nothing has changed.
    """
    folder = root / layout.JOURNAL
    folder.mkdir(exist_ok=True)
    note = folder / APPLYING
    with changing(root, alone=True):
        guard()
        _check(root, record, expected)
        document = asdict(record)
        del document["undone"]
        replace_file(note, to_json(document))
        try:
            _exchange(root, record)
            reindex(root, record.touched)
            note.rename(folder / f"{record.number:06d}.json")
        except BaseException:
            if note.exists():
                _put_back(root, record)
                note.unlink()
            raise
        fsync_dir(folder)


def _check(root: Path, record: Record, expected: Mapping[str, str]) -> None:
    for path, digest in expected.items():
        if sha256(root / path) != digest:
            raise StoreError(f"{path} was changed by another process meanwhile; nothing was done, try again")
    taken = [id for id in record.into if id not in record.out and (root / layout.EPISODES / id).exists()]
    if taken:
        raise StoreError(f"episodes {taken[:5]} exist already in {root}; nothing was done, try again")


def _exchange(root: Path, record: Record) -> None:
    place, episodes = workplace(root, record.number), root / layout.EPISODES
    (place / "out").mkdir(parents=True, exist_ok=True)
    for id in record.out:
        (episodes / id).rename(place / "out" / id)
    for id in record.into:
        (place / "in" / id).rename(episodes / id)
    for i, path in enumerate(record.files):
        (place / "new" / str(i)).rename(root / path)
    _settle(root, record)


def _put_back(root: Path, record: Record) -> None:
    """Move everything back. May be called at any point of `_exchange` or of itself, and again."""
    place, episodes = workplace(root, record.number), root / layout.EPISODES
    for i, path in enumerate(record.files):
        old = place / "old" / str(i)
        if old.exists():
            old.rename(root / path)
    (place / "in").mkdir(parents=True, exist_ok=True)
    for id in record.into:
        # What came may only leave while it is not yet back in the workplace: its place may hold the original again.
        if not (place / "in" / id).exists() and (episodes / id).exists():
            (episodes / id).rename(place / "in" / id)
    for id in record.out:
        if (place / "out" / id).exists():
            (place / "out" / id).rename(episodes / id)
    _settle(root, record)
    reindex(root, record.touched)


def _settle(root: Path, record: Record) -> None:
    """Make the renames durable, thousands of them at once, and close the maps of what moved."""
    os.sync()
    for id in record.touched:
        forget_maps(root / layout.EPISODES / id)


def reindex(root: Path, ids: Iterable[str]) -> None:
    """Bring the index up to date with episodes that were moved; where the disk is full, drop it: opening makes it."""
    path = root / layout.INDEX_FILE
    try:
        LogIndex(path, LocalBackend(root), writable=True).reread(ids)
    except (StoreError, OSError):
        path.unlink(missing_ok=True)


def unfinished(root: Path) -> bool:
    """Whether a transaction or an undo is at work or was cut short."""
    return (root / layout.JOURNAL / APPLYING).exists() or (root / layout.JOURNAL / UNDOING).exists()


def abandoned(root: Path, number: int) -> bool:
    """Whether nothing rests on what transaction `number` has staged: it is neither at work nor done."""
    return not unfinished(root) and not (root / layout.JOURNAL / f"{number:06d}.json").exists()


def recover(root: Path) -> bool:
    """Put back what a killed transaction moved, and finish a killed undo; return whether there was one."""
    if not unfinished(root):
        return False
    with changing(root, alone=True):
        return _recover(root)


def _recover(root: Path) -> bool:
    folder = root / layout.JOURNAL
    applying, undoing = folder / APPLYING, folder / UNDOING
    if applying.exists():
        record = _load(applying)
        _put_back(root, record)
        applying.unlink()
    elif undoing.exists():
        record = _load(undoing)
        _put_back(root, record)
        undoing.rename(folder / f"{record.number:06d}.undone.json")
    else:
        return False
    fsync_dir(folder)
    shutil.rmtree(workplace(root, record.number), ignore_errors=True)
    return True


def undo(root: Path, record: Record, guard: Guard) -> None:
    """Take a transaction back; `guard` as in `apply`.

    Raises:
        StoreError: What it took out is gone, or what it brought was changed since; nothing has changed.
    """
    folder = root / layout.JOURNAL
    with changing(root, alone=True):
        guard()
        check_undo(root, record)
        (folder / f"{record.number:06d}.json").rename(folder / UNDOING)
        fsync_dir(folder)
        _recover(root)


def check_undo(root: Path, record: Record) -> None:
    """Raise unless a transaction can be taken back.

    Raises:
        StoreError: Says what hinders it.
    """
    place = workplace(root, record.number)
    what = f"transaction {record.number} ({record.operation}) cannot be undone"
    old = [place / "old" / str(i) for i in range(len(record.files))]
    if not all(path.exists() for path in (*(place / "out" / id for id in record.out), *old)):
        raise StoreError(f"{what}: what it replaced is no longer in the trash, which was emptied")
    for path, digest in record.after.items():
        if sha256(root / path) != digest:
            raise StoreError(f"{what}: {path} was changed or removed after it")
    taken = [id for id in record.out if id not in record.into and (root / layout.EPISODES / id).exists()]
    if taken:
        raise StoreError(f"{what}: episodes {taken[:5]} were added again after it; delete them first")


def empty_trash(root: Path) -> None:
    """Free what was deleted and what transactions took out; they cannot be undone afterwards.

    Raises:
        StoreError: Somebody mends the store now.
    """
    with mending(root):
        recover(root)
        shutil.rmtree(root / layout.TRASH, ignore_errors=True)
