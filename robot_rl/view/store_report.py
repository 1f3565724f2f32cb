"""The sections of a store's report, from a survey, some pictures, and what `check` found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.data.store import EpisodeStore
from robot_rl.errors import StoreError
from robot_rl.evaluation.report import Block, Facts, Picture, Plot, Section, Table, Text, Tile, Tiles
from robot_rl.view.charts import Span, spreads, timeline
from robot_rl.view.survey import EpisodeFacts, StreamFacts, Survey, sessions

MAX_SESSIONS = 30
MAX_LABELS = 12
_LEVELS = {"fail": 0, "warn": 1, "ok": 2}


def store_sections(
    store: EpisodeStore,
    found: Survey,
    *,
    pictures: Mapping[str, Path] | None = None,
    check: Mapping[str, Any] | None = None,
    max_rows: int = 1000,
) -> list[Section]:
    """Return the report of a store: overview, labels, sessions, pictures, spreads, check, episodes.

    Args:
        store: The store.
        found: What `survey` saw.
        pictures: Camera -> a strip of first and last pictures.
        check: Content of `check.json`, where the store was checked.
        max_rows: Episodes in the table; those with flags come first.
    """
    return [
        Section("Overview", [Tiles(_tiles(found)), Facts(_facts(store, found))]),
        Section("Labels", _labels(found)),
        Section("When it was recorded", _sessions(found)),
        Section("What it looks like", _pictures(pictures or {})),
        Section("Length of episodes", _lengths(found)),
        Section("Values", _values(store, found)),
        *([_check_section(check, store)] if check is not None else []),
        Section("Episodes", _episode_table(found, max_rows)),
    ]


def _tiles(found: Survey) -> list[Tile]:
    outcomes, steps = found.count("outcome"), sum(e.steps for e in found.episodes)
    labelled = outcomes["success"] + outcomes["failure"]
    hours, noted = found.hours, [(e.human, e.steps) for e in found.episodes if e.human is not None]
    share = sum(h * n for h, n in noted) / max(1, sum(n for _, n in noted)) if noted else None
    return [
        Tile("Episodes", f"{len(found.episodes):,}", f"{steps:,} steps"),
        Tile("Recorded time", f"{hours:.2f} h" if hours >= 1 else f"{60 * hours:.1f} min", _size(found.nbytes)),
        Tile(
            "Success",
            f"{100 * outcomes['success'] / labelled:.0f} %" if labelled else "–",
            f"{outcomes['success']} of {labelled} labelled, {outcomes['unknown']} unknown",
        ),
        Tile(
            "Driven by a person", "–" if share is None else f"{100 * share:.0f} %",
            "of the steps" if noted else "nobody noted it",
        ),
        Tile("Flagged", str(sum(bool(e.flags) for e in found.episodes)), "see the table of episodes"),
    ]  # fmt: skip


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes > 1e9 else f"{nbytes / 1e6:.1f} MB"


def _facts(store: EpisodeStore, found: Survey) -> dict[str, Any]:
    spec = store.spec
    facts: dict[str, Any] = {
        "store": store.url,
        "robot": f"{spec.name}, {spec.control_hz:g} Hz, {spec.action.kind} action of {spec.action.size}",
    }
    for name, schema in store.schema.streams.items():
        if name in found.rates:
            rates = np.asarray(found.rates[name])
            low, middle, high = (float(np.percentile(rates, q)) for q in (0, 50, 100))
            rate = f"{middle:.1f} Hz" + (f" ({low:.1f} to {high:.1f})" if high - low > 0.1 else "")
            kind = f"{schema.spec.describe()}" + (f", {schema.codec}" if schema.codec != "raw" else "")
            facts[name] = f"{kind}, {rate} in {len(rates)} episodes"
    return facts


def _labels(found: Survey) -> list[Block]:
    blocks: list[Block] = []
    for what in ("task", "outcome", "source", "operator", "recorder"):
        counts: Counter[str] = found.count(what)
        if set(counts) <= {""}:
            continue
        rows = [(name or "(none)", count, 100.0 * count / len(found.episodes)) for name, count in counts.most_common()]
        more = f", the {MAX_LABELS} most frequent of {len(rows)}" if len(rows) > MAX_LABELS else ""
        title = {"recorder": "recorder's verdict"}.get(what, what)
        blocks.append(Table((f"{title}{more}", "episodes", "%"), rows[:MAX_LABELS]))
    return blocks


def _sessions(found: Survey) -> list[Block]:
    dated = sessions(found.episodes)
    if not dated:
        return [Text("Neither stamps nor ids tell when these episodes were recorded: they were imported or simulated.")]
    shown = dated[-MAX_SESSIONS:]
    rows = []
    for session in shown:
        zero = session[0].start_ns or 0
        spans = [_span(episode, zero) for episode in session]
        rows.append((f"{datetime.fromtimestamp(zero / 1e9, UTC):%Y-%m-%d %H:%M}", spans))
    note = f"The newest {len(shown)} of {len(dated)} sessions." if len(dated) > len(shown) else ""
    undated = sum(e.start_ns is None for e in found.episodes)
    note += f" {undated} episodes have no date." if undated else ""
    caption = f"One row a session (UTC), one block an episode; half an hour without one begins a new session. {note}"
    return [Plot(timeline(rows), caption.strip(), wide=True)]


def _span(episode: EpisodeFacts, zero_ns: int) -> Span:
    start = ((episode.start_ns or 0) - zero_ns) / 60e9
    tip = f"{episode.id}: {episode.outcome}, {episode.seconds:.1f} s"
    return Span(start, start + episode.seconds / 60.0, episode.outcome, tip)


def _pictures(pictures: Mapping[str, Path]) -> list[Block]:
    return [
        Picture(
            path, f"{name}: first picture of an episode above, last below, episodes spread over the store", wide=True
        )
        for name, path in pictures.items()
    ]


def _lengths(found: Survey) -> list[Block]:
    """Return how long episodes are and what they earn, on the same kind of plot as the values."""
    rewards = [e.reward for e in found.episodes if e.reward is not None]
    columns = {"seconds": [e.seconds for e in found.episodes], "steps": [float(e.steps) for e in found.episodes]}
    if len(rewards) == len(found.episodes):
        columns["reward (sum)"] = rewards
    if not found.episodes:
        return []
    table = np.array(list(columns.values())).T
    svg = spreads(list(columns), table.min(axis=0), table.max(axis=0), table, title="episodes")
    return [Plot(svg, f"Of {len(table)} episodes; medians: {_medians(columns)}.", wide=True)]


def _medians(columns: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{name} {np.median(values):.4g}" for name, values in columns.items())


def _values(store: EpisodeStore, found: Survey) -> list[Block]:
    """Return a plot for each low-dimensional stream, the action's first."""
    names = sorted((n for n in store.schema.streams if n in found.streams), key=lambda n: n != "action")
    return [Plot(_spread(n, found.streams[n]), _spread_caption(found.streams[n]), wide=True) for n in names]


def _unit(facts: StreamFacts) -> str:
    return f" [{facts.units[0]}]" if facts.units[0] and len(set(facts.units)) == 1 else ""


def _spread(name: str, facts: StreamFacts) -> Any:
    units = dict(zip(facts.names, facts.units, strict=True)) if len(set(facts.units)) > 1 else {}
    names = [f"{element} [{units[element]}]" if units.get(element) else element for element in facts.names]
    return spreads(names, facts.low, facts.high, facts.rows, title=f"{name}{_unit(facts)}")


def _spread_caption(facts: StreamFacts) -> str:
    rows = sum(len(block) for block in facts.kept)
    kept = f"All {rows:,} samples" if rows == facts.samples else f"{rows:,} of {facts.samples:,} samples, evenly taken"
    return f"{kept}; the ends are the extremes of all of them."


def read_check(path: str | Path) -> dict[str, Any]:
    """Return the content of a `check.json`.

    Raises:
        StoreError: It is damaged.
    """
    try:
        found: dict[str, Any] = json.loads(Path(path).read_text("utf-8"))
    except ValueError as error:
        raise StoreError(f"{path} is not JSON: {error}; run `robot-rl check` again") from error
    if not {"severity", "findings", "episodes", "digest"} <= set(found):
        raise StoreError(f"{path} needs severity, findings, episodes, digest, got {sorted(found)}; run `check` again")
    return found


def _check_section(check: Mapping[str, Any], store: EpisodeStore) -> Section:
    every = [*check["findings"], *(finding for episode in check["episodes"] for finding in episode["findings"])]
    groups: Counter[tuple[str, str]] = Counter((f["check"], f["severity"]) for f in every)
    example = {(f["check"], f["severity"]): f["what"] for f in reversed(every)}
    ordered = sorted(groups, key=lambda key: (_LEVELS.get(key[1], 0), -groups[key]))
    rows = [(name, severity, groups[name, severity], example[name, severity]) for name, severity in ordered]
    blocks: list[Block] = [Text(f"Verdict: {check['severity']}, {len(every)} findings; check.html has each of them.")]
    if check["digest"] != store.digest():
        blocks.append(Text("The store has changed since it was checked."))
    return Section("Check", [*blocks, *([Table(("check", "severity", "findings", "first"), rows)] if rows else [])])


def _episode_table(found: Survey, max_rows: int) -> list[Block]:
    ordered: Sequence[EpisodeFacts] = sorted(found.episodes, key=lambda e: (not e.flags, e.id))
    header = ("episode", "task", "outcome", "source", "seconds", "steps", "reward", "by human [%]", "recorder", "flags")
    rows = [
        (e.id, e.task, e.outcome, e.source, round(e.seconds, 2), e.steps, e.reward,
         None if e.human is None else round(100 * e.human, 1), e.recorder, "; ".join(e.flags))
        for e in ordered[:max_rows]
    ]  # fmt: skip
    left = len(found.episodes) - len(rows)
    caption = f"{len(rows)} episodes, those with flags first" + (f"; {left} more are left out" if left else "")
    return [Table(header, rows, caption=caption, folded=len(rows) > 20)] if rows else []
