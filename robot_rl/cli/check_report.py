"""The sections of `check.html`: the verdict, what was found, and how the store is spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robot_rl.data.checks import StoreVerdict
from robot_rl.data.checks.finding import SEVERITIES
from robot_rl.data.checks.view import counted
from robot_rl.evaluation import plots
from robot_rl.evaluation.report import Block, Facts, Plot, Section, Table, Text, Tile, Tiles

MAX_ROWS = 2000
"""Findings in the table; check.json has all."""


def headline(verdict: StoreVerdict) -> str:
    """Return the result in one line."""
    levels = Counter(episode.severity for episode in verdict.episodes)
    each = f"{levels['ok']} ok, {levels['warn']} warn, {levels['fail']} fail"
    return (
        f"{verdict.severity}: {len(verdict.episodes)} episodes, {each}; {len(verdict.findings)} findings on the store"
    )


def check_sections(verdict: StoreVerdict) -> list[Section]:
    """Return the report's sections."""
    return [
        Section("Verdict", [Tiles(_tiles(verdict)), *_store_findings(verdict)]),
        Section("Findings by check", [_by_check(verdict)] if verdict.everything else []),
        Section("Action to state", _lag(verdict.measures.get("lag", {}))),
        Section("How the store is spread", _spread(verdict)),
        Section("Episodes", [_episodes(verdict), _all_findings(verdict)]),
        Section("Thresholds", [Facts({k: v for k, v in verdict.thresholds.items() if v != {}})]),
    ]


def _tiles(verdict: StoreVerdict) -> list[Tile]:
    levels = Counter(episode.severity for episode in verdict.episodes)
    labels, lag = verdict.measures["labels"], verdict.measures.get("lag", {})
    tiles = [
        Tile("Verdict", verdict.severity, f"{len(verdict.everything)} findings"),
        Tile(
            "Episodes", str(len(verdict.episodes)), f"{levels['ok']} ok, {levels['warn']} warn, {levels['fail']} fail"
        ),
        Tile("Recorded", f"{sum(labels['seconds']) / 60:.1f} min", counted(labels["outcome"])),
    ]
    if lag:
        tiles.append(Tile("State follows action by", f"{lag['ms']:.0f} ms", f"{lag['low']} to {lag['high']} frames"))
    return tiles


def _store_findings(verdict: StoreVerdict) -> list[Block]:
    rows = [(f.severity, f.check, f.where, f.what, f.advice) for f in verdict.findings]
    header = ("", "check", "where", "what", "what to do")
    return [Table(header, rows, caption="About the store as a whole")] if rows else [Text("Nothing about the store.")]


def _by_check(verdict: StoreVerdict) -> Table:
    found = verdict.everything
    counts = Counter((f.severity, f.check, f.stream) for f in found)
    episodes = {key: {f.episode for f in found if (f.severity, f.check, f.stream) == key} for key in counts}
    rows = [
        (severity, check, stream, n, len(episodes[severity, check, stream] - {""}))
        for (severity, check, stream), n in sorted(counts.items(), key=lambda i: (-SEVERITIES.index(i[0][0]), -i[1]))
    ]
    return Table(("", "check", "stream", "findings", "episodes"), rows)


def _lag(lag: Mapping[str, Any]) -> list[Block]:
    if not lag:
        return [Text("No state element follows an action element closely enough to measure a lag.")]
    header = ("action", "state", "how", "frames", "ms", "95 % from", "to", "correlation")
    rows = [
        (m["action"], m["state"], m["mode"], m["frames"], m["ms"], m["low"], m["high"], m["correlation"])
        for m in lag["elements"]
    ]
    points = ([m["action"] for m in lag["elements"]], [m["ms"] for m in lag["elements"]])
    plot = Plot(plots.lines({"lag": points}, x_label="action element", y_label="ms"), "Lag of each action element")
    return [plot, Table(header, rows, caption="State elements matched by correlation", folded=len(rows) > 12)]


def _spread(verdict: StoreVerdict) -> list[Block]:
    labels = verdict.measures["labels"]
    blocks: list[Block] = []
    if len(set(labels["seconds"])) > 2:
        blocks.append(_histogram(labels["seconds"], "length of an episode [s]"))
    facts = {name: counted(labels[name]) for name in ("outcome", "task", "source") if labels[name]}
    recorder = Counter(episode.recorder for episode in verdict.episodes if episode.recorder)
    if recorder:
        facts["the recorder said"] = counted(recorder)
    blocks.append(Facts({**facts, "by human": labels["by_human"]}))
    rates, nominal = verdict.measures["rates_hz"], verdict.measures.get("nominal_hz", {})
    rows = [(name, nominal.get(name), r["p5"], r["p50"], r["p95"]) for name, r in rates.items()]
    blocks.append(Table(("stream", "nominal Hz", "p5", "p50", "p95"), rows, caption="True rates by stamps"))
    return [*blocks, *_ends(verdict.measures.get("ends", [])), *_pictures(verdict.measures["pictures"])]


def _histogram(values: Sequence[float], label: str) -> Plot:
    counts, edges = np.histogram(np.asarray(values, np.float64), bins=24)
    return Plot(
        plots.histogram(edges.tolist(), counts.tolist(), x_label=label, marks={"median": float(np.median(values))})
    )


def _ends(ends: Sequence[Mapping[str, Any]]) -> list[Block]:
    rows = [(e["element"], e["low"], e["high"]) for e in ends if max(e["low"], e["high"]) > 0]
    header = ("element", "share at its lower end", "at its upper end")
    return [Table(header, rows, caption="Time spent at the ends of the range", folded=len(rows) > 12)] if rows else []


def _pictures(pictures: Mapping[str, Any]) -> list[Block]:
    names = ("sharpness", "dark", "bright", "mean")
    rows = [
        (camera, m["pictures"], *(m[name][q] for name in names for q in ("p5", "p50")))
        for camera, m in pictures.items()
    ]
    header = ("camera", "pictures", *(f"{name} {q}" for name in names for q in ("p5", "p50")))
    return [Table(header, rows, caption="Pictures looked at")] if rows else []


def _episodes(verdict: StoreVerdict) -> Table:
    rows = [
        (e.id, e.severity, e.recorder or None, e.task, e.outcome, e.steps, round(e.seconds, 2), len(e.findings))
        for e in verdict.episodes
    ]
    header = ("episode", "verdict", "recorder", "task", "outcome", "steps", "s", "findings")
    return Table(header, rows, caption=f"All {len(rows)} episodes", folded=len(rows) > 30)


def _all_findings(verdict: StoreVerdict) -> Table:
    found = sorted((f for f in verdict.everything if f.episode), key=lambda f: -SEVERITIES.index(f.severity))
    rows = [(f.episode, f.severity, f.check, f.where, f.what) for f in found[:MAX_ROWS]]
    more = f" (the first {MAX_ROWS} of {len(found)}; check.json has all)" if len(found) > MAX_ROWS else ""
    return Table(
        ("episode", "", "check", "where", "what"), rows, caption=f"Findings in episodes{more}", folded=len(rows) > 12
    )
