"""Which episodes a mend is about: named ones, those with certain labels or lengths, or those that a check found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from robot_rl.data.episode_file import IndexEntry
from robot_rl.data.files import from_json
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, StoreError

SEVERITIES = ("ok", "warn", "fail")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What an episode must fulfil; all that is given counts, and nothing given is refused.

    Args:
        episodes: Ids; a name that no episode has is an error.
        everything: All episodes.
        outcome: Label.
        task: Label, compared whole.
        source: Who acted.
        shorter_than_s: Recorded for less than this.
        longer_than_s: Recorded for more than this.
        check: A `check.json` of `robot-rl check`: episodes with findings in it.
        checks: Only findings of these checks; empty means any.
        severity: Only findings at least so severe: `warn` or `fail`.
    """

    episodes: Sequence[str] | None = None
    everything: bool = False
    outcome: str | None = None
    task: str | None = None
    source: str | None = None
    shorter_than_s: float | None = None
    longer_than_s: float | None = None
    check: str | Path | None = None
    checks: Sequence[str] = ()
    severity: str = "fail"

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ConfigError(f"`severity` must be one of {SEVERITIES}, got {self.severity!r}")
        if self.checks and self.check is None:
            raise ConfigError("`checks` names checks, but `check` gives no check.json to look them up in")

    @property
    def empty(self) -> bool:
        """Whether nothing was given."""
        given = ("episodes", "outcome", "task", "source", "shorter_than_s", "longer_than_s", "check")
        return not self.everything and all(getattr(self, name) is None for name in given)


def select(store: EpisodeStore, selection: Selection) -> list[str]:
    """Return the ids that a selection means, sorted; named ones in the order they were named.

    Raises:
        ConfigError: Nothing was selected by anything.
        StoreError: A named episode is not there, or the check.json is not of this store.
    """
    if selection.empty:
        names = [field.name for field in fields(selection) if field.name not in ("checks", "severity")]
        raise ConfigError(f"say which episodes: give one of {names}; `everything` means all")
    known = {entry.id: entry for entry in store.entries()}
    ids = list(known) if selection.episodes is None else [str(id) for id in selection.episodes]
    unknown = [id for id in ids if id not in known]
    if unknown:
        raise StoreError(f"there is no episode {unknown[:5]} in {store.url}, which has {len(known)} episodes")
    if len(set(ids)) != len(ids):
        raise StoreError(f"an episode is named twice in {ids}")
    if selection.check is not None:
        found = checked(selection.check, selection.checks, selection.severity)
        ids = [id for id in ids if id in found]
    return [id for id in ids if _fits(known[id], selection)]


def _fits(entry: IndexEntry, selection: Selection) -> bool:
    labels = all(
        wanted is None or getattr(entry, name) == wanted
        for name in ("outcome", "task", "source")
        for wanted in [getattr(selection, name)]
    )
    seconds = entry.duration_ns / 1e9
    short = selection.shorter_than_s is None or seconds < selection.shorter_than_s
    return labels and short and (selection.longer_than_s is None or seconds > selection.longer_than_s)


def checked(path: str | Path, checks: Sequence[str], severity: str) -> set[str]:
    """Return the ids of the episodes that a `check.json` has findings about.

    Raises:
        StoreError: The file is missing or not a check.json.
    """
    try:
        document = from_json(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise StoreError(f"`check`: {path} cannot be read: {error}") from error
    try:
        findings: list[Any] = [*document["findings"], *(f for e in document["episodes"] for f in e["findings"])]
        least = SEVERITIES.index(severity)
        return {
            finding["episode"]
            for finding in findings
            if finding["episode"] and SEVERITIES.index(finding["severity"]) >= least
            and (not checks or finding["check"] in checks)
        }  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is not a check.json of `robot-rl check`: {error!r}") from error
