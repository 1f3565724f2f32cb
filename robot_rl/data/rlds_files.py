"""The files of a TFDS data set: which shards there should be, and where each episode's record lies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robot_rl.data.foreign import Defect, Severity
from robot_rl.data.tfrecord import Record, scan
from robot_rl.errors import DataFormatError

_SHARD = re.compile(r"(?P<stem>.+)\.tfrecord(?:-(?P<number>\d+)-of-(?P<of>\d+))?$")
Look = Callable[[int, bytes], None]
"""Called with an episode's number and its record's bytes."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an episode's record lies."""

    split: str
    path: Path
    record: Record


@dataclass(kw_only=True)
class RldsFiles:
    """The shards of a data set in order.

    Args:
        root: Its folder.
        name: Its name, where dataset_info.json or the files say one.
        shards: (split, file, number of episodes or `None` where nothing says) of each shard, also of those missing.
        places: Where each episode lies, `None` where its record is missing; filled by `scan_all`.
        defects: What was found.
    """

    root: Path
    name: str
    shards: list[tuple[str, Path, int | None]]
    places: list[Place | None] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)

    def add(self, severity: Severity, where: str, what: str, advice: str, episodes: Sequence[int] = ()) -> None:
        """Add a defect."""
        defect = Defect(where=where, what=what, advice=advice, severity=severity, episodes=tuple(episodes))
        self.defects.append(defect)

    def scan_all(self, look: Look) -> None:
        """Read every shard once, check its checksums, note where the episodes lie and show each to `look`."""
        for split, path, wanted in self.shards:
            first = len(self.places)
            if path.is_file():
                self._scan(split, path, look)
            elif wanted is None:
                self.add("episode", path.name, "the file is missing", "copy it again; its episodes are not counted")
            got = len(self.places) - first
            if wanted is None or got == wanted:
                continue
            if got < wanted:
                absent = list(range(len(self.places), len(self.places) + wanted - got))
                self.places += [None] * len(absent)
                what = "the file is missing" if not path.is_file() else f"has {got} episodes of {wanted}"
                self.add("episode", path.name, what, "copy it again", absent)
            else:
                what = f"has {got} episodes, dataset_info.json says {wanted}"
                self.add("warning", path.name, what, "the file was believed")

    def _scan(self, split: str, path: Path, look: Look) -> None:
        try:
            for record, data in scan(path):
                if record.problem and not data:
                    what = f"{record.problem}; nothing behind it can be read"
                    self.add("episode", path.name, what, "copy it again", [len(self.places)])
                    self.places.append(None)
                    return
                self.places.append(Place(split=split, path=path, record=record))
                number = len(self.places) - 1
                if record.problem:
                    self.add("episode", path.name, record.problem, "copy it again", [number])
                else:
                    look(number, data)
        except DataFormatError as error:
            self.add("episode", path.name, str(error), "copy it again")


def find_files(path: Path) -> RldsFiles:
    """Return the shards of a data set, from its folder or one of its files.

    Raises:
        DataFormatError: There is no TFRecord file.
    """
    root = path.parent if path.is_file() else path
    names = [path.name] if path.is_file() else sorted(child.name for child in root.iterdir())
    matches = [match for name in names if (match := _SHARD.match(name))]
    info, problem = _read_info(root / "dataset_info.json")
    splits = {str(split.get("name")): split for split in info.get("splits", [])}
    name = str(info.get("name", ""))
    if not matches and not splits:
        raise DataFormatError(f"{root} has no *.tfrecord file; give the folder with features.json and the shards")
    groups: dict[str, int | None] = {}
    for match in matches:
        of = int(match["of"]) if match["of"] else None
        groups[match["stem"]] = max(filter(None, (groups.get(match["stem"]), of)), default=None)
    for split, about in splits.items() if path.is_dir() else ():
        groups.setdefault(f"{name}-{split}", len(about.get("shardLengths", [])) or None)
    shards: list[tuple[str, Path, int | None]] = []
    for stem, of in sorted(groups.items(), key=lambda item: (not item[0].endswith("train"), item[0])):
        split = stem.removeprefix(f"{name}-") if name else stem.rsplit("-", 1)[-1]
        lengths = [int(n) for n in splits.get(split, {}).get("shardLengths", [])]
        files = [path] if path.is_file() else _shard_paths(root, stem, of)
        known = lengths if len(lengths) == len(files) else [None] * len(files)
        shards += [(split, file, n) for file, n in zip(files, known, strict=True)]
    found = RldsFiles(root=root, name=name or (matches[0]["stem"].rsplit("-", 1)[0] if matches else ""), shards=shards)
    if problem:
        found.add("warning", "dataset_info.json", problem, "the episodes were counted in the files")
    return found


def _shard_paths(root: Path, stem: str, of: int | None) -> list[Path]:
    if of is None:
        return [root / f"{stem}.tfrecord"]
    return [root / f"{stem}.tfrecord-{i:05d}-of-{of:05d}" for i in range(of)]


def _read_info(path: Path) -> tuple[Mapping[str, Any], str]:
    """Return dataset_info.json and why it is of no use, if so."""
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(info, dict) or not all(isinstance(split, dict) for split in info.get("splits", [])):
            return {}, "is not what TFDS writes"
        return info, ""
    except FileNotFoundError:
        return {}, "is missing"
    except (OSError, ValueError) as error:
        return {}, f"cannot be read: {error}"
