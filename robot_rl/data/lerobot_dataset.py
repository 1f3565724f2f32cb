"""LeRobot data sets (codebase v2.0, v2.1 and v3.0: parquet with mp4 or PNG) as recordings, without importing lerobot.

An episode is on the control grid: row i has stamp i / fps, as LeRobot itself writes timestamps from the frame's number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.data.foreign import Defect, Findings, ForeignDataset, refuse
from robot_rl.data.lerobot_cameras import Pictures, look_at_pictures
from robot_rl.data.lerobot_consistency import check_statistics, check_tasks, check_totals
from robot_rl.data.lerobot_info import Info, read_info
from robot_rl.data.lerobot_meta import EpisodeEntry, read_episodes, read_tasks
from robot_rl.data.lerobot_parquet import ParquetFile, shape_of, to_array
from robot_rl.data.lerobot_plan import Plan, make_plan
from robot_rl.data.lerobot_restore import restored
from robot_rl.data.lerobot_scan import RowSpan, Scan, scan_rows
from robot_rl.data.lerobot_schema import make_schema
from robot_rl.data.schema import StoreSchema
from robot_rl.errors import ConfigError, DataFormatError
from robot_rl.specs import ACTION_KINDS
from robot_rl.values import Outcome, Recording, RecordingMeta, Stream

_INSTRUCTIONS = ("task", "language_instruction", "annotation.human.action.task_description", "instruction")
"""Columns of text that say what was attempted, where no task does."""


def open_lerobot(
    path: str | Path,
    *,
    features: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    action: Sequence[str] | None = None,
    action_kind: str = "joint_position",
    videos: bool = True,
    codec: str | None = None,
    fps: float | None = None,
    task: str = "",
    threads: int = 1,
) -> ForeignDataset:
    """Open a LeRobot data set and look at every row of it and every video's header.

    One that was exported from a store comes back as that store, if no option asks for anything else.

    Args:
        path: Its folder, the one that holds meta/.
        features: Take only these, and the action.
        rename: Feature -> name of its stream.
        action: Features that, joined, are the action; by default `action`.
        action_kind: What the action commands, which LeRobot does not say.
        videos: Take cameras too.
        codec: `jpeg` or `png` for all cameras; by default pictures stay as they are and videos become JPEG.
        fps: Rate in hertz, where that of info.json is wrong.
        task: What was attempted, in words, where the data set does not say.
        threads: Threads that decode one video.

    Raises:
        ConfigError: An option names what is not there.
        DataFormatError: Nothing can be imported; lists every defect.
        MissingExtraError: pyarrow is not installed.
    """
    root, findings = Path(path), Findings()
    if action_kind not in ACTION_KINDS:
        raise ConfigError(f"`import.action_kind` must be one of {ACTION_KINDS}, got {action_kind!r}")
    if codec not in (None, "jpeg", "png"):
        raise ConfigError(f"`import.codec` must be jpeg or png, or null for what fits the source, got {codec!r}")
    info = read_info(root, findings, fps=fps)
    if info is None:
        raise refuse(path, findings.defects)
    plan = make_plan(info, findings, features=features, rename=rename, action=action, videos=videos)
    entries, tasks = read_episodes(root, info, findings), read_tasks(root, info, findings)
    if not entries:
        findings.add("fatal", "meta/episodes", "lists no episode", "copy the data set again")
    if findings.fatal:
        raise refuse(path, findings.defects)
    scan = scan_rows(root, info, entries, plan, findings)
    check_totals(root, info, entries, scan, findings)
    check_tasks(tasks, entries, scan, findings)
    check_statistics(root, entries, scan, findings)
    pictures = look_at_pictures(root, info, entries, plan, scan, findings, codec=codec, threads=threads)
    schema, lost = make_schema(info, plan, scan, pictures, findings, action_kind=action_kind)
    if findings.fatal or schema is None:
        raise refuse(path, findings.defects)
    dataset = LeRobotDataset(
        root, info=info, plan=plan, entries=entries, tasks=tasks, scan=scan, pictures=pictures, schema=schema,
        lost=lost, defects=findings.defects, task=task,
    )  # fmt: skip
    asked = features is not None or rename or action is not None or not videos or codec is not None or fps is not None
    return dataset if asked else restored(dataset, root)


class LeRobotDataset:
    """An opened LeRobot data set; `open_lerobot` makes it."""

    def __init__(
        self, root: Path, *, info: Info, plan: Plan, entries: Sequence[EpisodeEntry], tasks: Mapping[int, str],
        scan: Scan, pictures: Pictures, schema: StoreSchema, lost: Mapping[str, str], defects: Sequence[Defect],
        task: str = "",
    ) -> None:  # fmt: skip
        self.format = f"lerobot {info.version}"
        self.schema = schema
        self.defects = defects
        self.lost = lost
        self._root, self._info, self._plan, self._entries, self._tasks = root, info, plan, entries, tasks
        self._scan, self._pictures, self._task = scan, pictures, task
        name = re.sub(r"[^A-Za-z0-9_.\-]", "_", root.resolve().name).lstrip(".-") or "lerobot"
        self._name = name
        self.provenance: Mapping[str, Any] = {
            "format": self.format, "name": name, "robot_type": info.robot, "fps": info.raw.get("fps"),
            "splits": info.raw.get("splits"),
            "features": {s.feature.name: dict(s.feature.raw) for s in plan.sources},
            "streams": {s.feature.name: s.stream for s in plan.sources if s.role != "text"},
        }  # fmt: skip
        done = list(scan.done.values())
        # LeRobot's own recorder sets next.done in every last row, where it says nothing about the task.
        self._done_tells = len(set(done)) > 1
        self._file: ParquetFile | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def episode_id(self, index: int) -> str:
        """Return `<folder>-<episode_index>`."""
        return f"{self._name}-{self._entries[index].index:06d}"

    def episode(self, index: int) -> Recording:
        """Return one episode; pictures are decoded when read, best in their order.

        Raises:
            DataFormatError: It cannot be read.
        """
        entry = self._entries[index]
        span = self._scan.spans.get(index)
        if span is None:
            raise DataFormatError(f"{entry.data}: episode {entry.index} has no rows that can be read")
        columns, texts = self._read(span)
        stamps = np.round(np.arange(len(span)) * (1e9 / self._info.fps)).astype(np.int64)
        streams = {name: Stream(stamps, rows) for name, rows in self._arrays(columns).items()}
        for source in self._plan.pictures:
            if source.stream in self.schema.streams:
                streams[source.stream] = Stream(stamps, self._pictures.rows(source, entry, span))
        return Recording(streams, self._meta(entry, columns, texts))

    def _read(self, span: RowSpan) -> tuple[dict[str, np.ndarray], dict[str, list[Any]]]:
        """Return an episode's columns of numbers and of text."""
        numbers = {source.feature.name: source.feature for source in self._plan.numbers}
        texts = [source.feature.name for source in self._plan.of("text")]
        also = ["timestamp", "task_index", "next.success", "next.done"]
        file = self._open(self._root / span.path)
        extra = [name for name in also if name in file.columns and name not in numbers]
        table = file.read([*numbers, *extra, *(t for t in texts if t in file.columns)], span.start, span.stop)
        columns = {name: to_array(table.column(name)) for name in [*numbers, *extra]}
        for name, feature in numbers.items():
            columns[name] = shape_of(columns[name], feature.shape)
        return columns, {t: table.column(t).to_pylist() for t in texts if t in file.columns}

    def _open(self, path: Path) -> ParquetFile:
        """Return the file, still open from the episode before where they share it."""
        if self._file is None or self._file.path != path:
            if self._file is not None:
                self._file.close()
            self._file = ParquetFile(path)
        return self._file

    def _arrays(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the streams that are arrays."""
        parts = [columns[s.feature.name] for s in self._plan.of("action")]
        joined = [part.reshape(len(part), -1) for part in parts]
        arrays = {"action": np.concatenate(joined, axis=1)}
        for source in self._plan.numbers:
            if source.role == "action" or source.stream not in self.schema.streams:
                continue
            spec, values = self.schema.streams[source.stream].spec, columns[source.feature.name]
            arrays[source.stream] = values.reshape(len(values), *spec.shape).astype(spec.dtype, copy=False)
        for name in ("timestamp", "task_index"):
            if name in self.schema.extra and name in columns:
                arrays[name] = columns[name].reshape(-1).astype(self.schema.extra[name].dtype, copy=False)
        return arrays

    def _meta(
        self, entry: EpisodeEntry, columns: Mapping[str, np.ndarray], texts: Mapping[str, list[Any]]
    ) -> RecordingMeta:
        """Return what is known about an episode."""
        indices = self._scan.tasks.get(entry.number, [])
        words = [self._tasks[i] for i in indices if i in self._tasks] or list(entry.tasks)
        imported: dict[str, Any] = {**self.provenance, "episode_index": entry.index, "data": entry.data, "tasks": words}
        if len(indices) > 1:
            imported["task_words"] = {str(i): self._tasks.get(i, "") for i in indices}
        constant = {name: values[0] for name, values in texts.items() if len(set(values)) == 1}
        if constant:
            imported["text"] = constant
        said = [constant[name] for name in _INSTRUCTIONS if constant.get(name)]
        outcome, terminated = self._ending(columns)
        return RecordingMeta(
            task=[*words, *said, self._task][0], source="import", on_grid=True, outcome=outcome,
            terminated=terminated, truncated=not terminated, extra={"imported": imported},
        )  # fmt: skip

    def _ending(self, columns: Mapping[str, np.ndarray]) -> tuple[Outcome, bool]:
        """Return the outcome, and whether the task itself ended."""
        success, done = columns.get("next.success"), columns.get("next.done")
        ended = self._done_tells and done is not None and bool(done.reshape(-1)[-1])
        if success is None:
            return "unknown", ended
        succeeded = bool(success.astype(bool).any())
        return ("success" if succeeded else "failure"), succeeded or ended
