"""The section of a report that shows every decision of an offline gate, and what it was made from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from robot_rl.evaluation import plots
from robot_rl.evaluation.report import Block, Plot, Section, Table, Text, Tile, Tiles

Decision = Mapping[str, Any]


def gate_section(decisions: Sequence[Decision]) -> Section:
    """Return the section.

    Args:
        decisions: Lines of a `gate.jsonl` (`robot_rl.rl.offline.gate.GateDecision.to_dict`), oldest first.
    """
    if not decisions:
        return Section("Gate", [Text("No candidate was judged.")])
    accepted = sum(bool(d["accepted"]) for d in decisions)
    last = decisions[-1]
    kept = last["j_new"] if last["accepted"] else last["j_old"]
    tiles = Tiles([
        Tile("accepted", str(accepted), f"of {len(decisions)} candidates"),
        Tile("rule", str(last["rule"]), f"decided by {last['score']}"),
        Tile("incumbent's score", _text(kept), f"at first {_text(decisions[0]['j_old'])}"),
    ])  # fmt: skip
    return Section("Gate", [tiles, *_plots(decisions), _table(decisions)])


def _plots(decisions: Sequence[Decision]) -> list[Block]:
    x = [float(d["update"]) for d in decisions]

    def series(of: Any) -> plots.Series:
        values = [of(d) for d in decisions]
        return x, [math.nan if v is None else float(v) for v in values]

    scores = {"incumbent": series(lambda d: d["j_old"]), "candidate": series(lambda d: d["j_new"])}
    bound = {
        "mean": series(lambda d: d["difference"]["mean"]), "lower bound": series(lambda d: d["difference"]["low"]),
        "margin": series(lambda d: d["margin"]), "worst member": series(lambda d: d["worst_member"]),
    }  # fmt: skip
    blocks: list[Block] = [
        Plot(plots.lines(scores, x_label="updates", y_label="score"), "Estimated scores; not success rates."),
        Plot(
            plots.lines(bound, x_label="updates", y_label="difference"),
            "Paired differences: accepted where the lower bound reaches the margin and no member sees a loss.",
        ),
    ]
    if names := list(decisions[-1]["support"]):
        shares = {name: series(lambda d, name=name: _share(d["support"].get(name))) for name in names}
        drawn = {name: pair for name, pair in shares.items() if any(math.isfinite(y) for y in pair[1])}
        if drawn:
            blocks.append(
                Plot(
                    plots.lines(drawn, x_label="updates", y_label="share of the limit"),
                    "Support checks; 1 is the limit.",
                )
            )
    return blocks


def _share(check: Mapping[str, Any] | None) -> float | None:
    if check is None or check["value"] is None or not check["limit"]:
        return None
    return float(check["value"]) / float(check["limit"])


def _table(decisions: Sequence[Decision]) -> Table:
    header = ("updates", "accepted", "old", "new", "difference", "lower bound", "margin", "worst member", "failed by")
    rows = [
        (
            d["update"], bool(d["accepted"]), d["j_old"], d["j_new"], d["difference"]["mean"], d["difference"]["low"],
            d["margin"], d["worst_member"], ", ".join(d["reasons"]) or None,
        )
        for d in decisions
    ]  # fmt: skip
    return Table(header, rows, caption="Every decision", folded=len(rows) > 20)


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}"
