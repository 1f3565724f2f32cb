"""Rename and drop streams. The arrays stay as they are on the disk: a new episode folder shares their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from robot_rl.data import layout
from robot_rl.data.files import to_json
from robot_rl.data.mend.episodes import link_streams
from robot_rl.data.mend.plan import Change, Mend, Plan, Product
from robot_rl.data.schema import FORMAT_VERSION, STEP_STREAMS, StoreSchema, meta_from_dict
from robot_rl.errors import ConfigError
from robot_rl.specs import ArraySpec
from robot_rl.values import RecordingMeta


def plan_rename(mend: Mend, names: Mapping[str, str]) -> Plan:
    """Plan to give streams other names, in every episode and in the store's schema.

    Args:
        mend: The store.
        names: Old name -> new name; observations and extra streams.

    Raises:
        ConfigError: No such stream, a name that is taken, or a stream whose name has a meaning.
        SpecError: A name that cannot be a stream's.
    """
    schema = mend.store.schema
    _check_known(schema, names, "rename")
    fixed = sorted(set(names) & set(STEP_STREAMS))
    if fixed or not names:
        raise ConfigError(f"`rename` needs observations or extra streams, got {fixed or 'none'}; {STEP_STREAMS} stay")
    taken = sorted(new for new in names.values() if new in schema.streams or list(names.values()).count(new) > 1)
    if taken:
        raise ConfigError(f"`rename`: {taken} are streams of this store already or twice in the request")
    return _plan(mend, "rename", {name: names.get(name, name) for name in schema.streams}, {"names": dict(names)})


def plan_drop(mend: Mend, names: Sequence[str]) -> Plan:
    """Plan to take streams out of every episode, and out of the store's schema where they are part of it.

    Raises:
        ConfigError: No such stream, or the action, which every episode needs.
    """
    schema = mend.store.schema
    _check_known(schema, names, "drop")
    if "action" in names or not names:
        raise ConfigError(f"`drop` needs streams other than the action, got {list(names)}")
    kept = {name: name for name in schema.streams if name not in names}
    return _plan(mend, "drop", kept, {"fields": list(names)})


def _check_known(schema: StoreSchema, names: Mapping[str, str] | Sequence[str], what: str) -> None:
    unknown = sorted(set(names) - set(schema.streams))
    if unknown:
        raise ConfigError(f"`{what}`: no stream {unknown} in this store, which has {sorted(schema.streams)}")


def _plan(mend: Mend, operation: str, kept: Mapping[str, str], arguments: Mapping[str, Any]) -> Plan:
    """Plan to keep the streams in `kept`, old name -> new name."""
    changes, skipped = [], {}
    for id in mend.store.ids():
        document = mend.document(id)
        streams = {kept[old]: (old, about) for old, about in document["streams"].items() if old in kept}
        if list(streams) == list(document["streams"]):
            skipped[id] = "it has none of these streams"
            continue
        meta = mend.explain(meta_from_dict(document["meta"]), operation, [id], **arguments)
        write = partial(_write, mend.root / layout.EPISODES / id, meta, streams)
        steps = document["streams"]["action"]["arrays"]["stamp_ns"]["shape"][0]
        what = f"{', '.join(document['streams'])} -> {', '.join(streams)}"
        product = Product(id=id, steps=steps, nbytes=0, write=write)
        changes.append(Change(episode=id, what=what, out=(id,), products=(product,)))
    schema = _renamed(mend.store.schema, kept)
    changed = schema.to_dict() != mend.store.schema.to_dict()
    if changed:
        data = to_json({"format_version": FORMAT_VERSION, **schema.to_dict()})
        what = f"streams of the store: {', '.join(schema.streams)}"
        changes.append(Change(episode="", what=what, files={layout.STORE_FILE: data}))
    return mend.plan(operation, changes, skipped=skipped, arguments=arguments, schema=schema if changed else None)


def _write(source: Path, meta: RecordingMeta, streams: Mapping[str, tuple[str, Any]], folder: Path, id: str) -> None:
    link_streams(source, folder / id, meta, streams)


def _renamed(schema: StoreSchema, kept: Mapping[str, str]) -> StoreSchema:
    def specs(old: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
        return {kept[name]: replace(spec, name=kept[name]) for name, spec in old.items() if name in kept}

    codecs = {kept[name]: codec for name, codec in schema.codecs.items() if name in kept}
    spec = replace(schema.spec, obs=specs(schema.spec.obs))
    return StoreSchema(spec=spec, extra=specs(schema.extra), codecs=codecs)
