"""One look at every row of a LeRobot data set, pictures apart: where each episode lies and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from robot_rl.data.foreign import Findings
from robot_rl.data.lerobot_checks import (
    check_count,
    check_finite,
    check_numbering,
    summarise,
    timestamp_fault,
)
from robot_rl.data.lerobot_info import BOOKKEEPING, Info
from robot_rl.data.lerobot_meta import EpisodeEntry
from robot_rl.data.lerobot_parquet import ParquetFile, shape_of, to_array
from robot_rl.data.lerobot_plan import Plan, Source
from robot_rl.errors import DataFormatError

Kind = tuple[str, tuple[int, ...]]
"""dtype and shape of a row."""


@dataclass(frozen=True, kw_only=True)
class RowSpan:
    """Rows [start, stop) of a parquet file, its path relative to the data set's folder."""

    path: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(kw_only=True)
class Scan:
    """What one look at the rows found.

    Args:
        spans: Where each sound episode lies, by number.
        kinds: What rows of each feature are, by feature and episode.
        tasks: The task indices of each episode, in the order in which they come.
        off_clock: Episodes whose timestamps are not frame / fps.
        done: Whether `next.done` is true in the last row of each episode that has it.
        summaries: `min`, `max`, `mean` of each episode's features.
        changing: Features of text that change within some episode.
    """

    spans: dict[int, RowSpan] = field(default_factory=dict)
    kinds: dict[str, dict[int, Kind]] = field(default_factory=dict)
    tasks: dict[int, list[int]] = field(default_factory=dict)
    off_clock: set[int] = field(default_factory=set)
    done: dict[int, bool] = field(default_factory=dict)
    summaries: dict[int, dict[str, dict[str, np.ndarray]]] = field(default_factory=dict)
    changing: set[str] = field(default_factory=set)

    def kind(self, source: Source) -> Kind:
        """Return what rows of a feature are in most episodes; what info.json says where none could be read."""
        seen = Counter(self.kinds.get(source.feature.name, {}).values())
        return seen.most_common(1)[0][0] if seen else (source.feature.dtype, source.feature.shape)


def scan_rows(root: Path, info: Info, entries: Sequence[EpisodeEntry], plan: Plan, findings: Findings) -> Scan:
    """Return where the rows of each episode lie, and add what is wrong with them to `findings`."""
    scan = Scan()
    files: dict[str, list[EpisodeEntry]] = {}
    for entry in entries:
        files.setdefault(entry.data, []).append(entry)
    for path, inside in files.items():
        try:
            _scan_file(root / path, inside, info=info, plan=plan, scan=scan, findings=findings)
        except DataFormatError as error:
            numbers = [entry.number for entry in inside]
            where = Path(path).parent.as_posix() if info.major == 2 else path
            what = "data files are missing" if "is missing" in str(error) and info.major == 2 else str(error)
            findings.add("episode", where, what, "copy them again, or leave the episodes out", *numbers)
    _same_kind(plan, scan, findings)
    return scan


def _scan_file(
    path: Path, entries: Sequence[EpisodeEntry], *, info: Info, plan: Plan, scan: Scan, findings: Findings
) -> None:
    file = ParquetFile(path)
    try:
        columns = _columns(file, plan, findings, entries)
        texts = file.read([s.feature.name for s in plan.of("text") if s.feature.name in file.columns])
        for entry in entries:
            span = _span(file, entry, columns, alone=info.major == 2)
            if span is None:
                what = f"rows of episode_index {entry.index} are not in one piece of {entry.data}"
                findings.add("episode", "data", what, "convert the data set again", entry.number)
                continue
            rows = {name: values[span.start : span.stop] for name, values in columns.items()}
            own = texts.slice(span.start, len(span))
            scan.changing |= {name for name in own.column_names if len(own.column(name).unique()) > 1}
            _scan_episode(rows, entry, span, info=info, plan=plan, scan=scan, findings=findings)
    finally:
        file.close()


def _columns(
    file: ParquetFile, plan: Plan, findings: Findings, entries: Sequence[EpisodeEntry]
) -> dict[str, np.ndarray]:
    """Return the columns that can be read; episodes of a file that lacks one it needs are noted."""
    numbers = [entry.number for entry in entries]
    needed = {source.feature.name: source.feature for source in plan.numbers}
    held_by_file = [source.feature.name for source in plan.sources if source.feature.dtype in ("string", "image")]
    for name in [*needed, *held_by_file]:
        if name not in file.columns:
            findings.add("episode", "data", f"has no column `{name}`", "leave it out with import.features", *numbers)
    done = [name for name in ("next.done",) if name in file.columns and name not in needed]
    wanted = [name for name in (*BOOKKEEPING, *needed, *done) if name in file.columns]
    table = file.read(wanted)
    columns = {}
    for name in wanted:
        try:
            values = to_array(table.column(name))
        except DataFormatError as error:
            findings.add("episode", "data", f"column `{name}` {error}", "leave it out with import.features", *numbers)
            continue
        columns[name] = (
            shape_of(values, needed[name].shape) if name in needed else values.reshape(len(values), -1)[:, 0]
        )
    return columns


def _span(file: ParquetFile, entry: EpisodeEntry, columns: Mapping[str, np.ndarray], *, alone: bool) -> RowSpan | None:
    if alone:
        return RowSpan(path=entry.data, start=0, stop=file.rows)
    if "episode_index" not in columns:
        return None
    rows = np.flatnonzero(columns["episode_index"] == entry.index)
    if len(rows) == 0 or rows[-1] - rows[0] + 1 != len(rows):
        return None
    return RowSpan(path=entry.data, start=int(rows[0]), stop=int(rows[-1]) + 1)


def _scan_episode(
    rows: Mapping[str, np.ndarray], entry: EpisodeEntry, span: RowSpan, *, info: Info, plan: Plan, scan: Scan,
    findings: Findings,
) -> None:  # fmt: skip
    number = entry.number
    scan.spans[number] = span
    faults = [*check_count(entry, len(span)), *check_numbering(rows, entry)]
    faults += check_finite(rows, {source.feature.name: source.finite for source in plan.numbers})
    if len(span) and "timestamp" in rows:
        fault = timestamp_fault(rows["timestamp"], info.fps)
        if fault is not None:
            faults.append(fault)
            scan.off_clock.add(number)
    for severity, where, what, advice in faults:
        findings.add(severity, where, what, advice, number)
    if not len(span):
        return
    if "task_index" in rows:
        scan.tasks[number] = list(dict.fromkeys(rows["task_index"].astype(int).tolist()))
    if "next.done" in rows:
        scan.done[number] = bool(rows["next.done"].reshape(-1)[-1])
    for source in plan.numbers:
        name = source.feature.name
        if name in rows:
            scan.kinds.setdefault(name, {})[number] = (rows[name].dtype.name, rows[name].shape[1:])
            scan.summaries.setdefault(number, {})[name] = summarise(rows[name])


def _same_kind(plan: Plan, scan: Scan, findings: Findings) -> None:
    """Note where rows are not what info.json says, and episodes that differ from most others."""
    for source in plan.numbers:
        feature, usual = source.feature, scan.kind(source)
        if usual != (feature.dtype, feature.shape):
            findings.add(
                "warning", "meta/info.json",
                f"feature `{feature.name}` must be {feature.dtype}{feature.shape}, the data are {usual[0]}{usual[1]}",
                "it is imported as the data are",
            )  # fmt: skip
        for number, kind in scan.kinds.get(feature.name, {}).items():
            if kind != usual:
                what = (
                    f"column `{feature.name}` must be {usual[0]}{usual[1]} as in other episodes, got {kind[0]}{kind[1]}"
                )
                findings.add("episode", "data", what, "convert these episodes again", number)
