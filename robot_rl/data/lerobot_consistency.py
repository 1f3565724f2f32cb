"""Whether the meta data of a LeRobot data set agree with its rows: totals, tasks, files nobody lists, statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.data.foreign import Findings
from robot_rl.data.lerobot_checks import stale_statistics
from robot_rl.data.lerobot_info import Info
from robot_rl.data.lerobot_meta import EpisodeEntry
from robot_rl.data.lerobot_scan import Scan

_INFO = "meta/info.json"


def check_totals(root: Path, info: Info, entries: Sequence[EpisodeEntry], scan: Scan, findings: Findings) -> None:
    """Note where info.json counts other than there is, and data files that no episode lists."""
    rows = sum(len(span) for span in scan.spans.values())
    listed = len(entries)
    # Rows that could not be read are counted as listed, so that one fault is not told twice.
    rows += sum(entry.length or 0 for entry in entries if entry.number not in scan.spans)
    for key, there in (("total_episodes", listed), ("total_frames", rows)):
        said = info.raw.get(key)
        if said != there:
            what = f"{key} is {said!r}, there are {there}"
            findings.add("warning", _INFO, what, "what is there is taken; the other way round, files are missing")
    if info.major == 2:
        known = {entry.data for entry in entries}
        found = [path.relative_to(root).as_posix() for path in sorted(root.glob("data/**/episode_*.parquet"))]
        if unlisted := [path for path in found if path not in known]:
            what = f"{len(unlisted)} data files belong to no episode, the first is {unlisted[0]}"
            findings.add("warning", "meta/episodes.jsonl", what, "add their lines, or delete them")


def check_tasks(tasks: Mapping[int, str], entries: Sequence[EpisodeEntry], scan: Scan, findings: Findings) -> None:
    """Note tasks that rows name and nobody describes."""
    for entry in entries:
        unknown = sorted(set(scan.tasks.get(entry.number, ())) - set(tasks))
        if unknown and not entry.tasks:
            what = f"task_index {unknown} has no words"
            findings.add("warning", "meta/tasks", what, "the episode has no task; add the line", entry.number)


def check_statistics(root: Path, entries: Sequence[EpisodeEntry], scan: Scan, findings: Findings) -> None:
    """Note statistics, per episode or of the whole, that are not those of the rows."""
    advice = "nothing here uses them; write them again before other programs normalise by them"
    for entry in entries:
        for feature, found in scan.summaries.get(entry.number, {}).items():
            if stale := stale_statistics(found, entry.stats.get(feature)):
                what = f"statistics of `{feature}` are not those of its rows ({', '.join(stale)})"
                findings.add("warning", "episode statistics", what, advice, entry.number)
    path = root / "meta" / "stats.json"
    if not path.exists() or len(scan.spans) < len(entries):
        return
    try:
        said: Any = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        findings.add("warning", "meta/stats.json", f"is not JSON: {error}", advice)
        return
    for feature, found in _whole(scan).items():
        if stale := stale_statistics(found, said.get(feature) if isinstance(said, dict) else None):
            what = f"statistics of `{feature}` are not those of its rows ({', '.join(stale)})"
            findings.add("warning", "meta/stats.json", what, advice)


def _whole(scan: Scan) -> dict[str, dict[str, np.ndarray]]:
    """Return the statistics of all rows of each feature that is alike in all episodes."""
    whole = {}
    for feature in {name for summary in scan.summaries.values() for name in summary}:
        parts = [(len(scan.spans[i]), s[feature]) for i, s in scan.summaries.items() if feature in s]
        if len({part["min"].shape for _, part in parts}) != 1:
            continue
        rows = np.array([n for n, _ in parts], np.float64)
        whole[feature] = {
            "min": np.min([part["min"] for _, part in parts], axis=0),
            "max": np.max([part["max"] for _, part in parts], axis=0),
            "mean": np.average([part["mean"] for _, part in parts], axis=0, weights=rows),
        }
    return whole
