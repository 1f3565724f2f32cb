"""Which bundle of a folder drives: a file beside the bundles that a validation moves forward and a rollback moves back.

Without it the newest bundle that is accepted drives. The file is replaced whole, and each change is a line of
`accepted.jsonl`, so that what drove when, and why, can be read later.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robot_rl.bundle.directory import MANIFEST, PolicyBundle
from robot_rl.errors import BundleError

POINTER, HISTORY = "accepted.json", "accepted.jsonl"


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """Who drives, and who would instead.

    Args:
        bundle: Id of the bundle that drives.
        incumbent: Id of the one to go back to; empty for none.
        bound: Success rate below which it goes back: the incumbent's lower confidence bound.
        reason: Why it was set, in words.
        trial: Id of the trial that it is set for, if it is set for one.
        refused: Ids of bundles that were driven and taken back.
        since: When the bundle was promoted, UTC, ISO 8601; episodes of an earlier promotion are not held against it.
    """

    bundle: str
    incumbent: str = ""
    bound: float = 0.0
    reason: str = ""
    trial: str = ""
    refused: tuple[str, ...] = ()
    since: str = ""

    def __post_init__(self) -> None:
        if not self.bundle or not 0.0 <= self.bound <= 1.0:
            raise BundleError(f"need a bundle's id and a bound in [0, 1], got {self.bundle!r} and {self.bound}")


def read_accepted(folder: str | Path) -> Accepted | None:
    """Return who drives, `None` where nobody has said.

    Raises:
        BundleError: The file is damaged.
    """
    path = Path(folder) / POINTER
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise _damaged(path, error) from error
    return as_accepted(data, path)


def as_accepted(data: Any, path: Path) -> Accepted:
    """Return who drives from a file's plain values.

    Raises:
        BundleError: They are not that; names the file.
    """
    try:
        return Accepted(**{**data, "refused": tuple(data["refused"])})
    except (KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> BundleError:
    keys = [f.name for f in fields(Accepted)]
    return BundleError(f"{path} does not say which bundle drives: {error!r}; it needs {keys}")


def write_accepted(folder: str | Path, accepted: Accepted, *, verify: bool = True) -> None:
    """Say who drives from the next episode on: logged first, then in force at once and whole.

    Args:
        folder: Of the bundles.
        accepted: Who drives.
        verify: Whether the folder must hold them. A bundle is taken back without: the file must not go on naming it
            because the one to go back to is gone, and where the one that is named cannot be loaded, nothing moves.

    Raises:
        BundleError: The folder does not hold a bundle, or it is damaged.
    """
    root = Path(folder)
    for id in {accepted.bundle, accepted.incumbent} - {""} if verify else ():
        find_bundle(root, id)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    with (root / HISTORY).open("a") as file:
        file.write(json.dumps({"date": date, **asdict(accepted)}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part = root / f".{POINTER}.{os.getpid()}"
    with part.open("w") as file:
        file.write(json.dumps(asdict(accepted), indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, root / POINTER)


def find_bundle(folder: str | Path, id: str) -> PolicyBundle:
    """Return the bundle with an id, verified.

    Raises:
        BundleError: None has it, or it is damaged.
    """
    found = []
    for manifest in sorted(Path(folder).glob(f"[!.]*/{MANIFEST}")):
        try:
            found.append(str(json.loads(manifest.read_bytes())["id"]))
        except (ValueError, KeyError, TypeError):
            continue  # another one's damage
        if found[-1] == id:
            return PolicyBundle.open(manifest.parent)
    raise BundleError(f"{folder} holds no bundle {id!r}; it has {found}. Copy it there")
