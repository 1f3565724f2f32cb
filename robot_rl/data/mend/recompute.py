"""What can be worked out anew from what is stored. One function each, in `RECOMPUTATIONS`.

Those that change rows make a new episode in place of the old one; those that change a document keep the episode's id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_rl.data import layout
from robot_rl.data.files import to_json
from robot_rl.data.mend.plan import Change, Mend, Plan
from robot_rl.data.reader import checksum
from robot_rl.data.rows import FileBlob, forget_maps
from robot_rl.data.schema import StoreSchema
from robot_rl.data.transaction import episode_json
from robot_rl.errors import ConfigError, SpecError
from robot_rl.values import Recording, Stream

Derive = Callable[[Recording, StoreSchema, Mapping[str, Any]], Stream]


@dataclass(frozen=True, kw_only=True)
class Recomputation:
    """One thing that can be worked out.

    Args:
        stream: The stream that is written.
        derive: (recording, schema, options) -> the stream; SpecError where it cannot be worked out.
        options: Names of the options that it needs, with their meaning.
        text: What it does, in a sentence.
    """

    stream: str
    derive: Derive
    text: str
    options: Mapping[str, str]


def reward_from_outcome(recording: Recording, schema: StoreSchema, options: Mapping[str, Any]) -> Stream:
    """Return 1 at the last command of a success and 0 elsewhere; an unknown outcome has no reward."""
    if recording.meta.outcome == "unknown":
        raise SpecError("its outcome is unknown; relabel it first")
    stamps = recording.streams["action"].stamp_ns
    reward = np.zeros(len(stamps), np.float32)
    reward[-1] = float(recording.meta.outcome == "success")
    return Stream(stamps, reward)


def by_human_from_source(recording: Recording, schema: StoreSchema, options: Mapping[str, Any]) -> Stream:
    """Return true at every command where a person acted, false where a policy or a script did."""
    known = {"human": True, "policy": False, "scripted": False}
    if recording.meta.source not in known:
        raise SpecError(f"its source is {recording.meta.source!r}; only {sorted(known)} say who drove")
    stamps = recording.streams["action"].stamp_ns
    return Stream(stamps, np.full(len(stamps), known[recording.meta.source]))


def action_from_state(recording: Recording, schema: StoreSchema, options: Mapping[str, Any]) -> Stream:
    """Return as command what an observation is `lag` control steps later (the last one at the end)."""
    state, stamps = recording.streams[options["state"]], recording.streams["action"].stamp_ns
    later = stamps + int(options["lag"]) * schema.spec.step_ns
    # Half a step of slack, because the stamps of a grid are rounded to nanoseconds; none where there is a true clock.
    slack = schema.spec.step_ns // 2 if recording.meta.on_grid else 0
    rows = np.maximum(np.searchsorted(state.stamp_ns, later + slack, side="right") - 1, 0)
    return Stream(stamps, np.asarray(state.data[rows], schema.spec.action.dtype))


RECOMPUTATIONS: dict[str, Recomputation] = {
    "reward_from_outcome": Recomputation(
        stream="reward", derive=reward_from_outcome, options={},
        text="reward 1 at the last command of a success, 0 elsewhere",
    ),
    "by_human_from_source": Recomputation(
        stream="by_human", derive=by_human_from_source, options={},
        text="who drove, from who is said to have acted",
    ),
    "action_from_state": Recomputation(
        stream="action", derive=action_from_state,
        options={"state": "observation of the action's shape", "lag": "control steps, 1 or more"},
        text="the command is the state `lag` steps later: for recordings of motion without commands",
    ),
}  # fmt: skip
"""Name -> what it does. `checksums` and `index` are beside them, because they write no stream."""

DOCUMENTS = {
    "checksums": "CRC-32 of every array from the bytes that are there: after arrays were changed on purpose",
    "index": "index.jsonl from the episodes",
}


def plan_recompute(mend: Mend, ids: Sequence[str], what: str, *, state: str | None = None, lag: int = 1) -> Plan:
    """Plan to work something out anew.

    Args:
        mend: The store.
        ids: Episodes.
        what: Name in `RECOMPUTATIONS` or `DOCUMENTS`.
        state: Observation that `action_from_state` takes.
        lag: By how many control steps it looks ahead.

    Raises:
        ConfigError: An unknown name, or an option that does not fit.
    """
    arguments = {"what": what, "episodes": list(ids)}
    if what == "index":
        changes = [Change(episode="", what=f"index lines of {len(mend.store.ids())} episodes")]
        return mend.plan("recompute", changes, arguments=arguments, reindex=True)
    if what == "checksums":
        return _plan_checksums(mend, ids, arguments)
    if what not in RECOMPUTATIONS:
        raise ConfigError(f"`recompute` must be one of {sorted([*RECOMPUTATIONS, *DOCUMENTS])}, got {what!r}")
    known = RECOMPUTATIONS[what]
    options = {"state": state, "lag": lag} if known.options else {}
    if known.options:
        _check_state(mend.store.schema, state, lag)
    changes, skipped = [], {}
    for id in ids:
        try:
            changes.append(_change(mend, id, what, known, options))
        except SpecError as error:
            skipped[id] = str(error)
    return mend.plan("recompute", changes, skipped=skipped, arguments={**arguments, **options})


def _check_state(schema: StoreSchema, state: str | None, lag: int) -> None:
    action = schema.spec.action
    fitting = sorted(name for name, spec in schema.spec.obs.items() if spec.shape == action.shape)
    if state not in fitting:
        raise ConfigError(
            f"`state` must be an observation of the action's shape {action.shape}: {fitting}; got {state!r}"
        )
    if lag < 1:
        raise ConfigError(f"`lag` must be 1 or more control steps, got {lag}")


def _change(mend: Mend, id: str, what: str, known: Recomputation, options: Mapping[str, Any]) -> Change:
    """Return the change of an episode into one with the stream worked out anew.

    Raises:
        SpecError: It cannot be, or the stream is so already.
    """
    old = mend.recording(id)
    new = known.derive(old, mend.store.schema, options)
    before = old.streams.get(known.stream)
    same = before is not None and np.array_equal(before.stamp_ns, new.stamp_ns)
    if before is not None and same and np.array_equal(before.data[:], new.data[:]):
        raise SpecError("it is so already")

    def build() -> list[Recording]:
        recording = mend.recording(id)
        stream = known.derive(recording, mend.store.schema, options)
        return [Recording({**recording.streams, known.stream: stream}, recording.meta)]

    meta = mend.explain(old.meta, "recompute", [id], what=what, **options)
    product = mend.product(mend.new_id(id), meta, [id], build)
    return Change(episode=id, what=f"{known.stream}: {known.text}", out=(id,), products=(product,))


def _plan_checksums(mend: Mend, ids: Sequence[str], arguments: Mapping[str, Any]) -> Plan:
    changes, skipped = [], {}
    for id in ids:
        document = mend.document(id)
        mend.recording(id)  # checks the size of every array
        wrong = [path for path, entry in _arrays(document) if not _refresh(mend, id, path, entry)]
        if not wrong:
            skipped[id] = "every checksum is right"
            continue
        what = f"checksums of {', '.join(wrong)}"
        changes.append(Change(episode=id, what=what, files={episode_json(id): to_json(document)}))
    return mend.plan("recompute", changes, skipped=skipped, arguments=arguments)


def _arrays(document: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{n}/{a}", entry) for n, s in document["streams"].items() for a, entry in s["arrays"].items()]


def _refresh(mend: Mend, id: str, path: str, entry: dict[str, Any]) -> bool:
    """Write an array's true checksum into its entry; return whether it was right."""
    folder = mend.root / layout.EPISODES / id
    forget_maps(folder)
    chunk = folder / path / layout.chunk_name(len(entry["shape"]))
    old = entry["crc32"]
    entry["crc32"] = checksum(FileBlob(chunk, entry["nbytes"]), entry["nbytes"])
    return bool(entry["crc32"] == old)
