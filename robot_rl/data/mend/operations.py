"""The operations on whole episodes and on their course: delete, trim, split, merge a store, relabel."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from robot_rl.data.episode_file import missing
from robot_rl.data.files import to_json
from robot_rl.data.mend.cut import cut, moment, part_meta, span
from robot_rl.data.mend.episodes import write_parts
from robot_rl.data.mend.idle import Idle, ranges
from robot_rl.data.mend.plan import Change, Mend, Plan, Product, check_outcome
from robot_rl.data.schema import meta_from_dict, meta_to_dict
from robot_rl.data.store import EpisodeStore
from robot_rl.data.transaction import episode_json
from robot_rl.errors import ConfigError, SpecError, StoreError
from robot_rl.values import Recording


def plan_delete(mend: Mend, ids: Sequence[str]) -> Plan:
    """Plan to move episodes to the trash."""
    changes = []
    for id in ids:
        steps = mend.document(id)["streams"]["action"]["arrays"]["stamp_ns"]["shape"][0]
        changes.append(Change(episode=id, what=f"to the trash ({steps} steps)", out=(id,)))
    return mend.plan("delete", changes, arguments={"episodes": list(ids)})


@dataclass(frozen=True, kw_only=True)
class Trim:
    """What to take off the ends of episodes.

    Args:
        head: How much at the beginning.
        tail: How much at the end.
        unit: `s` or `steps`.
        idle: Take off head and tail in which nothing moves, as far as they are longer than `keep_s`.
        keep_s: How much of an idle end stays, in seconds.
        motion: Share of its range in the store that an element may wander while idle.

    Raises:
        ConfigError: Nothing is to be taken off, or less than nothing, or the unit is unknown.
    """

    head: float = 0
    tail: float = 0
    unit: str = "s"
    idle: bool = False
    keep_s: float = 0.2
    motion: float = 0.02

    def __post_init__(self) -> None:
        if self.head < 0 or self.tail < 0 or self.keep_s < 0:
            raise ConfigError(f"`head`, `tail` and `keep_s` must not be negative, got {self}")
        if self.unit not in ("s", "steps"):
            raise ConfigError(f"`unit` must be `s` or `steps`, got {self.unit!r}")
        if not self.idle and self.head == 0 and self.tail == 0:
            raise ConfigError("say how much to take off: `head` or `tail` in `unit`, or `idle`")
        if self.idle and (self.head or self.tail):
            raise ConfigError("give `idle` or `head` and `tail`, not both")


def plan_trim(mend: Mend, ids: Sequence[str], trim: Trim, *, outcome: str | None = None) -> Plan:
    """Plan to cut off heads and tails; each episode is replaced by what is left of it.

    Args:
        mend: The store.
        ids: Episodes.
        trim: How much.
        outcome: Label of episodes whose end is cut off; `keep` keeps theirs, `None` makes it unknown.
    """
    check_outcome(outcome, keep=True)
    spec, idle = mend.store.spec, None
    if trim.idle:
        idle = ranges((mend.store.read(id) for id in mend.store.ids()), spec)
    changes, skipped = [], {}
    for id in ids:
        recording = mend.recording(id)
        try:
            start, stop = _trim_window(mend, recording, trim, idle)
            if start is None and stop is None:
                skipped[id] = "nothing to take off"
                continue
            changes.append(_replace_by(mend, "trim", id, [(start, stop)], outcome))
        except SpecError as error:
            skipped[id] = str(error)
    return mend.plan("trim", changes, skipped=skipped, arguments={"episodes": list(ids), **vars(trim), "set": outcome})


def _trim_window(mend: Mend, recording: Recording, trim: Trim, idle: Idle | None) -> tuple[int | None, int | None]:
    spec = mend.store.spec
    begin, end = span(recording, spec)
    if idle is not None:
        found = idle.window(recording, spec, motion=trim.motion)
        if found is None:
            raise SpecError("nothing moves in the whole episode: delete it instead")
        keep = round(trim.keep_s * 1e9)
        start, stop = found[0] - keep, found[1] + spec.step_ns + keep
        return (start if start > begin else None), (stop if stop < end else None)
    whole = len(recording.streams["action"]) if trim.unit == "steps" else (end - begin) / 1e9
    kept = whole - trim.tail
    if trim.head >= kept:
        raise SpecError(f"{trim.head:g} + {trim.tail:g} {trim.unit} off {whole:g} {trim.unit} leaves nothing")
    first = moment(recording, spec, trim.head, trim.unit) if trim.head else None
    if not trim.tail:
        return first, None
    return first, moment(recording, spec, kept, trim.unit)


def plan_split(
    mend: Mend, ids: Sequence[str], at: Sequence[float], *, unit: str = "s", outcome: str | None = None
) -> Plan:
    """Plan to split episodes at some moments.

    Args:
        mend: The store.
        ids: Episodes.
        at: Moments after the beginning, growing.
        unit: `s` or `steps`.
        outcome: Label of the parts that end at a cut; `keep` keeps the whole's, `None` makes it unknown.

    Raises:
        ConfigError: No moments, or they do not grow.
    """
    check_outcome(outcome, keep=True)
    if not at or any(b <= a for a, b in itertools.pairwise(at)):
        raise ConfigError(f"`at` must be one or more moments that grow, got {list(at)}")
    changes, skipped = [], {}
    for id in ids:
        recording = mend.recording(id)
        try:
            cuts = [None, *(moment(recording, mend.store.spec, amount, unit) for amount in at), None]
            changes.append(_replace_by(mend, "split", id, list(itertools.pairwise(cuts)), outcome))
        except SpecError as error:
            skipped[id] = str(error)
    return mend.plan(
        "split", changes, skipped=skipped,
        arguments={"episodes": list(ids), "at": list(at), "unit": unit, "set": outcome},
    )  # fmt: skip


def _replace_by(
    mend: Mend, operation: str, id: str, windows: Sequence[tuple[int | None, int | None]], outcome: str | None
) -> Change:
    """Return the change of an episode into the parts in `windows`."""
    recording, spec = mend.recording(id), mend.store.spec
    begin, end = span(recording, spec)
    products = []
    for number, (start, stop) in enumerate(windows, 1):
        meta = part_meta(recording.meta, own_end=stop is None, outcome=outcome)
        meta = mend.explain(meta, operation, [id], start_ns=start, stop_ns=stop, part=number, parts=len(windows))
        new = mend.new_id(id, number if len(windows) > 1 else None)
        build = partial(_build, mend, id, start, stop)
        products.append(mend.product(new, meta, [id], build))
    seconds = " + ".join(f"{((e or end) - (s or begin)) / 1e9:.2f} s" for s, e in windows)
    return Change(episode=id, what=f"{(end - begin) / 1e9:.2f} s -> {seconds}", out=(id,), products=tuple(products))


def _build(mend: Mend, id: str, start: int | None, stop: int | None) -> list[Recording]:
    return [cut(mend.recording(id), mend.store.spec, start, stop)]


def plan_merge(mend: Mend, other: EpisodeStore) -> Plan:
    """Plan to copy the episodes that only `other` has, bytes and labels as they are.

    Raises:
        StoreError: The schemas differ, or an id stands for different data in the two stores.
    """
    if other.schema.to_dict() != mend.store.schema.to_dict():
        raise StoreError(f"{other.url} cannot be merged into {mend.store.url}: their schemas differ")
    added = missing(mend.store.entries(), other.entries(), f"{other.url} and {mend.store.url}")
    entries = {entry.id: entry for entry in other.entries()}

    def write(folder: Path, id: str) -> None:
        other.verify(id)
        recording = other.read(id)
        write_parts(folder, id, mend.store.schema, recording.meta, [recording])

    changes = [
        Change(
            episode=id, what=f"copied ({entries[id].steps} steps)",
            products=(Product(id=id, steps=entries[id].steps, nbytes=entries[id].nbytes, write=write),),
        )
        for id in added
    ]  # fmt: skip
    return mend.plan("merge", changes, arguments={"other": other.url})


def plan_relabel(mend: Mend, ids: Sequence[str], *, outcome: str | None = None, task: str | None = None) -> Plan:
    """Plan to change labels.

    Raises:
        ConfigError: Neither is given, or the outcome is not one.
    """
    check_outcome(outcome)
    given = {key: value for key, value in (("outcome", outcome), ("task", task)) if value is not None}
    if not given:
        raise ConfigError("say which label: `outcome` or `task`")
    changes, skipped = [], {}
    for id in ids:
        document = mend.document(id)
        meta = meta_from_dict(document["meta"])
        old = {key: getattr(meta, key) for key in given}
        if old == given:
            skipped[id] = "it has these labels"
            continue
        meta = mend.explain(meta_from_dict({**meta_to_dict(meta), **given}), "relabel", [id], **given)
        data = to_json({**document, "meta": meta_to_dict(meta)})
        what = ", ".join(f"{key} {old[key]!r} -> {given[key]!r}" for key in given)
        changes.append(Change(episode=id, what=what, files={episode_json(id): data}))
    return mend.plan("relabel", changes, skipped=skipped, arguments={"episodes": list(ids), **given})
